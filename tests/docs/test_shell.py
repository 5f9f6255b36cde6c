"""Commands in the documentation are ones that exist, with options that exist."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from configparser import ConfigParser
from pathlib import Path

import pytest
from django.core.management import CommandError, load_command_class

from tests.docs.site import files, prose
from tests.pages import ROOT

APP = "django_mmolove_referral"
COMMANDS = {path.stem for path in (ROOT / APP / "management" / "commands").glob("mmolove_*.py")}
_COMMAND = re.compile(r"manage\.py (mmolove_\w+)([^`\n]*)")
_STOP = {"|", ">", ">>", "&&", ";", "#", "&"}


def lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines of code: fenced, or indented by four."""
    fenced = ""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        mark = re.match(r" *(```|:::)", line)
        if mark and (not fenced or line.strip() == fenced):
            fenced = "" if fenced else mark[1]
        elif fenced or line.startswith("    "):
            yield number, line


def arguments(rest: str) -> list[str]:
    words: list[str] = []
    for word in shlex.split(rest, comments=True):
        if word in _STOP:
            break
        words.append(word)
    return words


def wrong(command: str, words: list[str]) -> str:
    """Why the command's own parser refuses these words; empty if it takes them."""
    try:
        load_command_class(APP, command).create_parser("manage.py", command).parse_args(words)
    except (CommandError, ModuleNotFoundError) as error:
        return f"{command} {' '.join(words)}: {error}"
    return ""


@pytest.mark.parametrize("page", files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_are_taken_by_their_own_parsers(page: Path) -> None:
    found = [
        f"{page.name}:{number}: {why}"
        for number, line in lines(page)
        for match in _COMMAND.finditer(line)
        if "…" not in match[2] and "[" not in match[2] and (why := wrong(match[1], arguments(match[2])))
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("page", files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_in_the_text_name_options_that_exist(page: Path) -> None:
    for span in re.findall(r"`([^`\n]+)`", prose(page)):
        match = re.search(r"(manage\.py )?\b(mmolove_\w+)((?: .*)?)$", span)
        if match is None or not (match[1] or match[2] in COMMANDS):
            continue
        parser = load_command_class(APP, match[2]).create_parser("manage.py", match[2])
        for option in re.findall(r"(?<!\w)--[\w-]+", match[3]):
            assert option in parser._option_string_actions, f"{page.name}: `{span}`"


def test_a_wrong_line_is_seen() -> None:
    assert "unrecognized arguments: --fast" in wrong("mmolove_doctor", ["--fast"])
    assert "required" in wrong("mmolove_deliver", arguments("--seconds 5 | tee log"))
    assert "invalid" in wrong("mmolove_redeliver", ["--state", "lost"]) or wrong("mmolove_redeliver", ["--state", "x"])
    assert wrong("mmolove_nothing", [])
    assert not wrong("mmolove_deliver", arguments("--once --seconds 50  # from cron"))


def test_tox_environments_exist() -> None:
    tox = ConfigParser()
    tox.read(ROOT / "tox.ini")
    known = {name.partition(":")[2] for name in tox.sections() if name.startswith("testenv:")}
    for page in files():
        for given in re.findall(r"tox run -e ([\w,-]+)", page.read_text(encoding="utf-8")):
            assert set(given.split(",")) - {"ENVIRONMENT"} <= known, f"{page.name}: tox run -e {given}"
