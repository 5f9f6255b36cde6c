"""Share links, tokens and the log."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import pytest

from django_mmolove_referral.sandbox import Sandbox, Server

from .portal import NOW, REGISTER_URL, SERVER, Portal


def test_the_token_is_appended_to_what_is_there(portal: Portal) -> None:
    url = urlsplit(portal.sandbox.click(SERVER, "alice"))
    query = parse_qs(url.query)
    assert query.pop("lang") == ["en"]
    (token,) = query.pop("mmref")
    assert not query
    assert url._replace(query="lang=en").geturl() == REGISTER_URL
    assert portal.send("registered", token).status == 200
    assert portal.sandbox.referrals[0].referrer == "alice"


@pytest.mark.parametrize(
    ("register_url", "start"),
    [
        ("/signup/", "/signup/?mmref="),
        ("https://portal.example", "https://portal.example?mmref="),
        ("https://portal.example/?", "https://portal.example/?mmref="),
        ("https://portal.example/?a=1&b=%20", "https://portal.example/?a=1&b=%20&mmref="),
    ],
)
def test_registration_urls(register_url: str, start: str) -> None:
    assert Sandbox({SERVER: "s"}, register_url=register_url).click(SERVER, "alice").startswith(start)


def test_a_server_may_have_its_own_registration_url() -> None:
    sandbox = Sandbox({SERVER: Server("s", register_url="/there/"), "other": "s"}, register_url="/here/")
    assert sandbox.click(SERVER, "alice").startswith("/there/?")
    assert sandbox.click("other", "alice").startswith("/here/?")


def test_where_links_lead_can_change(portal: Portal) -> None:
    portal.sandbox.lead_to(SERVER, "http://127.0.0.1:8081/register/")
    assert portal.sandbox.click(SERVER, "alice").startswith("http://127.0.0.1:8081/register/?mmref=")
    with pytest.raises(LookupError):
        portal.sandbox.lead_to("nobody", "/register/")


def test_links_that_lead_nowhere(portal: Portal) -> None:
    with pytest.raises(LookupError, match="unknown_server"):
        portal.sandbox.click("nobody", "alice")
    portal.sandbox.referrals_off(SERVER)
    with pytest.raises(LookupError, match="referrals_off"):
        portal.sandbox.click(SERVER, "alice")
    with pytest.raises(LookupError, match="no_register_url"):
        Sandbox({SERVER: "s"}).click(SERVER, "alice")


@pytest.mark.parametrize("ref", ["", "x" * 65])
def test_a_broken_code_costs_nothing_but_the_token(portal: Portal, ref: str) -> None:
    assert portal.sandbox.click(SERVER, ref) == REGISTER_URL
    assert portal.sandbox.log == []
    with pytest.raises(ValueError, match="1 to 64"):
        portal.sandbox.mint(SERVER, ref)


def test_mint_knows_its_servers(portal: Portal) -> None:
    with pytest.raises(LookupError):
        portal.sandbox.mint("nobody", "alice")


@pytest.mark.parametrize("code", ["a", "x" * 64, "玩家 🐉", "<b>&\"'", "\x00\n", "\ud800"])
def test_every_code_travels(portal: Portal, code: str) -> None:
    token = portal.mint(code)
    assert token.isascii()
    assert token.isprintable()
    assert " " not in token
    assert portal.send("registered", token).status == 200
    assert portal.sandbox.referrals[0].referrer == code.replace("\ud800", "?")


def test_tokens_differ_by_click(portal: Portal) -> None:
    assert len({portal.mint() for _ in range(50)}) == 50


def test_the_log(portal: Portal) -> None:
    token = portal.mint("alice")
    portal.send("registered", "probe", test=True)
    portal.send("qualified", token)
    portal.send("registered", f" {token} ")
    portal.sandbox.ingest(b"no json")
    click, probe, early, accepted, broken = portal.sandbox.log
    assert (click.kind, click.at, click.referrer, click.token) == ("clicked", NOW, "alice", token)
    assert (probe.test, probe.status, probe.accepted) == (True, 200, False)
    assert (early.status, early.accepted, early.answer["error"]) == (
        422,
        False,
        "illegal_transition: qualified before registered",
    )
    assert (accepted.server_id, accepted.server_event_id, accepted.ts) == (SERVER, "reg-7842", int(NOW) - 10)
    assert accepted.accepted
    assert accepted.token == token
    assert (broken.kind, broken.status) == ("", 400)


def test_events_selects(portal: Portal) -> None:
    token = portal.mint()
    portal.send("qualified", token)
    portal.send("registered", token)
    portal.send("registered", token, test=True)
    sandbox = portal.sandbox
    assert [entry.kind for entry in sandbox.events()] == ["qualified", "registered", "registered"]
    assert [entry.status for entry in sandbox.events("qualified")] == [422]
    assert [entry.kind for entry in sandbox.events(accepted=True)] == ["registered"]
    assert len(sandbox.events(accepted=False)) == 2
    assert [entry.test for entry in sandbox.events("registered", test=False)] == [False]


def test_the_log_is_bounded_and_so_are_its_lines() -> None:
    portal = Portal(options={"log_limit": 3})
    for n in range(5):
        portal.send("registered", "x" * 5000, server_event_id=str(n), ts=True, event=["no", "text"])
    assert [entry.server_event_id for entry in portal.sandbox.log] == ["2", "3", "4"]
    entry = portal.sandbox.log[0]
    assert (len(entry.token), entry.ts, entry.kind) == (500, None, "")


def test_tokens_and_secrets_are_masked(portal: Portal) -> None:
    token = portal.mint()
    portal.send("registered", token)
    entry = portal.sandbox.events()[0]
    assert entry.masked_token == f"…{token[-6:]}"
    assert token not in repr(entry)
    assert token not in repr(portal.sandbox.referrals)
    assert "hush" not in repr(Server("hush"))
    portal.send("registered", "short")
    assert "short" not in portal.sandbox.log[-1].masked_token
    portal.sandbox.ingest(b"{}")
    assert portal.sandbox.log[-1].masked_token == ""
