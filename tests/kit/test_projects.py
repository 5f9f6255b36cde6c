"""The kit as users meet it: in projects of their own, run by their own test runners."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from tests.pages import ROOT, code

PLUGIN = "django_mmolove_referral.pytest_plugin"
INSTALLED = any(point.value == PLUGIN for point in entry_points(group="pytest11"))
"""Whether the package's entry point is there; a source tree that is not installed has none."""
IMPORTS = "import pytest\nfrom django.contrib.auth.models import User\nfrom players.models import Purse\n\n\n"
CASES = (
    "from django.contrib.auth.models import User\nfrom django.test import TestCase\n"
    "from django_mmolove_referral.testing import MMOLoveTestMixin\n\n\n"
)

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A portal of its own, with a ``pytest.ini`` that names its settings and nothing else."""
    shutil.copytree(Path(__file__).parent / "portal", tmp_path, dirs_exist_ok=True)
    (tmp_path / "__init__.py").unlink()
    (tmp_path / "pytest.ini").write_text("[pytest]\nDJANGO_SETTINGS_MODULE = settings\npythonpath = .\n")
    return tmp_path


def run(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A Python process in ``folder``, with warnings as errors and nothing of this run's own environment."""
    ours = ("DJANGO_", "DATABASE_", "MMOLOVE_", "TEST_", "PYTEST_", "COV")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    path = {} if INSTALLED else {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-W", "error", *arguments],
        cwd=folder,
        env={**kept, **path, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


def pytest_in(folder: Path, *arguments: str, **environment: str) -> str:
    """What pytest printed, its whole exit code first."""
    plugin = () if INSTALLED else ("-p", PLUGIN)
    done = run(folder, "-m", "pytest", "-p", "no:cacheprovider", "-W", "error", *plugin, *arguments, **environment)
    return f"exit {done.returncode}\n{done.stdout}{done.stderr}"


# The documentation's page

PYTEST_BLOCKS = {
    "first": code("testing.md", "def test_a_referred_player_registers_and_qualifies"),
    "rewards": code("testing.md", "def test_alice_is_paid_for_bob_once"),
    "milestone": code("testing.md", "def test_the_milestone_is_reported_once"),
    "settings": code("testing.md", "def test_nothing_is_reported_before_the_account_is_confirmed"),
    "servers": code("testing.md", "def test_an_account_is_referred_on_two_servers"),
    "faults": code("testing.md", "def test_an_outage_costs_nobody_anything"),
    "sandbox": code("testing.md", "def test_a_silent_mmolove_is_given_up_after_the_deadline"),
    "factories": code("testing.md", "def test_the_guild_page_counts_the_invited"),
}
CASE_BLOCKS = {
    "case": code("testing.md", "class ReferralTests(MMOLoveTestMixin, TestCase)"),
    "async": code("testing.md", "class AsyncReferralTests(MMOLoveTestMixin, TestCase)"),
}
TESTS = sum(len(re.findall(r"^def test_", block, re.MULTILINE)) for block in PYTEST_BLOCKS.values())


def write_pytest_blocks(project: Path) -> None:
    bob = PYTEST_BLOCKS["milestone"].partition("def test_")[0]
    imports = "from django_mmolove_referral import attach_referral, mark_qualified\n"
    (project / "conftest.py").write_text(IMPORTS + bob)
    for name, block in PYTEST_BLOCKS.items():
        (project / f"test_{name}.py").write_text(imports + IMPORTS + block)


def test_the_pages_pytest_examples_run(project: Path) -> None:
    write_pytest_blocks(project)
    told = pytest_in(project, "-q")
    assert told.startswith("exit 0\n"), told
    assert f"\n{TESTS} passed in " in told


def test_the_pages_test_cases_run_with_djangos_own_runner(project: Path) -> None:
    for name, block in CASE_BLOCKS.items():
        (project / f"test_{name}.py").write_text(CASES + block)
    # Without any of pytest, as where it is not installed.
    (project / "pytest.py").write_text("raise ImportError('this project has no pytest')\n")
    done = run(project, "manage.py", "test")
    assert done.returncode == 0, done.stderr
    assert "Ran 3 tests" in done.stderr


def test_the_pages_test_cases_run_with_pytest(project: Path) -> None:
    for name, block in CASE_BLOCKS.items():
        (project / f"test_{name}.py").write_text(CASES + block)
    told = pytest_in(project, "-q")
    assert "\n3 passed in " in told, told


def test_the_pages_failure_is_what_it_says(project: Path) -> None:
    (project / "test_failure.py").write_text(
        IMPORTS
        + """
def test_fails(mmolove, client):
    alice = User.objects.create_user("alice")
    mmolove.visit(client, "/register/", referrer=alice)
    client.post("/register/", {"username": "bob"})
    mmolove.answer(503)
    mmolove.deliver()
    client.post("/level-up/", {"level": 10})
    mmolove.assert_qualified(User.objects.get(username="bob"))
"""
    )
    told = pytest_in(project, "-q")
    said = "\n".join(line.removeprefix("E").strip() for line in told.splitlines() if line.startswith("E  "))
    shown = code("testing.md", "bob should be qualified at MMOLove", language="text")
    expected = "\n".join(line.strip() for line in shown.splitlines())
    assert re.sub(r"later\(\d+\)", "later(10)", said) == f"AssertionError: {expected}"
    assert re.search(r"^test_failure\.py:\d+: AssertionError$", told, re.MULTILINE)
    assert "assertions.py" not in told


# Runners


def test_the_tests_run_in_parallel_with_xdist(project: Path) -> None:
    pytest.importorskip("xdist")
    write_pytest_blocks(project)
    told = pytest_in(project, "-q", "-n", "2")
    assert f"\n{TESTS} passed in " in told, told


@pytest.mark.skipif(sys.platform != "linux", reason="Django forks there")
def test_the_tests_run_in_parallel_with_djangos_own_runner(project: Path) -> None:
    for number in range(3):
        (project / f"test_case_{number}.py").write_text(CASES + CASE_BLOCKS["case"])
    done = run(project, "manage.py", "test", "--parallel", "2")
    assert done.returncode == 0, done.stderr
    assert "Ran 6 tests" in done.stderr


def test_djangos_own_runner_shows_the_tests_own_line(project: Path) -> None:
    (project / "test_case.py").write_text(
        CASES
        + """
class Tests(MMOLoveTestMixin, TestCase):
    def test_fails(self):
        self.mmolove.assert_captured(User.objects.create_user("bob"))
"""
    )
    done = run(project, "manage.py", "test")
    assert done.returncode == 1
    assert "AssertionError: bob should be referred, and is not.\n  here:    no referral\n" in done.stderr
    assert "assertions.py" not in done.stderr


def test_a_mixin_in_the_wrong_place_is_told(project: Path) -> None:
    (project / "test_case.py").write_text(
        CASES
        + """
class Tests(TestCase, MMOLoveTestMixin):
    def test_fails(self):
        self.mmolove.mint()
"""
    )
    done = run(project, "manage.py", "test")
    assert (
        "RuntimeError: Tests.setUp() did not reach MMOLoveTestMixin's: name MMOLoveTestMixin before the" in done.stderr
    )


@pytest.mark.parametrize("dispatch", ["thread", "celery"])
def test_a_live_server_delivers_nothing_by_itself(project: Path, dispatch: str) -> None:
    settings = (project / "settings.py").read_text()
    (project / "settings.py").write_text(settings.replace('"SERVER_ID"', f'"DISPATCH": "{dispatch}", "SERVER_ID"'))
    (project / "test_live.py").write_text(
        CASES
        + """
from http.cookiejar import CookieJar
from urllib.request import HTTPCookieProcessor, build_opener

from django.test import LiveServerTestCase


class Tests(MMOLoveTestMixin, LiveServerTestCase):
    def test_over_the_socket(self):
        browser = build_opener(HTTPCookieProcessor(CookieJar()))
        browser.open(f"{self.live_server_url}/register/?mmref={self.mmolove.mint()}").close()
        browser.open(f"{self.live_server_url}/register/", b"username=bob").close()
        self.assertEqual(self.mmolove.sent, [])
        self.mmolove.deliver()
        self.mmolove.assert_registered(User.objects.get(username="bob"))

    def test_by_the_share_link(self):
        alice = User.objects.create_user("alice")
        self.mmolove.lead_to(f"{self.live_server_url}/register/")
        browser = build_opener(HTTPCookieProcessor(CookieJar()))
        with browser.open(f"{self.live_server_url}/join/{alice.pk}/") as page:
            self.assertRegex(page.url, f"^{self.live_server_url}/register/.mmref=.")
        browser.open(f"{self.live_server_url}/register/", b"username=bob").close()
        bob = User.objects.get(username="bob")
        self.assertEqual(self.mmolove.assert_captured(bob).referrer, alice)
"""
    )
    done = run(project, "manage.py", "test")
    assert done.returncode == 0, done.stderr


def test_the_settings_of_one_test_do_not_reach_the_next(project: Path) -> None:
    (project / "test_settings.py").write_text(
        """
from django.conf import settings as django_settings
from django.test import override_settings


def check(mmolove, settings):
    settings.MMOLOVE_REFERRAL = {**settings.MMOLOVE_REFERRAL, "PAUSE_AFTER": 2}
    mmolove.configure(QUERY_PARAM="invite")
    settings.DEBUG = True
    with override_settings(MMOLOVE_REFERRAL={}):
        pass


def test_the_fixture_first(mmolove, settings):
    check(mmolove, settings)


def test_the_settings_first(settings, mmolove):
    settings.MMOLOVE_REFERRAL = {**settings.MMOLOVE_REFERRAL, "KEY_ID": "k"}
    check(mmolove, settings)


def test_nothing_is_left():
    assert django_settings.MMOLOVE_REFERRAL["SERVER_ID"] == "srv_live"
    assert set(django_settings.MMOLOVE_REFERRAL) == {"SERVER_ID", "SECRET", "ENDPOINT", "SHARE_URL"}
    assert not django_settings.DEBUG
"""
    )
    assert "\n3 passed in " in pytest_in(project, "-q", "-p", "no:randomly")


# Projects that do not use it


def test_a_project_without_django_notices_nothing(tmp_path: Path) -> None:
    (tmp_path / "test_plain.py").write_text(
        """
import sys


def test_plain():
    assert "django_mmolove_referral.pytest_plugin" in sys.modules
    assert not {"django", "requests", "celery", "django_mmolove_referral.testing"} & set(sys.modules)
"""
    )
    told = run(
        tmp_path,
        *("-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error", "-p", PLUGIN),
        PYTEST_DISABLE_PLUGIN_AUTOLOAD="1",
    ).stdout
    assert "\n1 passed in " in told, told


def test_the_fixture_is_skipped_without_django_settings(tmp_path: Path) -> None:
    (tmp_path / "test_plain.py").write_text("def test_plain(mmolove):\n    pass\n")
    assert "no Django settings" in pytest_in(tmp_path, "-q", "-rs")


def test_without_pytest_django_it_is_said_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "test_plain.py").write_text("def test_plain(mmolove):\n    pass\n")
    start = "import sys; sys.modules['pytest_django'] = None; import pytest; sys.exit(pytest.main(sys.argv[1:]))"
    told = run(
        tmp_path,
        *("-c", start, "-q", "-p", "no:cacheprovider", "-p", PLUGIN),
        PYTEST_DISABLE_PLUGIN_AUTOLOAD="1",
    ).stdout
    assert "The fixture mmolove needs pytest-django: python -m pip install pytest-django" in told, told


def test_an_installed_package_brings_the_plugin(project: Path) -> None:
    if not INSTALLED:
        pytest.skip("run from a source tree that is not installed")
    assert "mmolove -- " in pytest_in(project, "--fixtures", "-q")
