"""A restart forgets nothing, and a broken file breaks nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from django_mmolove_referral.sandbox import Fault, Sandbox
from django_mmolove_referral.sandbox.state import State

from .portal import Portal, outcome


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "var" / "sandbox.json"


def start(path: Path) -> Portal:
    return Portal(options={"state": path})


def test_a_restart_forgets_nothing(path: Path) -> None:
    before = start(path)
    token, shared, unused = before.mint("alice"), before.mint("bob"), before.mint("玩家")
    before.send("registered", token)
    before.send("qualified", token)
    before.send("registered", shared, referee_identity="1", server_event_id="1")
    before.send("registered", shared, referee_identity="2", server_event_id="2")
    before.sandbox.reverse(before.sandbox.referrals[0].id)
    before.send("registered", "unknown")

    after = start(path)
    assert after.sandbox.referrals == before.sandbox.referrals
    assert after.sandbox.log == before.sandbox.log
    assert outcome(after.send("qualified", token)) == (200, {"ok": True, "duplicate": True})
    assert after.send("qualified", token, server_event_id="late").status == 422
    assert outcome(after.send("registered", unused)) == (200, {"ok": True, "ignored": "first_touch_conflict"})
    assert after.send("qualified", shared).status == 200


def test_two_processes_see_each_other(path: Path) -> None:
    one, two = start(path), start(path)
    token = one.mint()
    assert two.send("registered", token).status == 200
    assert one.sandbox.referrals == two.sandbox.referrals != []
    assert outcome(one.send("registered", token)) == (200, {"ok": True, "duplicate": True})
    assert len(two.sandbox.log) == 3
    two.sandbox.reverse(one.sandbox.referrals[0].id)
    assert one.send("qualified", token).status == 422


def test_the_file_is_read_when_another_process_has_written_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = start(path), start(path)
    two.mint()
    reads: list[str] = []
    load = State.load

    def counted(text: str, log_limit: int) -> State:
        reads.append(text)
        return load(text, log_limit)

    monkeypatch.setattr(State, "load", counted)
    assert len(one.sandbox.log) == len(one.sandbox.log) == 1
    one.mint()
    one.mint()
    one.send("registered", one.mint())
    assert len(one.sandbox.log) == 5
    assert len(reads) == 1


def test_the_key_is_in_the_file_from_the_start(path: Path) -> None:
    start(path)
    assert path.exists()


def test_no_secret_reaches_the_file(path: Path) -> None:
    portal = start(path)
    portal.send("registered", portal.mint())
    assert "topsecret" not in path.read_text("utf-8")
    assert [file.name for file in path.parent.iterdir()] == ["sandbox.json"], "nothing temporary stays"


def test_a_deleted_file_is_a_fresh_start(path: Path) -> None:
    portal = start(path)
    token = portal.mint()
    portal.send("registered", token)
    path.unlink()
    assert portal.sandbox.referrals == []
    assert portal.send("registered", token).status == 404
    assert path.exists()


GOOD: dict[str, Any] = json.loads(State(b"key", 1).dump())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "{}",
        "[" * 100_000,
        json.dumps({**GOOD, "version": 0}),
        json.dumps({**GOOD, "key": "no hex"}),
        json.dumps({**GOOD, "key": None}),
        json.dumps({**GOOD, "referrals": [{}]}),
        json.dumps({**GOOD, "referrals": [{"tokens": [], "surprise": 1}]}),
        json.dumps({**GOOD, "seen": [["too", "short"]]}),
        json.dumps({**GOOD, "log": [1]}),
    ],
    ids=lambda text: text[:40],
)
def test_a_corrupted_file_is_kept_aside(path: Path, text: str, caplog: pytest.LogCaptureFixture) -> None:
    path.parent.mkdir()
    path.write_text(text, "utf-8")
    portal = start(path)
    assert portal.send("registered", portal.mint()).status == 200
    assert path.with_name("sandbox.json.corrupt").read_text("utf-8") == text
    assert "starts afresh" in caplog.text
    assert start(path).sandbox.referrals == portal.sandbox.referrals


def test_bytes_that_are_no_text(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"\xff\xfe\x00")
    assert start(path).sandbox.referrals == []
    assert path.with_name("sandbox.json.corrupt").read_bytes() == b"\xff\xfe\x00"


def test_a_file_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="directory"):
        start(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="directory"):
        start(tmp_path / "file" / "sandbox.json")


def test_a_failing_write_leaves_the_old_file_whole(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    portal = start(path)
    token = portal.mint()
    before = path.read_bytes()

    def full(self: Path, target: Path) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", full)
        with pytest.raises(OSError, match="disk full"):
            portal.send("registered", token)
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == ["sandbox.json"]


def test_what_a_restart_does_forget(path: Path) -> None:
    before = start(path)
    before.sandbox.rotate_secret("srv_1", "new")
    before.sandbox.referrals_off("srv_2")
    before.sandbox.script(Fault(500), times=None)
    after = start(path)
    assert after.send("registered", after.mint()).status == 200
    assert after.sandbox.click("srv_2", "alice")


def test_a_state_of_its_own_without_a_file() -> None:
    one, two = Sandbox({"s": "x"}), Sandbox({"s": "x"})
    one.mint("s", "alice")
    assert (len(one.log), len(two.log)) == (1, 0)
