"""A portal that has the wheel and nothing of this checkout."""

from __future__ import annotations

import shutil
from pathlib import Path

from .conftest import attempt, run

PORTAL = Path(__file__).parent / "portal"

EVERY_MODULE = """
import importlib, os, pkgutil
import django
os.environ["DJANGO_SETTINGS_MODULE"] = "realm.settings"
django.setup()
import django_mmolove_referral as package
optional = {optional!r}
names = [found.name for found in pkgutil.walk_packages(package.__path__, package.__name__ + ".")]
assert "django_mmolove_referral.management.commands.mmolove_deliver" in names
assert set(optional) <= set(names), "which are there no more"
for name in names:
    if name not in optional:
        importlib.import_module(name)
print(package.__file__)
"""
OPTIONAL = tuple(f"django_mmolove_referral.{name}" for name in ("serializers", "pytest_plugin", "testing.factories"))
"""The modules for those who have the library that they are about."""


def copied(tmp_path: Path) -> Path:
    """The portal, where nothing of this checkout can be imported."""
    return shutil.copytree(PORTAL, tmp_path / "portal", ignore=shutil.ignore_patterns("__pycache__"))


def test_every_module_can_be_imported_with_what_the_wheel_asks_for(installed: Path, tmp_path: Path) -> None:
    home = copied(tmp_path)
    (home / "every_module.py").write_text(EVERY_MODULE.format(optional=OPTIONAL))
    printed = run(installed, "-W", "error", "every_module.py", cwd=home)
    assert Path(printed.strip()).is_relative_to(installed.parents[1])


def test_the_portal_is_checked_migrated_and_examined(installed: Path, tmp_path: Path) -> None:
    home = copied(tmp_path)
    assert "no issues" in run(installed, "-W", "error", "manage.py", "check", cwd=home)
    run(installed, "-W", "error", "manage.py", "migrate", "--verbosity=0", cwd=home)
    run(installed, "-W", "error", "manage.py", "makemigrations", "--check", "--dry-run", cwd=home)
    run(installed, "-W", "error", "manage.py", "mmolove_doctor", "--offline", cwd=home)


def test_the_portal_type_checks_against_the_wheel(installed: Path, tmp_path: Path) -> None:
    home = copied(tmp_path)
    run(installed, "-m", "pip", "install", "--quiet", "django-stubs[compatible-mypy]", "types-requests", cwd=home)
    printed = run(installed, "-m", "mypy", cwd=home)
    assert "Success: no issues found" in printed
    # That is worth something only if a mistake is found.
    mistake = home / "realm" / "mistake.py"
    mistake.write_text(
        "from django_mmolove_referral import mark_qualified\n\nstate: int = mark_qualified(1, server=2)\n"
    )

    found = attempt(installed, "-m", "mypy", cwd=home)
    assert found.returncode == 1
    assert 'Argument "server" to "mark_qualified" has incompatible type "int"' in found.stdout
