"""Share links, sandbox, and the page of the documentation, compared whole."""

from __future__ import annotations

import re
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

from django.core.checks import Warning  # noqa: A004
from django.core.management import call_command
from django.urls import include, path

from django_mmolove_referral import checks, signals
from django_mmolove_referral.doctor.installation import PLACES
from tests import portal
from tests.conftest import Granted
from tests.pages import DOCS, code

from .conftest import Ours
from .test_settings import EU

Configure = Callable[..., None]

NO_JOIN_PAGE = Warning(
    "The portal has no share links, so nobody knows who referred a player.",
    hint='Add path("", include("django_mmolove_referral.urls")) to ROOT_URLCONF = \'tests.bare_urls\'.',
    id="mmolove_referral.W019",
)
SANDBOX = Warning(
    "The sandbox is among the portal's pages: everybody can make tokens there, and read what was sent.",
    hint="Include django_mmolove_referral.sandbox.urls only if settings.DEBUG, or take it out.",
    id="mmolove_referral.W024",
)


def no_share_url(setting: str = "MMOLOVE_REFERRAL") -> Warning:
    return Warning(
        f"Share links lead to the portal's own front page: {setting} has no SHARE_URL.",
        hint=f"Set {setting}['SHARE_URL'] to your server's link at MMOLove, e.g. \"https://mmolove.com/r/your-server\".",
        id="mmolove_referral.W020",
    )


def test_share_links_need_the_page_and_the_url(settings: Any, configure: Configure, ours: Ours) -> None:
    configure(SERVERS={"eu": {**EU, "SHARE_URL": ""}})
    assert ours() == [no_share_url("MMOLOVE_REFERRAL['SERVERS']['eu']")]
    configure(SERVERS={})
    assert ours() == []
    configure(SHARE_URL=None)
    assert ours() == [no_share_url()]
    settings.ROOT_URLCONF = "tests.bare_urls"
    assert ours() == []  # without both: nobody wants any
    configure(SHARE_URL="https://mmolove.example/r/srv_1")
    assert ours() == [NO_JOIN_PAGE]
    settings.ROOT_URLCONF = ""
    assert ours() == []


def test_the_sandbox_is_not_for_everybody(settings: Any, ours: Ours) -> None:
    sandbox = path("sandbox/", include("django_mmolove_referral.sandbox.urls"))
    settings.ROOT_URLCONF = type("Urls", (), {"urlpatterns": [*portal.urlpatterns, sandbox]})
    assert ours() == []
    assert ours(deploy=True) == [SANDBOX]
    settings.DEBUG = True
    assert ours(deploy=True) == []


def test_they_are_part_of_djangos_own_command(configure: Configure) -> None:
    configure(SHARE_URL=None)
    err = StringIO()
    call_command("check", "--tag", "mmolove_referral", stdout=StringIO(), stderr=err)
    assert "(mmolove_referral.W020)" in err.getvalue()


def test_each_has_its_entry_in_the_documentation_and_a_place_with_the_doctor() -> None:
    package = Path(checks.__file__).parent
    source = "\n".join(file.read_text("utf-8") for file in package.glob("*.py"))
    ids = [int(number) for number in re.findall(r"\bwarning\(\s*(\d+),", source)]
    named = sorted({f"mmolove_referral.W{number:03}" for number in ids})
    assert len(named) == 25
    page = (DOCS / "checks.md").read_text("utf-8")
    assert re.findall(r"^## (mmolove_referral\.W\d{3})", page, re.MULTILINE) == named
    elsewhere = {"mmolove_referral.W001", "mmolove_referral.W008", "mmolove_referral.W014"}
    assert {*PLACES, *elsewhere} == set(named)


def test_one_is_silenced_as_the_documentation_shows(settings: Any, granted: Granted, configure: Configure) -> None:
    signals.referral_qualified.disconnect(granted.receive)
    configure(SHARE_URL=None)
    settings.SILENCED_SYSTEM_CHECKS = []

    def said() -> list[str]:
        err = StringIO()
        call_command("check", "--tag", "mmolove_referral", stdout=StringIO(), stderr=err)
        return sorted(re.findall(r"mmolove_referral\.W\d+", err.getvalue()))

    assert said() == ["mmolove_referral.W014", "mmolove_referral.W020"]
    written: dict[str, Any] = {}
    exec(code("checks.md", "SILENCED_SYSTEM_CHECKS"), written)
    settings.SILENCED_SYSTEM_CHECKS = written["SILENCED_SYSTEM_CHECKS"]
    assert said() == ["mmolove_referral.W020"]
