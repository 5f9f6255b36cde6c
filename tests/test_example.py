"""The example portal: its demo plays the whole journey, and Django finds nothing to complain about."""

from __future__ import annotations

import json
import os
import re
import runpy
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = ROOT / "example_project"
DEMO = [sys.executable, str(EXAMPLE / "demo.py")]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """As in a shell: nothing of the test run's own settings and services."""
    ours = ("DJANGO_", "DATABASE_", "CELERY_", "MMOLOVE_", "PORTAL_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return {**kept, "PYTHONPATH": str(ROOT), "PORTAL_VAR": str(tmp_path / "var")}


def test_the_demo_plays_the_journey(environment: dict[str, str]) -> None:
    done = subprocess.run([*DEMO, "--once"], env=environment, capture_output=True, text=True, timeout=240)

    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line.strip() for line in done.stdout.splitlines()]
    for line in (
        "Invited by: alice",
        '"event": "registered",',
        '"event": "qualified",',
        "Earned by alice for inviting bob: 500 gold",
        "As before: 2 events, 2 requests, 1 reward; Alice has 500 gold",
        "Every step worked out.",
    ):
        assert line in lines
    answers = re.findall(r'200 \{"ok": ?true, .*"state": ?"(\w+)"\}', done.stdout)
    assert answers == ["registered", "qualified"]
    assert "\033" not in done.stdout
    assert "mmref=" in done.stdout
    assert not re.search(r"[\w-]{40}", done.stdout), "a token was printed"


def test_the_demo_serves_until_it_is_told_to_end(environment: dict[str, str]) -> None:
    with subprocess.Popen(DEMO, env=environment, stdout=subprocess.PIPE, text=True) as demo:
        assert demo.stdout is not None
        told = ""
        while "Ctrl-C" not in told:
            line = demo.stdout.readline()
            assert line, told
            told += line
        port = int(told.split("http://127.0.0.1:")[1].split("/")[0])
        socket.create_connection(("127.0.0.1", port), timeout=10).close()
        demo.send_signal(signal.SIGINT)
        assert demo.wait(timeout=30) == 0
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=10)


def test_the_demo_names_a_port_it_cannot_have(environment: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = subprocess.run([*DEMO, "--port", port], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert f"port {port} cannot be had" in done.stderr


def manage(environment: dict[str, str], *command: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-W", "error", str(EXAMPLE / "manage.py"), *command]
    return subprocess.run(line, env=environment, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("command", ["check", "makemigrations --check --dry-run"])
def test_django_finds_nothing_to_complain_about(environment: dict[str, str], command: str) -> None:
    done = manage(environment, *command.split())
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""


def test_with_credentials_of_mmoloves_it_is_mmolove_that_is_told(environment: dict[str, str]) -> None:
    credentials = {"MMOLOVE_SERVER_ID": "srv_1", "MMOLOVE_REFERRAL_SECRET": "s3cret"}
    question = (
        "from django.urls import get_resolver; from django_mmolove_referral.conf import conf;"
        "print('mmolove_sandbox' in get_resolver().namespace_dict);"
        "print(conf.server('default').credentials().endpoint)"
    )
    ask = ("shell", "--verbosity", "0", "--command", question)
    assert manage(environment, *ask).stdout.split() == [
        "True",
        "http://127.0.0.1:8000/sandbox/api/referral/events",
    ]
    assert manage({**environment, **credentials}, *ask).stdout.split() == [
        "False",
        "https://mmolove.com/api/referral/events",
    ]


LOOK = """
import json, re
from django.contrib.auth.models import User
from django.template.loader import render_to_string
from django.test import Client

visitor, player, owner = Client(), Client(), Client()
player.force_login(User.objects.create_user("alice"))
owner.force_login(User.objects.create_superuser("owner"))
clients = {"visitor": visitor, "player": player, "owner": owner}
seen = {}
for who, client in clients.items():
    for path in ("/", "/login/", "/register/", "/character/", "/rewards/", "/behind-the-scenes/", "/nowhere/"):
        answer = client.get(path, headers={"host": "localhost"})
        html = answer.content.decode()
        seen[f"{who} {path}"] = {
            "status": answer.status_code,
            "policy": answer.headers["Content-Security-Policy"],
            "inline": re.findall(r"<style|\\sstyle=|\\son\\w+=|<script(?![^>]*\\ssrc=)", html),
            "tour": "Guided tour" in html,
            "mmolove": "MMOLove's log" in html,
        }
seen["refusal"] = Client(enforce_csrf_checks=True).post("/login/", headers={"host": "localhost"}).content.decode()
seen["fault"] = render_to_string("500.html")
seen["join"] = visitor.get("/join/7/", headers={"host": "localhost"}).headers["Location"]
print(json.dumps(seen))
"""


def look_around(environment: dict[str, str]) -> dict[str, Any]:
    environment = {**environment, "PORTAL_DEBUG": "0"}
    assert manage(environment, "migrate", "--verbosity", "0").returncode == 0
    done = manage(environment, "shell", "--verbosity", "0", "--command", LOOK)
    assert done.returncode == 0, done.stderr
    seen: dict[str, Any] = json.loads(done.stdout)
    return seen


def test_every_page_keeps_to_a_strict_policy_and_shows_the_tour(environment: dict[str, str]) -> None:
    seen = look_around(environment)
    assert seen.pop("join") == "/sandbox/r/emberfall?ref=7", "on the visitor's own host name"
    assert "The wind took that ember" in seen.pop("refusal")
    assert "The fire went out" in seen.pop("fault")
    for page in seen.values():
        assert page["policy"].startswith("default-src 'self'; ")
        assert page["inline"] == []
        assert page["tour"] == (page["status"] != 302)
    assert seen["visitor /behind-the-scenes/"]["mmolove"]
    assert seen["visitor /nowhere/"]["status"] == 404


def test_with_credentials_there_is_no_tour_and_the_log_is_for_staff(environment: dict[str, str]) -> None:
    credentials = {"MMOLOVE_SERVER_ID": "srv_1", "MMOLOVE_REFERRAL_SECRET": "s3cret"}
    seen = look_around({**environment, **credentials, "MMOLOVE_SHARE_URL": "https://mmolove.example/r/srv"})
    assert seen["join"] == "https://mmolove.example/r/srv?ref=7"
    pages = {name: page for name, page in seen.items() if "/" in name}
    assert not any(page["tour"] or page["mmolove"] for page in pages.values())
    log = {name.split()[0]: page["status"] for name, page in pages.items() if "behind" in name}
    assert log == {"visitor": 404, "player": 404, "owner": 200}


STRIP = """
from django.contrib.auth.models import User
from django.db import connection
from django.template.loader import render_to_string
from django.utils import timezone
from django_mmolove_referral.models import OutboundEvent, Referral
from tour.context import Guide

bob = User.objects.create_user("bob")
referral = Referral.objects.create(user=bob, server="default", token="t")
event = {"server_event_id": "1", "body": b"{}", "due_at": timezone.now()}
OutboundEvent.objects.create(referral=referral, server="default", kind="registered", **event)
asked = []

def settle_after_the_first_question(execute, sql, params, many, context):
    asked.append(sql)
    if len(asked) == 2:
        OutboundEvent.objects.update(state="accepted", outcome="advanced")
        Referral.objects.update(state="registered")
    return execute(sql, params, many, context)

with connection.execute_wrapper(settle_after_the_first_question):
    torn = render_to_string("tour/strip.html", {"tour": Guide(bob, "/character/"), "user": bob})
whole = render_to_string("tour/strip.html", {"tour": Guide(bob, "/character/"), "user": bob})
print("data-busy" in torn, "Train to level" in whole)
"""


def test_the_strip_looks_again_when_a_delivery_settles_while_it_is_drawn(environment: dict[str, str]) -> None:
    assert manage(environment, "migrate", "--verbosity", "0").returncode == 0
    done = manage(environment, "shell", "--verbosity", "0", "--command", STRIP)
    assert done.stdout.split() == ["True", "True"], done.stderr


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("", {"ENGINE": "django.db.backends.sqlite3", "NAME": Path("default.sqlite3")}),
        ("sqlite:////srv/a%20b.sqlite3", {"ENGINE": "django.db.backends.sqlite3", "NAME": "/srv/a b.sqlite3"}),
        (
            "postgres://portal:p%40ss@db:5433/games?sslmode=require",
            {
                "ENGINE": "django.db.backends.postgresql",
                "NAME": "games",
                "USER": "portal",
                "PASSWORD": "p@ss",
                "HOST": "db",
                "PORT": "5433",
                "OPTIONS": {"sslmode": "require"},
            },
        ),
        (
            "mysql://portal@db/games",
            {"ENGINE": "django.db.backends.mysql", "NAME": "games", "PASSWORD": "", "PORT": ""},
        ),
    ],
)
def test_the_database_comes_from_its_url(url: str, expected: dict[str, Any]) -> None:
    from_url = runpy.run_path(str(EXAMPLE / "portal" / "database.py"))["from_url"]
    database = from_url(url, default=Path("default.sqlite3"))
    assert {key: database[key] for key in expected} == expected
