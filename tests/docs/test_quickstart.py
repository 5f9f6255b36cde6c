"""The quickstart, done as it says: its commands typed, its edits made, its pages visited, and what it says is seen."""

from __future__ import annotations

import html
import os
import re
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests

from django_mmolove_referral.conf import conf
from tests import pages
from tests.pages import Block, code

INSTALLATION = ["python -m venv venv", ". venv/bin/activate", "python -m pip install django-mmolove-referral"]
"""What the test does without: it runs the code that it is part of."""
PATIENCE = 60.0
EDIT = re.compile(r"\*\*Edit (\d+):\*\*")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def plain(text: str) -> str:
    """In one line, as the width of a terminal is nobody's business; a page without its tags."""
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", text)).split())


class Reader:
    """Somebody in an empty folder who does what the page says, on ports of their own."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        self.stack = stack
        self.ports = {"8000": str(free_port()), "8780": str(free_port())}
        self.output = ""
        self.edits = 0
        unset = ("MMOLOVE_", "DJANGO_", "TEST_", "DATABASE_URL")
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(unset)},
            "PYTHONPATH": str(pages.ROOT),
            "PYTHONUNBUFFERED": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def translate(self, text: str) -> str:
        for written, real in self.ports.items():
            text = text.replace(f"127.0.0.1:{written}", f"127.0.0.1:{real}")
        return text

    # -- the shell

    def type(self, command: str) -> None:
        words = shlex.split(self.translate(command))
        program = {"python": [sys.executable], "django-admin": [sys.executable, "-m", "django"]}[words[0]]
        if "mmolove_sandbox" in words:
            self._start([*program, *words[1:], "--port", self.ports["8780"]])
        elif "runserver" in words:
            self._start([*program, *words[1:], "--noreload", f"127.0.0.1:{self.ports['8000']}"])
        else:
            done = subprocess.run(
                [*program, *words[1:]],
                cwd=self.folder,
                env=self.environment,
                capture_output=True,
                text=True,
                check=False,
            )
            self.output = done.stdout + done.stderr
            assert done.returncode == 0, f"{command}\n{self.output}"

    def _start(self, command: list[str]) -> None:
        """Run what goes on running until it has said where it listens."""
        self.output = ""
        process = self.stack.enter_context(self._running(command))
        assert process.stdout is not None
        while "http://127.0.0.1" not in self.output:
            line = process.stdout.readline()
            assert line, f"{command} ended: {self.output}"
            self.output += line

    @contextmanager
    def _running(self, command: list[str]) -> Iterator[subprocess.Popen[str]]:
        with (self.folder / "stderr.log").open("a") as errors:
            process = subprocess.Popen(
                command, cwd=self.folder, env=self.environment, stdout=subprocess.PIPE, stderr=errors, text=True
            )
        try:
            yield process
        finally:
            process.kill()
            process.communicate()

    # -- the editor

    def edit(self, block: str) -> None:
        """Make the edit that a block shows: its first line names the file."""
        first, _, text = self.translate(block).partition("\n")
        file = self.folder / first.removeprefix("# ")
        assert file.is_file(), f"{file} is to be edited, and is not there"
        name = text.partition(" = ")[0]
        if "    # …\n" in text:
            file.write_text(self._with_lines(file.read_text(), name, text))
        elif file.name == "settings.py":
            file.write_text(f"{file.read_text()}\n\n{text}")
        else:
            file.write_text(text)
        self.edits += 1

    @staticmethod
    def _with_lines(source: str, name: str, text: str) -> str:
        """The list ``name`` with the lines that the block adds: after the one shown above them, or at the end."""
        match = re.search(rf"^{name} = \[\n(.*?)^\]$", source, re.DOTALL | re.MULTILINE)
        assert match, f"no list {name}"
        lines = [line.strip() for line in match[1].replace("'", '"').splitlines()]
        shown = [line.strip() for line in text.splitlines()[1:-1]]
        place = len(lines)
        for line in shown:
            if line == "# …":
                place = len(lines)
            elif line in lines:
                place = lines.index(line) + 1
            else:
                lines.insert(place, line)
                place += 1
        body = "".join(f"    {line}\n" for line in lines)
        return source[: match.start(1)] + body + source[match.end(1) :]

    # -- the eyes

    def sees(self, block: str, shown: str) -> bool:
        return all(self._line(line).search(plain(shown)) for line in block.splitlines())

    def _line(self, line: str) -> re.Pattern[str]:
        words = plain(self.translate(line))
        return re.compile(".*".join(re.escape(part) for part in words.split("…")))

    def check(self, block: Block) -> None:
        assert self.sees(block.text, self.output), f"{block.where}: expected\n{block.text}\nbut saw\n{self.output}"


class Player(requests.Session):
    """A browser window."""

    def __init__(self, portal: str) -> None:
        super().__init__()
        self.portal = portal

    def press(self, page: requests.Response, **fields: str) -> requests.Response:
        token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page.text)
        assert token, page.text
        return self.post(page.url, {"csrfmiddlewaretoken": token[1], **fields}, timeout=PATIENCE)

    def register(self, page: requests.Response, name: str) -> requests.Response:
        arrived = self.press(page, username=name, password1="s3cret-enough", password2="s3cret-enough")
        assert arrived.url == self.portal, arrived.text
        return arrived

    def open(self, url: str = "") -> requests.Response:
        page = self.get(url or self.portal, timeout=PATIENCE)
        page.raise_for_status()
        return page


def journey(reader: Reader) -> Iterator[str]:
    """What Alice, Bob and MMOLove see, in the order in which the page shows it; asked again, it is looked at again."""
    portal, mmolove = reader.translate("http://127.0.0.1:8000/"), reader.translate("http://127.0.0.1:8780/")
    alice, bob = Player(portal), Player(portal)
    page = alice.register(alice.open(), "alice")
    yield page.text
    link = re.search(r"Share: (\S+)</p>", page.text)
    assert link
    landed = bob.open(link[1])
    assert "?mmref=" in landed.url, landed.url
    page = bob.register(landed, "bob")
    yield mmolove
    bob.press(page)
    yield mmolove
    yield f"{portal} as alice {alice.cookies.get('sessionid')}"


def look(reader: Reader, place: str, block: Block) -> None:
    """The page at ``place``, reloaded until it shows what it is to show."""
    if not place.startswith("http"):
        assert reader.sees(block.text, place), f"{block.where}: expected\n{block.text}\nbut saw\n{plain(place)}"
        return
    url, _, session = place.partition(" as alice ")
    ended, shown = time.monotonic() + PATIENCE, ""
    while time.monotonic() < ended:
        shown = requests.get(url, cookies={"sessionid": session} if session else None, timeout=PATIENCE).text
        if reader.sees(block.text, shown):
            return
        time.sleep(0.1)
    pytest.fail(f"{block.where}: expected\n{block.text}\nbut saw\n{plain(shown)}")


def test_the_quickstart_from_an_empty_folder_to_a_granted_reward(tmp_path: Path) -> None:
    blocks = [*pages.blocks("quickstart.md")]
    real = next(number for number, block in enumerate(blocks) if "https://mmolove.com/r/your-server" in block.text)
    accepted_after = None
    with ExitStack() as stack:
        reader = Reader(tmp_path, stack)
        seen = journey(reader)
        visiting = False
        for block in blocks[:real]:
            if block.language == "shell":
                commands = block.text.splitlines()
                if commands[: len(INSTALLATION)] == INSTALLATION:
                    commands = commands[len(INSTALLATION) :]
                for command in commands:
                    reader.type(command)
                visiting = "runserver" in block.text
            elif block.language == "python":
                reader.edit(block.text)
            elif visiting and "Starting …" not in block.text:
                look(reader, next(seen), block)
            else:
                reader.check(block)
            if accepted_after is None and "MMOLove accepted the test event" in block.text:
                accepted_after = reader.edits
    assert accepted_after == 3, "the page says: three edits to the first accepted test event"
    assert reader.edits <= 6
    assert [int(number) for number in EDIT.findall(pages.read("quickstart.md"))] == [*range(1, reader.edits + 1)]
    assert next(seen, None) is None, "the page shows all that the two players do"


def test_the_settings_for_the_real_mmolove(
    run: Callable[..., dict[str, Any]], settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MMOLOVE_REFERRAL_SECRET", "from-the-dashboard")
    settings.MMOLOVE_REFERRAL = run(code("quickstart.md", "https://mmolove.com/r/your-server"))["MMOLOVE_REFERRAL"]
    assert conf.problems() == []
    assert conf.server("default").credentials().endpoint == "https://mmolove.com/api/referral/events"
