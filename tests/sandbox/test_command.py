"""``manage.py mmolove_sandbox``."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import requests
from django.core.management import CommandError, call_command

from django_mmolove_referral.conf import conf
from django_mmolove_referral.protocol import SIGNATURE_HEADER

from .portal import event, sign

ROOT = Path(__file__).parents[2]


def started(*arguments: str) -> tuple[subprocess.Popen[str], dict[str, str]]:
    """The command as a process, and the settings to paste that it printed."""
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "django", "mmolove_sandbox", "--port", "0", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    printed = ""
    while not printed.endswith("\n}\n"):
        line = process.stdout.readline()
        assert line, process.communicate()[1]
        printed += line
    return process, pasted(printed)


def pasted(printed: str) -> Any:
    """``MMOLOVE_REFERRAL`` in a settings file that has what was printed."""
    module: dict[str, Any] = {}
    exec(printed[printed.index("MMOLOVE_REFERRAL") :], module)
    return module["MMOLOVE_REFERRAL"]


def post(printed: dict[str, str], token: str, **fields: Any) -> requests.Response:
    body = json.dumps(event("registered", token, server_id=printed["SERVER_ID"], **fields)).encode()
    signature = sign(printed["SECRET"], body, int(time.time()))
    headers = {"Content-Type": "application/json", SIGNATURE_HEADER: signature}
    return requests.post(printed["ENDPOINT"], body, headers=headers, timeout=20)


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_a_process_of_its_own(stop: signal.Signals) -> None:
    process, printed = started()
    try:
        answer = post(printed, "probe", test=True)
        assert (answer.status_code, answer.json()) == (200, {"ok": True, "test": True})
        link = requests.get(f"{printed['SHARE_URL']}?ref=alice", allow_redirects=False, timeout=20)
        assert link.headers["Location"].startswith("http://127.0.0.1:8000/?mmref=")
        assert post(printed, link.headers["Location"].partition("mmref=")[2]).json()["state"] == "registered"
        page = requests.get(printed["ENDPOINT"].removesuffix("api/referral/events"), timeout=20)
        assert "alice" in page.text
        process.send_signal(stop)
        rest, errors = process.communicate(timeout=20)
    finally:
        process.kill()
        process.communicate()
    assert (process.returncode, errors) == (0, "")
    assert "Stopped." in rest


def test_a_restart_forgets_nothing(tmp_path: Path) -> None:
    arguments = ["--server", "mine=s=1", "--state", str(tmp_path / "state.json"), "--register-url", "https://p.example"]
    answers: list[dict[str, Any]] = []
    for _ in range(2):
        process, printed = started(*arguments)
        try:
            assert "s=1" not in printed.values(), "a secret that was given is not printed"
            printed["SECRET"] = "s=1"
            if not answers:
                link = requests.get(f"{printed['SHARE_URL']}?ref=a", allow_redirects=False, timeout=20)
                token = link.headers["Location"].partition("mmref=")[2]
            answers.append(post(printed, token).json())
            process.terminate()
            assert process.wait(20) == 0
        finally:
            process.kill()
            process.communicate()
    assert [("state" in answer, "duplicate" in answer) for answer in answers] == [(True, False), (False, True)]


def test_several_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(time, "sleep", interrupt)
    out = StringIO()
    call_command("mmolove_sandbox", "--port=0", "--server=one=1", '--server=two "wörds"=2', stdout=out)
    one = pasted(out.getvalue().removesuffix("Stopped.\n"))
    two = one["SERVERS"]["server-2"]
    assert (one["SERVER_ID"], two["SERVER_ID"]) == ("one", 'two "wörds"')
    assert two["SHARE_URL"].endswith("/r/two%20%22w%C3%B6rds%22")
    assert one["SECRET"] == two["SECRET"] == ""
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize(
    "arguments", [[], ["--server=one=a-secret-of-ours"], ["--server=a=1", "--server=b=2"]], ids=str
)
def test_what_it_prints_is_a_setting_that_works(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", interrupt)
    out = StringIO()
    call_command("mmolove_sandbox", "--port=0", *arguments, stdout=out)
    settings.MMOLOVE_REFERRAL = pasted(out.getvalue().removesuffix("Stopped.\n"))
    left = [f"SECRET'] is missing. {'Put'}" in problem for problem in conf.problems()]
    assert left == [True] * len(arguments), "a secret that was given is not printed, and all the rest is right"


@pytest.mark.parametrize(
    ("arguments", "advice"),
    [
        (["--server", "id"], "ID=SECRET"),
        (["--server", "=s3cret"], "ID=SECRET"),
        (["--server", "id="], "ID=SECRET"),
        (["--server", "id=1", "--server", "id=2"], "given twice"),
        (["--register-url", "/signup/"], "full URL"),
        (["--port", "70000"], "65535"),
        (["--port", "-1"], "65535"),
        (["--port", "http"], "invalid int"),
        (["--state", str(ROOT)], "--state"),
        (["--host", "256.0.0.1"], "Cannot listen"),
    ],
)
def test_bad_arguments(arguments: list[str], advice: str) -> None:
    with pytest.raises(CommandError, match=advice) as caught:
        call_command("mmolove_sandbox", *arguments)
    assert "s3cret" not in str(caught.value)


def test_a_port_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(CommandError, match=f"Cannot listen on 127.0.0.1:{port}.*--port"):
            call_command("mmolove_sandbox", "--port", str(port))
