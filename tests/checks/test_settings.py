"""``MMOLOVE_REFERRAL`` and the servers in it, compared whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from celery import Celery
from django.core.checks import Warning  # noqa: A004

from django_mmolove_referral import signals
from tests.conftest import Granted
from tests.pages import code

from .conftest import SET_UP, Ours

Configure = Callable[..., None]

EU = {"SERVER_ID": "srv_eu", "SECRET": "77b1c03f2a6de948", "SHARE_URL": "https://mmolove.example/r/srv_eu"}


def wrong(problem: str) -> Warning:
    hint = "“Settings” in the documentation lists every key and what it may be."
    return Warning(problem, hint=hint, id="mmolove_referral.W001")


def insecure(setting: str = "MMOLOVE_REFERRAL") -> Warning:
    return Warning(
        f"{setting}['ENDPOINT'] must be https outside DEBUG (http is accepted for this machine only).",
        hint="Use https. Plain http is for a sandbox on this machine (http://127.0.0.1:…), or for DEBUG.",
        id="mmolove_referral.W008",
    )


def made_up_id(value: str) -> Warning:
    return Warning(
        f"MMOLOVE_REFERRAL['SERVER_ID'] = '{value}' is a placeholder: MMOLove knows no such server.",
        hint="Put the server's id there, from the MMOLove dashboard.",
        id="mmolove_referral.W009",
    )


MADE_UP_SECRET = Warning(
    "MMOLOVE_REFERRAL['SECRET'] looks like a placeholder: MMOLove will refuse every event that it signs.",
    hint="Generate the referral secret in the MMOLove dashboard (it is shown once) and put it there.",
    id="mmolove_referral.W009",
)


def here_endpoint(url: str, setting: str = "MMOLOVE_REFERRAL") -> Warning:
    return Warning(
        f"{setting}['ENDPOINT'] = '{url}' is on this machine: no event reaches MMOLove.",
        hint=f"Remove {setting}['ENDPOINT'], which was for the sandbox: MMOLove's own is used then.",
        id="mmolove_referral.W025",
    )


def here_share_url(url: str, setting: str = "MMOLOVE_REFERRAL") -> Warning:
    return Warning(
        f"{setting}['SHARE_URL'] = '{url}' is on this machine: whoever follows a share link gets nowhere.",
        hint=f"Set {setting}['SHARE_URL'] to your server's link at MMOLove, e.g. \"https://mmolove.com/r/your-server\".",
        id="mmolove_referral.W025",
    )


DOUBLED = Warning(
    "The servers 'default' and 'eu' are one to MMOLove, as both have SERVER_ID = 'srv_1': an account can be referred "
    "at each, and its referrer rewarded twice.",
    hint="Remove MMOLOVE_REFERRAL['SERVERS']['eu'], or give it the SERVER_ID of its own from the MMOLove dashboard.",
    id="mmolove_referral.W010",
)
UNVERIFIED = Warning(
    "MMOLOVE_REFERRAL['VERIFY'] is False: anybody between here and MMOLove can answer in its place.",
    hint="Remove MMOLOVE_REFERRAL['VERIFY'], or set it to the path of your own CA's certificates.",
    id="mmolove_referral.W022",
)


def test_a_portal_that_is_set_up_well_hears_nothing(ours: Ours) -> None:
    assert ours() == []


def test_a_portal_without_credentials_hears_of_nothing_else(
    celery_app: Celery, granted: Granted, settings: Any, monkeypatch: pytest.MonkeyPatch, ours: Ours
) -> None:
    monkeypatch.delenv("MMOLOVE_SERVER_ID", raising=False)
    signals.referral_qualified.disconnect(granted.receive)
    settings.MMOLOVE_REFERRAL = {"DISPATCH": "celery"}
    settings.ROOT_URLCONF = "tests.bare_urls"
    assert ours() == [
        wrong(
            "MMOLOVE_REFERRAL['SERVER_ID'] is missing. Put the server's id from the MMOLove dashboard there, as a "
            "string, or into the environment variable MMOLOVE_SERVER_ID."
        )
    ]


def test_each_wrong_setting_is_a_warning_of_its_own(configure: Configure, ours: Ours) -> None:
    configure(DISPATCH="post", SHARE_URL="http://[oops", QUERY_PARM="x")
    dispatch, unknown, share_url = ours()
    assert dispatch == wrong("MMOLOVE_REFERRAL['DISPATCH'] must be one of 'thread', 'celery', 'manual', not 'post'.")
    assert unknown.msg.startswith("MMOLOVE_REFERRAL has no setting 'QUERY_PARM'; there are AUTO_REGISTER, ")
    assert unknown == wrong(unknown.msg)
    assert share_url == wrong(
        "MMOLOVE_REFERRAL['SHARE_URL'] must be a URL such as \"https://mmolove.com/r/your-server\"."
    )


def test_a_setting_that_is_no_dict_is_one_warning(settings: Any, ours: Ours) -> None:
    settings.MMOLOVE_REFERRAL = "srv_1"
    assert ours(deploy=True) == [wrong("MMOLOVE_REFERRAL must be a dict, not str.")]


@pytest.mark.parametrize("key", ["COOKIE_NAME", "SET_COOKIE", "REFEREE_IDENTITY", "REFERRER_CODE", "VERIFY", "SERVERS"])
def test_a_setting_that_cannot_be_read_is_said_once(key: str, configure: Configure, settings: Any, ours: Ours) -> None:
    settings.MIDDLEWARE = ["django_mmolove_referral.middleware.ReferralMiddleware"]
    configure(**{key: 5})
    said = [message for message in ours(deploy=True) if message.id != "mmolove_referral.W006"]
    assert [(message.id, f"['{key}'] must be" in message.msg) for message in said] == [("mmolove_referral.W001", True)]


@pytest.mark.parametrize(
    ("endpoint", "debug", "warnings"),
    [
        ("http://mmolove.com/api/referral/events", False, [insecure()]),
        ("http://mmolove.com/api/referral/events", True, []),
        ("http://127.0.0.1:9000/api/referral/events", False, []),
        ("https://mmolove.com/api/referral/events", False, []),
    ],
)
def test_events_leave_by_https(
    endpoint: str, debug: bool, warnings: list[Warning], configure: Configure, settings: Any, ours: Ours
) -> None:
    settings.DEBUG = debug
    configure(ENDPOINT=endpoint)
    assert ours() == warnings


def test_every_server_has_its_own_endpoint_looked_at(configure: Configure, ours: Ours) -> None:
    configure(SERVERS={"eu": {**EU, "ENDPOINT": "http://mmolove.com/"}})
    assert ours() == [insecure("MMOLOVE_REFERRAL['SERVERS']['eu']")]


@pytest.mark.parametrize(
    "secret",
    [
        "change-me",
        "changeme123",
        "your-secret",
        "your-referral-secret-here",
        "<secret>",
        "{{ secret }}",
        "${MMOLOVE_REFERRAL_SECRET}",
        "$MMOLOVE_REFERRAL_SECRET",
        "%(secret)s",
        "[the secret]",
        "xxxxxxxxxxxxxxxx",
        "****************",
        "...",
        "secret",
        "my-super-secret",
        "SECRET_KEY_HERE",
        "password",
        "Insert your secret here",
        "None",
        "s3cr3t7",
        "  change-me\n",
    ],
)
def test_a_secret_that_nobody_generated_is_found(secret: str, configure: Configure, ours: Ours) -> None:
    configure(SECRET=secret)
    assert ours() == [MADE_UP_SECRET]
    configure(SECRET=lambda: secret)  # a vault is not asked for it
    assert ours() == []
    configure(SECRET=secret, ENDPOINT="http://localhost:8000/sandbox/api/referral/events")  # takes any
    assert ours() == []


@pytest.mark.parametrize(
    "secret",
    [
        "0f6c2a9d7b31e854",
        "whsec_4v8Qz1LrT0",
        "secret_4v8Qz1LrT0",
        "$k2j#9!xQ",
        "put/8Hq2LmZ0+rQ=",
        "abcdefgh",
        "change/8Hq2LmZ0",
        "schlüssel-42",
    ],
)
def test_a_secret_that_may_be_one_is_left_alone(secret: str, configure: Configure, ours: Ours) -> None:
    configure(SECRET=secret)
    assert ours() == []


@pytest.mark.parametrize(
    ("value", "placeholder"),
    [
        ("your-server-id", True),
        ("your-server", True),
        ("YOUR_SERVER_ID", True),
        ("<server id>", True),
        ("${MMOLOVE_SERVER_ID}", True),
        ("server-id", True),
        ("change-me", True),
        ("xxx", True),
        ("1", False),
        ("77", False),
        ("7842", False),
        ("your-story", False),
        ("change-of-fate", False),
        ("server-ideal", False),
        ("emberfall", False),
    ],
)
def test_a_server_id_out_of_the_documentation_is_found(
    value: str, placeholder: bool, configure: Configure, ours: Ours
) -> None:
    configure(SERVER_ID=value)
    assert ours() == ([made_up_id(value)] if placeholder else [])


@pytest.mark.parametrize("endpoint", ["https://mmolove.com/", "http://127.0.0.1:8780/api/referral/events"])
def test_the_quickstart_s_values_are_found_outside_debug_wherever_they_are_sent(
    endpoint: str, configure: Configure, settings: Any, ours: Ours
) -> None:
    written: dict[str, Any] = {}
    exec(code("quickstart.md", '"for-the-sandbox-only"'), {"DATABASES": {"default": {}}}, written)
    quickstart = written["MMOLOVE_REFERRAL"]
    configure(**{**quickstart, "ENDPOINT": endpoint})
    assert ours() == [made_up_id("my-server"), MADE_UP_SECRET]
    settings.DEBUG = True
    assert ours() == []


@pytest.mark.parametrize("host", ["127.0.0.1:8780", "localhost", "[::1]:8780"])
def test_the_sandbox_s_addresses_are_found_before_they_reach_production(
    host: str, configure: Configure, settings: Any, ours: Ours
) -> None:
    endpoint, share_url = f"http://{host}/api/referral/events", f"http://{host}/r/srv_1"
    found = [here_endpoint(endpoint), here_share_url(share_url)]
    configure(ENDPOINT=endpoint, SHARE_URL=share_url)
    assert ours() == []
    assert ours(deploy=True) == found
    configure(SHARE_URL="/sandbox/r/srv_1")  # of which W024 tells
    assert ours(deploy=True) == found[:1]
    configure(ENDPOINT=None, SHARE_URL=share_url)
    assert ours(deploy=True) == found[1:]
    settings.DEBUG = True
    assert ours(deploy=True) == []


def test_the_sandbox_s_addresses_are_found_at_every_server_that_can_be_read(configure: Configure, ours: Ours) -> None:
    eu = "MMOLOVE_REFERRAL['SERVERS']['eu']"
    configure(SERVERS={"eu": {**EU, "ENDPOINT": "http://127.0.0.1/"}})
    assert ours(deploy=True) == [here_endpoint("http://127.0.0.1/", eu)]
    configure(SERVERS={"eu": {**EU, "ENDPOINT": "http://127.0.0.1/", "SHARE_URL": "127.0.0.1"}})
    assert [message.id for message in ours(deploy=True)] == ["mmolove_referral.W001"]


@pytest.mark.parametrize(
    ("eu", "warnings"),
    [
        (EU, []),
        ({**EU, "SERVER_ID": "srv_1"}, [DOUBLED]),
        ({**EU, "SERVER_ID": " srv_1 "}, [DOUBLED]),
        ({**EU, "SERVER_ID": "srv_1", "ENDPOINT": "https://staging.mmolove.example/"}, []),
    ],
)
def test_two_names_for_one_server_are_found(
    eu: dict[str, str], warnings: list[Warning], configure: Configure, ours: Ours
) -> None:
    configure(SERVERS={"eu": eu})
    assert ours() == warnings


@pytest.mark.parametrize(("verify", "warnings"), [(False, [UNVERIFIED]), (True, []), ("/etc/ssl/our-ca.pem", [])])
def test_unverified_tls_is_no_matter_for_production(
    verify: object, warnings: list[Warning], configure: Configure, ours: Ours
) -> None:
    configure(VERIFY=verify)
    assert ours() == []
    assert ours(deploy=True) == warnings


def test_credentials_are_never_shown(configure: Configure, ours: Ours) -> None:
    configure(SECRET="hunter2")
    assert "hunter2" not in repr(ours(deploy=True))
    assert SET_UP["SECRET"] not in repr(ours(deploy=True))
