"""Who may speak: the signature over the raw bytes, and the replay window."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from django_mmolove_referral.sandbox import Sandbox
from django_mmolove_referral.sandbox.wire import RefusedError, check_signature

from .portal import NOW, SECRET, SERVER, Portal, event, outcome, sign

VECTORS = json.loads((Path(__file__).parents[1] / "data" / "signatures.json").read_text("utf-8"))
BAD = (401, {"error": "bad_signature"})
STALE = (401, {"error": "stale_timestamp"})


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_vectors(vector: dict[str, Any]) -> None:
    body, t = vector["body"].encode(), vector["t"]
    assert sign(vector["secret"], body, t) == vector["header"]
    check_signature(vector["header"], body, vector["secret"], t)
    check_signature(f"{vector['header']},kid=k1", body, vector["secret"], t)
    with pytest.raises(RefusedError):
        check_signature(vector["header"], body + b" ", vector["secret"], t)


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_vectors_at_the_endpoint(vector: dict[str, Any]) -> None:
    """Signed with what nobody minted: past the signature, whole events meet an unknown token."""
    body = vector["body"].encode()
    fields = json.loads(body) if body else {}
    sandbox = Sandbox({fields.get("server_id", SERVER): vector["secret"]}, clock=lambda: vector["t"])
    whole = {"event", "token", "server_id", "server_event_id"} <= set(fields)
    expected = 400 if not whole else 200 if fields.get("test") else 404
    assert sandbox.ingest(body, vector["header"]).status == expected


@pytest.mark.parametrize("off", [-300, -299, 0, 299, 300])
def test_inside_the_replay_window(portal: Portal, off: int) -> None:
    assert portal.post(event("registered", portal.mint()), off=off).status == 200


@pytest.mark.parametrize("off", [-301, 301, -86400, 86400])
@pytest.mark.parametrize("test", [None, True])
def test_outside_the_replay_window(portal: Portal, off: int, test: bool | None) -> None:
    assert outcome(portal.post(event("registered", portal.mint(), test=test), off=off)) == STALE


def test_a_drifting_clock(portal: Portal) -> None:
    portal.sandbox.clock = lambda: NOW + 301
    token = portal.mint()
    assert outcome(portal.send("registered", token)) == STALE
    portal.sandbox.clock = lambda: NOW + 300
    assert portal.send("registered", token).status == 200


MAC = "0" * 64


@pytest.mark.parametrize(
    "header",
    [
        "",
        ",",
        "t=,v1=",
        f"t={int(NOW)}",
        f"v1=sha256={MAC}",
        f"t={int(NOW)},v1=sha256={MAC}",
        f"t={int(NOW)},v1={MAC}",
        f"t=soon,v1=sha256={MAC}",
        f"t=-1,v1=sha256={MAC}",
        f"t={int(NOW)},v1=sha256=ÿ\ud800",
    ],
)
def test_malformed_header(portal: Portal, header: str) -> None:
    body = json.dumps(event("registered", portal.mint())).encode()
    assert outcome(portal.sandbox.ingest(body, header)) == BAD


@pytest.mark.parametrize(
    ("change", "accepted"),
    [
        (lambda header: f"{header},kid=k1", True),
        (lambda header: f"{header},kid=a=b", True),
        (lambda header: f"{header},kid=", False),
        (lambda header: f"{header},kid=a,b", False),
        (lambda header: f"{header},more=1", False),
        (lambda header: header.replace(",", ", "), False),
        (lambda header: ",".join(reversed(header.split(","))), False),
        (lambda header: header.replace("v1=", "v0="), False),
        (lambda header: header.replace("sha256=", ""), False),
        (lambda header: header[:-64] + header[-64:].upper(), False),
        (lambda header: header[:-1], False),
        (lambda header: header.replace("t=", "t=0"), False),
    ],
)
def test_the_format_is_exact(portal: Portal, change: Any, accepted: bool) -> None:
    body = json.dumps(event("registered", portal.mint())).encode()
    header = change(sign(SECRET, body, int(NOW)))
    assert portal.sandbox.ingest(body, header).status == (200 if accepted else 401)


@pytest.mark.parametrize("t", ["١٧٣٣٥٠٠٠٠٠", "0" * 5000 + "1733500000", " 1733500000", "1733500000.0", "+1733500000"])
def test_a_signing_time_is_a_few_ascii_digits(portal: Portal, t: str) -> None:
    body = json.dumps(event("registered", portal.mint())).encode()
    assert outcome(portal.sandbox.ingest(body, sign(SECRET, body, t))) == BAD


def test_the_raw_bytes_are_signed(portal: Portal) -> None:
    fields = event("registered", portal.mint())
    compact, spaced = json.dumps(fields, separators=(",", ":")).encode(), json.dumps(fields, indent=1).encode()
    assert outcome(portal.sandbox.ingest(spaced, sign(SECRET, compact, int(NOW)))) == BAD
    assert portal.sandbox.ingest(spaced, sign(SECRET, spaced, int(NOW))).status == 200


def test_rotation_invalidates_the_old_secret_at_once(portal: Portal) -> None:
    token = portal.mint()
    portal.sandbox.rotate_secret(SERVER, "new")
    assert outcome(portal.send("registered", token)) == BAD
    assert portal.send("registered", token, secret="new").status == 200


def test_secrets_are_per_server(portal: Portal) -> None:
    assert outcome(portal.send("registered", portal.mint(), server_id="srv_2")) == BAD


@pytest.mark.parametrize("operation", ["referrals_off", "referrals_on"])
def test_operations_on_a_server_nobody_knows(portal: Portal, operation: str) -> None:
    with pytest.raises(LookupError):
        getattr(portal.sandbox, operation)("nobody")
    with pytest.raises(LookupError):
        portal.sandbox.rotate_secret("nobody", "new")
    with pytest.raises(LookupError):
        portal.sandbox.reverse("ref_none")
