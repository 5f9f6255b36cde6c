"""What is released: every file that belongs there, and no other."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from email.parser import Parser
from pathlib import Path

from tests.pages import ROOT

from .conftest import Built, run

PACKAGE = "django_mmolove_referral"
SDIST = (
    PACKAGE,
    "benchmarks",
    "docs",
    "example_project",
    "tests",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "LICENSE",
    "README.md",
    "SECURITY.md",
    ".gitignore",  # hatchling's, to tell what is none of the project's
    "pyproject.toml",
    "tox.ini",
)


def tracked(*below: str) -> set[str]:
    """The project's own files: those under version control."""
    listed = subprocess.run(["git", "ls-files", "-z", *below], cwd=ROOT, capture_output=True, text=True, check=True)
    return {name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()}


def test_the_wheel_holds_the_package_and_nothing_else(built: Built) -> None:
    names = zipfile.ZipFile(built.wheel).namelist()
    info = next(name.partition("/")[0] for name in names if ".dist-info/" in name)
    assert {name for name in names if not name.startswith(f"{info}/")} == tracked(PACKAGE)
    assert {name.removeprefix(f"{info}/") for name in names if name.startswith(f"{info}/")} == {
        "METADATA",
        "RECORD",
        "WHEEL",
        "entry_points.txt",
        "licenses/LICENSE",
    }


def test_the_wheel_holds_what_is_no_python(built: Built) -> None:
    names = {Path(name) for name in zipfile.ZipFile(built.wheel).namelist()}
    package = Path(PACKAGE)
    assert package / "py.typed" in names
    for folder, suffix in (("templates", ".html"), ("static", ".css"), ("migrations", ".py")):
        assert any(package / folder in name.parents and name.suffix == suffix for name in names), folder


def test_the_sdist_holds_the_project_and_nothing_else(built: Built) -> None:
    with tarfile.open(built.sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert names == tracked(*SDIST) | {"PKG-INFO"}


def test_the_wheel_asks_for_three_packages_without_an_upper_bound(built: Built) -> None:
    with zipfile.ZipFile(built.wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
        metadata = Parser().parsestr(archive.read(name).decode())
    wanted = metadata.get_all("Requires-Dist") or []
    assert sorted(wanted) == ["celery>=5.4", "django>=5.2", "requests>=2.32"]
    assert metadata["Requires-Python"] == ">=3.10"
    assert metadata.get_all("Provides-Extra") is None


def test_the_metadata_is_in_order(built: Built) -> None:
    printed = run(sys.executable, "-m", "twine", "check", "--strict", built.wheel, built.sdist, cwd=ROOT)
    assert printed.count("PASSED") == 2
