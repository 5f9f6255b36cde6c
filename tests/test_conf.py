"""The settings: defaults, what each key accepts, and the exact words about what it does not."""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings
from django.views.debug import ExceptionReporter

from django_mmolove_referral import conf as module
from django_mmolove_referral.conf import KEYS, REQUESTS_PER_CLAIM, ConfigError, Settings, conf
from django_mmolove_referral.protocol import Credentials, Secret

HIDDEN = "s3cr3t-of-the-portal"
FULL = {"SERVER_ID": "srv_1", "SECRET": HIDDEN}


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("MMOLOVE_SERVER_ID", "MMOLOVE_REFERRAL_SECRET"):
        monkeypatch.delenv(variable, raising=False)


def configured(value: object) -> override_settings:
    return override_settings(MMOLOVE_REFERRAL=value)


@contextmanager
def refused(message: str) -> Iterator[None]:
    with pytest.raises(ConfigError) as caught:
        yield
    assert str(caught.value) == message


# -- one value at a time


DEFAULTS: dict[str, Any] = {
    "query_param": "mmref",
    "cookie_name": "mmref",
    "set_cookie": False,
    "capture_if": None,
    "token_max_age": 90 * 86400.0,
    "auto_register": True,
    "resolve_server": None,
    "resolve_referrer": None,
    "referrer_code_field": "pk",
    "dispatch": "thread",
    "deadline": 15.0,
    "lease": 120.0,
    "concurrency": 32,
    "retry_schedule": (10.0, 60.0, 300.0, 900.0, 3600.0, 10800.0, 21600.0, 43200.0, 86400.0, 86400.0),
    "pause_after": 5,
    "probe_interval": (15.0, 300.0),
    "sweep_interval": 30.0,
    "response_limit": 65536,
    "verify": True,
    "trust_env": False,
}


@pytest.mark.parametrize("nothing", [None, {}])
def test_every_setting_has_the_documented_default(nothing: object) -> None:
    with configured(nothing):
        assert {name: getattr(conf, name) for name in DEFAULTS} == DEFAULTS
        for name in DEFAULTS:
            assert type(getattr(conf, name)) is type(DEFAULTS[name])
        user = SimpleNamespace(pk=7)
        assert (conf.referee_identity(user), conf.referrer_code(user)) == ("7", "7")
        assert list(conf.servers) == ["default"]
        assert conf.server("default").share_url == ""


def test_the_setting_may_be_missing_altogether(settings: Any) -> None:
    del settings.MMOLOVE_REFERRAL
    conf.reload()
    assert conf.dispatch == "thread"
    assert conf.problems() == [MISSING_ID]


def test_every_key_is_known() -> None:
    assert {
        *("SERVER_ID", "SECRET", "KEY_ID", "ENDPOINT", "SHARE_URL", "SERVERS", "RESOLVE_SERVER"),
        *("QUERY_PARAM", "COOKIE_NAME", "SET_COOKIE", "CAPTURE_IF", "TOKEN_MAX_AGE", "TOKEN_RETENTION"),
        *("AUTO_REGISTER", "REFEREE_IDENTITY", "REFERRER_CODE", "RESOLVE_REFERRER"),
        *("DISPATCH", "DEADLINE", "LEASE", "CONCURRENCY", "RETRY_SCHEDULE", "PAUSE_AFTER", "PROBE_INTERVAL"),
        *("SWEEP_INTERVAL", "RESPONSE_LIMIT", "VERIFY", "TRUST_ENV"),
    } == KEYS


@pytest.mark.parametrize(
    ("key", "value", "read"),
    [
        ("QUERY_PARAM", "friend-token.x_1", "friend-token.x_1"),
        ("COOKIE_NAME", "__Host-mmref", "__Host-mmref"),
        ("SET_COOKIE", True, True),
        ("TOKEN_MAX_AGE", 60, 60.0),
        ("TOKEN_MAX_AGE", timedelta(days=30), 30 * 86400.0),
        ("AUTO_REGISTER", False, False),
        ("DISPATCH", "celery", "celery"),
        ("DISPATCH", "manual", "manual"),
        ("DEADLINE", 2.5, 2.5),
        ("DEADLINE", timedelta(milliseconds=500), 0.5),
        ("LEASE", timedelta(minutes=5), 300.0),
        ("LEASE", 75.01, 75.01),
        ("CONCURRENCY", 1, 1),
        ("RETRY_SCHEDULE", [5], (5.0,)),
        ("RETRY_SCHEDULE", (1, 2.5, timedelta(hours=1)), (1.0, 2.5, 3600.0)),
        ("PAUSE_AFTER", 1, 1),
        ("PROBE_INTERVAL", 10, (10.0, 300.0)),
        ("PROBE_INTERVAL", 600, (600.0, 600.0)),
        ("PROBE_INTERVAL", timedelta(minutes=1), (60.0, 300.0)),
        ("PROBE_INTERVAL", (10, timedelta(minutes=1)), (10.0, 60.0)),
        ("PROBE_INTERVAL", [10, 10], (10.0, 10.0)),
        ("SWEEP_INTERVAL", timedelta(seconds=5), 5.0),
        ("RESPONSE_LIMIT", 1024, 1024),
        ("VERIFY", False, False),
        ("VERIFY", "/etc/ca.pem", "/etc/ca.pem"),
        ("VERIFY", Path("/etc/ca.pem"), "/etc/ca.pem"),
        ("TRUST_ENV", True, True),
        ("RESOLVE_SERVER", "os.path.basename", os.path.basename),
        ("RESOLVE_SERVER", len, len),
        ("RESOLVE_SERVER", None, None),
        ("RESOLVE_REFERRER", "os.path.basename", os.path.basename),
        ("RESOLVE_REFERRER", len, len),
        ("CAPTURE_IF", "os.path.basename", os.path.basename),
        ("CAPTURE_IF", len, len),
    ],
)
def test_a_setting_takes_every_form_that_makes_sense(key: str, value: object, read: object) -> None:
    with configured({**FULL, key: value}):
        found = getattr(conf, key.lower())
        assert found == read
        assert type(found) is type(read)
        assert conf.problems() == []


async def consent(request: object) -> bool:
    return False


class Consent:
    async def __call__(self, request: object) -> bool:
        return False


SECONDS = "must be a positive number of seconds or a timedelta, not"
WHOLE = "must be a whole number from 1, not"
FLAG = "must be True or False, not"
NAME = "must be a name of letters, digits, '.', '-' or '_', not"
CALLABLE = "must be a callable or the dotted path of one, not"
DURATIONS = ("TOKEN_MAX_AGE", "DEADLINE", "LEASE", "PROBE_INTERVAL", "SWEEP_INTERVAL")


@pytest.mark.parametrize(
    ("key", "value", "complaint"),
    [
        *(
            (key, value, f"{SECONDS} {value!r}")
            for key in DURATIONS
            for value in (0, -1, "60", None, True, timedelta(0), float("nan"), float("inf"), 10**10)
            if not isinstance(value, timedelta)
        ),
        *((key, timedelta(seconds=-1), f"{SECONDS} -1.0") for key in DURATIONS),
        ("LEASE", 75, "must be over 75 s (5 requests of DEADLINE = 15 s each), not 75 s"),
        ("RETRY_SCHEDULE", [], "must be a list of durations with at least one"),
        ("RETRY_SCHEDULE", 60, "must be a list of durations with at least one"),
        ("RETRY_SCHEDULE", "60", "must be a list of durations with at least one"),
        ("RETRY_SCHEDULE", None, "must be a list of durations with at least one"),
        ("RETRY_SCHEDULE", [60, "5 min"], f"{SECONDS} '5 min'"),
        ("PROBE_INTERVAL", (300, 15), "must have its longest interval last"),
        ("PROBE_INTERVAL", (15, 0), f"{SECONDS} 0"),
        ("PROBE_INTERVAL", (15, 30, 60), f"{SECONDS} (15, 30, 60)"),
        *(
            (key, value, f"{WHOLE} {value!r}")
            for key in ("CONCURRENCY", "PAUSE_AFTER", "RESPONSE_LIMIT")
            for value in (0, -1, 1.5, "3", True, None)
        ),
        *(
            (key, value, f"{FLAG} {value!r}")
            for key in ("SET_COOKIE", "AUTO_REGISTER", "TRUST_ENV")
            for value in (0, 1, "True", None)
        ),
        *(
            (key, value, f"{NAME} {value!r}")
            for key in ("QUERY_PARAM", "COOKIE_NAME")
            for value in ("", "a b", "a=b", "a;b", "a\n", "ä", "a" * 65, 5, None)
        ),
        ("DISPATCH", "threads", "must be one of 'thread', 'celery', 'manual', not 'threads'"),
        ("DISPATCH", None, "must be one of 'thread', 'celery', 'manual', not None"),
        ("DISPATCH", ["thread"], "must be one of 'thread', 'celery', 'manual', not ['thread']"),
        ("VERIFY", None, "must be True, False or the path of a CA bundle, not None"),
        ("VERIFY", 1, "must be True, False or the path of a CA bundle, not 1"),
        *(
            complaint
            for key in ("RESOLVE_SERVER", "RESOLVE_REFERRER", "CAPTURE_IF")
            for complaint in (
                (key, 5, f"{CALLABLE} 5"),
                (key, "", "cannot be imported:  doesn't look like a module path"),
                (key, "nodots", "cannot be imported: nodots doesn't look like a module path"),
                (key, "nowhere.at_all", "cannot be imported: No module named 'nowhere'"),
                (key, "os.nothing", 'cannot be imported: Module "os" does not define a "nothing" attribute/class'),
                (key, "os.sep", "must name a callable, and 'os.sep' is none"),
            )
        ),
        *(
            complaint
            for key in ("REFEREE_IDENTITY", "REFERRER_CODE")
            for complaint in (
                (key, None, 'must be an attribute of the user ("pk") or the dotted path of callable(user)'),
                (key, 5, f"{CALLABLE} 5"),
                (key, "nowhere.at_all", "cannot be imported: No module named 'nowhere'"),
                (key, "os.sep", "must name a callable, and 'os.sep' is none"),
            )
        ),
        *(("CAPTURE_IF", found, "must be a plain function, not an async one") for found in (consent, Consent())),
    ],
)
def test_a_wrong_value_is_an_error_that_names_its_key(key: str, value: object, complaint: str) -> None:
    message = f"MMOLOVE_REFERRAL[{key!r}] {complaint}."
    with configured({**FULL, key: value}):
        with refused(message):
            getattr(conf, key.lower())
        assert message in conf.problems()


def test_a_module_that_fails_to_import_is_an_error_that_names_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_portal.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    with configured({**FULL, "RESOLVE_SERVER": "broken_portal.resolve"}):
        message = "MMOLOVE_REFERRAL['RESOLVE_SERVER'] cannot be imported: division by zero."
        with refused(message):
            _ = conf.resolve_server
        assert conf.problems() == [message]
    assert "broken_portal" not in sys.modules


def test_the_lease_must_outlast_a_claim_at_the_configured_deadline() -> None:
    assert REQUESTS_PER_CLAIM == 5
    with configured({"DEADLINE": 30}):
        message = "MMOLOVE_REFERRAL['LEASE'] must be over 150 s (5 requests of DEADLINE = 30 s each), not 120 s."
        with refused(message):
            _ = conf.lease
    with configured({"DEADLINE": 30, "LEASE": 151}):
        assert conf.lease == 151.0
    with (
        configured({"DEADLINE": "soon"}),
        refused(f"MMOLOVE_REFERRAL['DEADLINE'] {SECONDS} 'soon'."),
    ):
        _ = conf.lease


# -- accounts


@pytest.mark.parametrize("key", ["REFEREE_IDENTITY", "REFERRER_CODE"])
def test_what_names_an_account_is_an_attribute_or_a_callable(key: str) -> None:
    user = SimpleNamespace(pk=7, nick="bob", nothing=None)
    for value, name in (("pk", "7"), ("nick", "bob"), (lambda user: 7.5, "7.5"), ("builtins.repr", repr(user))):
        with configured({key: value}):
            assert getattr(conf, key.lower())(user) == name


@pytest.mark.parametrize("key", ["REFEREE_IDENTITY", "REFERRER_CODE"])
@pytest.mark.parametrize("value", ["nothing", lambda user: None])
def test_an_account_without_a_name_is_not_called_none(key: str, value: object) -> None:
    with configured({key: value}):
        assert getattr(conf, key.lower())(SimpleNamespace(nothing=None)) == ""


@pytest.mark.parametrize(
    ("value", "field"), [("nick", "nick"), ("os.path.basename", None), (len, None), ("no field", None)]
)
def test_the_field_of_referrer_codes_is_known_unless_a_callable_makes_them(value: object, field: str | None) -> None:
    with configured({"REFERRER_CODE": value}):
        assert conf.referrer_code_field == field


# -- servers


def test_the_credentials_of_a_server() -> None:
    with configured({"SERVER_ID": " srv_1 ", "SECRET": f" {HIDDEN}\n", "KEY_ID": "k-2"}):
        assert conf.server("default").credentials() == Credentials(
            "srv_1", Secret(HIDDEN), "https://mmolove.com/api/referral/events", "k-2"
        )


def test_the_secret_may_be_a_secret_already() -> None:
    with configured({"SERVER_ID": "srv_1", "SECRET": Secret(HIDDEN)}):
        assert conf.server("default").credentials().secret == Secret(HIDDEN)


@pytest.mark.parametrize("answer", [HIDDEN, f"{HIDDEN}\n", Secret(HIDDEN)])
def test_the_secret_may_be_a_callable_that_is_asked_each_time(answer: object) -> None:
    asked: list[object] = []

    def vault() -> object:
        asked.append(answer)
        return answer

    with configured({"SERVER_ID": "srv_1", "SECRET": vault}):
        server = conf.server("default")
        assert asked == []
        assert server.credentials().secret == server.credentials().secret == Secret(HIDDEN)
        assert len(asked) == 2


MISSING_ID = (
    "MMOLOVE_REFERRAL['SERVER_ID'] is missing. Put the server's id from the MMOLove dashboard there, as a string, "
    "or into the environment variable MMOLOVE_SERVER_ID."
)
MISSING_SECRET = (
    "MMOLOVE_REFERRAL['SECRET'] is missing. Put the referral secret from the MMOLove dashboard there, as a string, "
    "or into the environment variable MMOLOVE_REFERRAL_SECRET."
)
NO_SECRET_RETURNED = (
    "MMOLOVE_REFERRAL['SECRET'] is a callable that returned none. Have it return the referral secret from the MMOLove "
    "dashboard, as a string."
)
NO_ENDPOINT = 'must be a URL such as "https://mmolove.com/api/referral/events"'
NO_SHARE_URL = 'must be a URL such as "https://mmolove.com/r/your-server"'


@pytest.mark.parametrize("value", [None, "", "  ", 5, b"srv_1"])
def test_a_missing_server_id_is_an_error_that_says_where_it_may_stand(value: object) -> None:
    with configured({"SERVER_ID": value, "SECRET": HIDDEN}):
        assert conf.server("default").server_id == ""
        with refused(MISSING_ID):
            conf.server("default").credentials()
        assert conf.problems() == [MISSING_ID]


@pytest.mark.parametrize("value", [None, "", "  ", 5, HIDDEN.encode(), Secret(""), [HIDDEN]])
def test_a_missing_secret_is_an_error_that_says_where_it_may_stand(value: object) -> None:
    with configured({"SERVER_ID": "srv_1", "SECRET": value}):
        with refused(MISSING_SECRET):
            conf.server("default").credentials()
        assert conf.problems() == [MISSING_SECRET]


@pytest.mark.parametrize("value", [None, "", b"bytes"])
def test_a_callable_that_returns_no_secret_is_told_what_to_return(value: object) -> None:
    with configured({"SERVER_ID": "srv_1", "SECRET": lambda: value}):
        with refused(NO_SECRET_RETURNED):
            conf.server("default").credentials()
        assert conf.problems() == [NO_SECRET_RETURNED]


def test_a_callable_for_the_secret_that_raises_is_an_error_without_its_words() -> None:
    def vault() -> str:
        raise PermissionError(f"{HIDDEN} is locked")

    message = "MMOLOVE_REFERRAL['SECRET'] is a callable that raised PermissionError."
    with configured({"SERVER_ID": "srv_1", "SECRET": vault}):
        with refused(message):
            conf.server("default").credentials()
        assert conf.problems() == [message]
        assert HIDDEN not in report(lambda: conf.server("default").credentials())


@pytest.mark.parametrize(
    ("value", "read"),
    [
        ("https://mmolove.gg/api", "https://mmolove.gg/api"),
        (" https://mmolove.gg/api\n", "https://mmolove.gg/api"),
        ("http://127.0.0.1:8000/api", "http://127.0.0.1:8000/api"),
        ("http://localhost/api", "http://localhost/api"),
        ("http://[::1]:9/api", "http://[::1]:9/api"),
        ("", "https://mmolove.com/api/referral/events"),
        (None, "https://mmolove.com/api/referral/events"),
    ],
)
def test_the_endpoint_is_https_or_on_this_machine(value: object, read: str) -> None:
    with configured({**FULL, "ENDPOINT": value}):
        assert conf.server("default").credentials().endpoint == read


@pytest.mark.parametrize("value", ["http://mmolove.com/api", "http://localhost.evil.example/", "http://10.0.0.1/"])
def test_an_endpoint_in_the_clear_is_for_debug_only(value: str) -> None:
    message = "MMOLOVE_REFERRAL['ENDPOINT'] must be https outside DEBUG (http is accepted for this machine only)."
    with configured({**FULL, "ENDPOINT": value}):
        with refused(message):
            conf.server("default").credentials()
        assert conf.problems() == [message]
        with override_settings(DEBUG=True):
            assert conf.server("default").credentials().endpoint == value


@pytest.mark.parametrize(
    "value", ["mmolove.com", "ftp://mmolove.com/", "https://", "https:///x", "http://[oops", 5, ["x"]]
)
def test_an_endpoint_or_share_url_that_is_no_url_is_an_error(value: object) -> None:
    with configured({**FULL, "ENDPOINT": value, "SHARE_URL": value}):
        with refused(f"MMOLOVE_REFERRAL['ENDPOINT'] {NO_ENDPOINT}."):
            conf.server("default").credentials()
        with refused(f"MMOLOVE_REFERRAL['SHARE_URL'] {NO_SHARE_URL}."):
            _ = conf.server("default").share_url
        assert conf.problems() == [
            f"MMOLOVE_REFERRAL['ENDPOINT'] {NO_ENDPOINT}.",
            f"MMOLOVE_REFERRAL['SHARE_URL'] {NO_SHARE_URL}.",
        ]


def test_a_share_url_may_be_a_path_on_this_host_and_nothing_like_it() -> None:
    with configured({**FULL, "SHARE_URL": "/sandbox/r/x"}):
        assert conf.server("default").share_url == "/sandbox/r/x"
        assert conf.problems() == []
    for value in ("//mmolove.com/r/x", "sandbox/r/x"):
        with configured({**FULL, "SHARE_URL": value}):
            assert conf.problems() == [f"MMOLOVE_REFERRAL['SHARE_URL'] {NO_SHARE_URL}."]


def test_a_share_url_is_read_without_the_blanks_around_it() -> None:
    with configured({**FULL, "SHARE_URL": " https://mmolove.com/r/x\n"}):
        assert conf.server("default").share_url == "https://mmolove.com/r/x"


@pytest.mark.parametrize("value", ["a b", "a,b", "ä", "a\n", "k" * 129, 5])
def test_a_key_id_that_fits_no_header_is_an_error(value: object) -> None:
    message = "MMOLOVE_REFERRAL['KEY_ID'] must be printable ASCII without spaces and commas."
    with configured({**FULL, "KEY_ID": value}):
        with refused(message):
            conf.server("default").credentials()
        assert conf.problems() == [message]


def test_the_environment_stands_in_for_what_the_settings_leave_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMOLOVE_SERVER_ID", "srv_env")
    monkeypatch.setenv("MMOLOVE_REFERRAL_SECRET", f"{HIDDEN}\n")
    with configured({}):
        credentials = conf.server("default").credentials()
        assert (credentials.server_id, credentials.secret) == ("srv_env", Secret(HIDDEN))
        assert conf.problems() == []
    with configured({"SERVER_ID": "srv_1", "SECRET": "other"}):
        credentials = conf.server("default").credentials()
        assert (credentials.server_id, credentials.secret) == ("srv_1", Secret("other"))


def test_more_servers_stand_beside_the_default_one() -> None:
    with configured({**FULL, "SERVERS": {"eu-1.x_Y": {"SERVER_ID": "srv_eu", "SECRET": "other", "KEY_ID": "k"}}}):
        assert list(conf.servers) == ["default", "eu-1.x_Y"]
        assert conf.server("eu-1.x_Y").credentials() == Credentials("srv_eu", Secret("other"), key_id="k")
        assert conf.problems() == []


def test_more_servers_need_no_default_one() -> None:
    with configured({"SERVERS": {"eu": FULL, "us": FULL}}):
        assert list(conf.servers) == ["eu", "us"]
        assert conf.problems() == []
        with refused("There is no server 'default' in MMOLOVE_REFERRAL['SERVERS']; there is 'eu', 'us'."):
            conf.server("default")


def test_the_default_server_may_be_one_of_several() -> None:
    with configured({"SERVERS": {"default": FULL, "us": FULL}}):
        assert conf.server("default").server_id == "srv_1"
        assert conf.problems() == []


ALIAS = "an alias is 1 to 64 letters, digits, '.', '-' or '_'"


@pytest.mark.parametrize(
    ("servers", "message"),
    [
        (["eu"], "MMOLOVE_REFERRAL['SERVERS'] must be a dict of alias to dict."),
        ("eu", "MMOLOVE_REFERRAL['SERVERS'] must be a dict of alias to dict."),
        ({"": FULL}, f"MMOLOVE_REFERRAL['SERVERS'][''] : {ALIAS}.".replace(" :", ":")),
        ({"a/b": FULL}, f"MMOLOVE_REFERRAL['SERVERS']['a/b']: {ALIAS}."),
        ({"a\n": FULL}, f"MMOLOVE_REFERRAL['SERVERS']['a\\n']: {ALIAS}."),
        ({"ä": FULL}, f"MMOLOVE_REFERRAL['SERVERS']['ä']: {ALIAS}."),
        ({"a" * 65: FULL}, f"MMOLOVE_REFERRAL['SERVERS']['{'a' * 65}']: {ALIAS}."),
        ({5: FULL}, f"MMOLOVE_REFERRAL['SERVERS'][5]: {ALIAS}."),
        ({"eu": None}, "MMOLOVE_REFERRAL['SERVERS']['eu'] must be a dict with SERVER_ID and SECRET."),
        ({"eu": "srv_eu"}, "MMOLOVE_REFERRAL['SERVERS']['eu'] must be a dict with SERVER_ID and SECRET."),
        (
            {"default": FULL},
            "MMOLOVE_REFERRAL['SERVERS']['default'] is configured twice: remove it, or MMOLOVE_REFERRAL['SERVER_ID'].",
        ),
    ],
)
def test_wrong_servers_are_an_error_that_names_them(servers: object, message: str) -> None:
    with configured({**FULL, "SERVERS": servers}):
        with refused(message):
            _ = conf.servers
        with refused(message):
            conf.server("default")
        assert conf.problems() == [message]


def test_the_errors_of_a_server_name_its_place() -> None:
    where = "MMOLOVE_REFERRAL['SERVERS']['eu']"
    servers = {"eu": {"ENDPOINT": "x", "SHARE_URL": "y"}, "us": {**FULL, "KEY_ID": "a b"}}
    with configured({**FULL, "SERVERS": servers}):
        assert conf.problems() == [
            f"{where}['SERVER_ID'] is missing. Put the server's id from the MMOLove dashboard there, as a string.",
            f"{where}['SHARE_URL'] {NO_SHARE_URL}.",
            "MMOLOVE_REFERRAL['SERVERS']['us']['KEY_ID'] must be printable ASCII without spaces and commas.",
        ]


# -- the whole


@pytest.mark.parametrize(("value", "name"), [([], "list"), ("SERVER_ID", "str"), (5, "int"), (False, "bool")])
def test_a_setting_that_is_no_dict_is_one_error(value: object, name: str) -> None:
    message = f"MMOLOVE_REFERRAL must be a dict, not {name}."
    with configured(value):
        with refused(message):
            _ = conf.dispatch
        assert conf.problems() == [message]


def test_unknown_keys_are_named_with_the_known() -> None:
    known = ", ".join(sorted(KEYS))
    wrong: dict[Any, Any] = {**FULL, "SECRT": "x", 5: "y"}
    with configured(wrong):
        assert conf.problems() == [
            f"MMOLOVE_REFERRAL has no setting '5'; there are {known}.",
            f"MMOLOVE_REFERRAL has no setting 'SECRT'; there are {known}.",
        ]


def test_unknown_keys_of_a_server_are_named_with_the_known() -> None:
    known = "ENDPOINT, KEY_ID, SECRET, SERVER_ID, SHARE_URL"
    with configured({**FULL, "SERVERS": {"eu": {**FULL, "DISPATCH": "manual"}}}):
        assert conf.problems() == [f"MMOLOVE_REFERRAL['SERVERS']['eu'] has no setting 'DISPATCH'; there are {known}."]


def test_all_problems_are_told_at_once_and_each_once() -> None:
    with configured({"DISPATCH": "x", "DEADLINE": 0, "CONCURRENCY": 0}):
        assert conf.problems() == [
            "MMOLOVE_REFERRAL['DISPATCH'] must be one of 'thread', 'celery', 'manual', not 'x'.",
            f"MMOLOVE_REFERRAL['DEADLINE'] {SECONDS} 0.",
            f"MMOLOVE_REFERRAL['CONCURRENCY'] {WHOLE} 0.",
            MISSING_ID,
        ]


def test_overriding_the_setting_takes_effect_at_once_and_ends_with_it() -> None:
    with configured({"DISPATCH": "celery"}):
        assert conf.dispatch == "celery"
        with configured({"DISPATCH": "manual"}):
            assert conf.dispatch == "manual"
        assert conf.dispatch == "celery"


def test_overriding_another_setting_reads_nothing_again() -> None:
    with configured(FULL):
        servers = conf.servers
        with override_settings(DEBUG=True):
            assert conf.servers is servers


def test_an_error_of_the_settings_is_one_of_djangos() -> None:
    assert issubclass(ConfigError, ImproperlyConfigured)


# -- secrets


def report(act: Callable[[], object]) -> str:
    """All that Django's error report shows of what ``act`` raises, the variables of each frame included."""
    try:
        act()
    except ConfigError:
        reporter = ExceptionReporter(None, *sys.exc_info())
        ours = [frame for frame in reporter.get_traceback_frames() if "django_mmolove_referral" in frame["filename"]]
        assert ours
        shown = repr([frame["vars"] for frame in ours])
        return reporter.get_traceback_text() + shown
    raise AssertionError("nothing was raised")


def test_secrets_show_in_nothing_that_is_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMOLOVE_REFERRAL_SECRET", HIDDEN)
    for top in (FULL, {"SERVER_ID": "x"}, {"SERVER_ID": "x", "SECRET": lambda: HIDDEN}):
        with configured({**top, "SERVERS": {"eu": FULL}}):
            for thing in (conf, conf.servers, *conf.servers.values()):
                assert HIDDEN not in f"{thing} {thing!r}"
            for server in conf.servers.values():
                credentials = server.credentials()
                assert credentials.secret == Secret(HIDDEN)
                assert HIDDEN not in f"{credentials} {credentials!r} {credentials.secret} {credentials.secret!r}"
                assert HIDDEN not in repr(vars(server))
            assert HIDDEN not in repr(vars(conf))


def test_secrets_are_not_pickled() -> None:
    with configured(FULL), pytest.raises(TypeError, match=r"^A Secret is not pickled: .*"):
        pickle.dumps(conf.server("default").credentials())


@pytest.mark.parametrize(
    "wrong",
    [
        {**FULL, "SERVERS": {"a/b": FULL}},
        {**FULL, "SERVERS": {"eu": None, "us": FULL}},
        {**FULL, "SERVERS": {"default": FULL}},
        {**FULL, "SERVERS": [FULL]},
        {"SERVER_ID": "x", "SECRET": HIDDEN.encode()},
        {"SERVER_ID": "x", "SECRET": [HIDDEN]},
        {"SERVER_ID": "x", "SECRET": lambda: HIDDEN.encode()},
        {"SECRET": HIDDEN},
        {**FULL, "ENDPOINT": "x"},
        {**FULL, "KEY_ID": "a b"},
    ],
)
def test_secrets_show_in_no_error_report(wrong: object) -> None:
    with configured(wrong):
        assert HIDDEN not in report(lambda: conf.server("default").credentials())


def test_secrets_of_the_environment_show_in_no_error_report(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMOLOVE_REFERRAL_SECRET", HIDDEN)
    with configured({"SERVER_ID": "x", "SERVERS": {"a/b": {}}}):
        assert HIDDEN not in report(lambda: conf.servers)


def test_a_secret_shows_in_no_complaint() -> None:
    with configured({"SERVERS": {"eu": {"SECRET": HIDDEN}, "us": {"SERVER_ID": "x", "SECRET": [HIDDEN]}}}):
        assert len(conf.problems()) == 2
        assert HIDDEN not in repr(conf.problems())


def test_the_portals_own_settings_stay_as_they_are() -> None:
    raw: dict[str, Any] = {**FULL, "SERVERS": {"eu": dict(FULL)}}
    with configured(raw):
        assert conf.problems() == []
    assert raw == {**FULL, "SERVERS": {"eu": FULL}}


def test_settings_are_one_object_per_process() -> None:
    assert isinstance(module.conf, Settings)
    assert module.conf is conf
