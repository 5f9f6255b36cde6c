"""Names in the documentation are those of the code, and the other way round."""

from __future__ import annotations

import argparse
import ast
import re
from collections.abc import Iterator
from datetime import timedelta
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from django.apps import apps
from django.core.management import load_command_class
from django.core.management.base import BaseCommand
from django.dispatch import Signal
from django.test import override_settings

import django_mmolove_referral
from django_mmolove_referral import models, signals
from django_mmolove_referral.conf import KEYS, SETTING, conf
from django_mmolove_referral.delivery import dispatch
from django_mmolove_referral.servers import ENVIRONMENT, SERVER_KEYS
from tests.docs.site import names, prose, rows, section
from tests.docs.test_shell import APP, COMMANDS
from tests.pages import DOCS, ROOT, blocks, pages, path_of, read

PACKAGE = ROOT / APP


def constants(*patterns: str) -> Iterator[str]:
    """The string literals of the package's files that match ``patterns``."""
    for pattern in patterns:
        for path in sorted(PACKAGE.rglob(pattern)):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    yield node.value


def everywhere() -> str:
    return "\n".join(read(page) for page in pages())


# -- settings


def documented_settings() -> dict[str, tuple[str, str]]:
    """Type and default of each key, as settings.md has them."""
    found = {}
    for key in re.findall(r"^### `([A-Z_]+)`$", read("settings.md"), re.MULTILINE):
        text = section("settings.md", f"`{key}`").strip()
        match = re.match(r"Type: (.+?)\. Default: (.+?)(?:; [^.]*)?\.\n\n\S", text, re.DOTALL)
        assert match, f"settings.md: {key} does not begin with “Type: …. Default: ….”"
        found[key] = (match[1], match[2])
    return found


def test_each_setting_is_documented_once_and_no_other() -> None:
    assert sorted(documented_settings()) == sorted(KEYS)


@pytest.mark.parametrize("key", sorted(KEYS))
def test_the_documented_default_is_the_default(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ENVIRONMENT.values():
        monkeypatch.delenv(variable, raising=False)
    default = documented_settings()[key][1]
    needed = {"SERVER_ID": "id", "SECRET": "secret"} if key not in ENVIRONMENT else {}
    with override_settings(**{SETTING: needed}):
        without = value_of(key)
    if default == "none":
        assert without in (None, "", {}), f"{key} is {without!r} without the key"
        return
    written = eval(default.strip("`"), {"timedelta": timedelta})
    with override_settings(**{SETTING: {**needed, key: written}}):
        assert value_of(key) == without


def value_of(key: str) -> object:
    """What the app makes of a key, as something that can be compared."""
    if key in SERVER_KEYS:
        return server_value(key)
    if key == "SERVERS":
        return {alias: server for alias, server in conf.servers.items() if alias != "default"}
    value = getattr(conf, key.lower())
    return value(SimpleNamespace(pk=7)) if callable(value) else value


def server_value(key: str) -> object:
    server = conf.server("default")
    if key in ENVIRONMENT:
        return server._raw.get(key)
    if key == "SHARE_URL":
        return server.share_url
    return getattr(server.credentials(), key.lower())


def test_environment_variables() -> None:
    table = {names(row[0])[0]: names(row[1])[0] for row in rows(section("settings.md", "Environment variables"))}
    assert table == {variable: key for key, variable in ENVIRONMENT.items()}


def test_settings_named_anywhere_exist() -> None:
    for page in pages():
        for key in re.findall(rf"{SETTING}\[['\"](\w+)['\"]\]", read(page)):
            assert key in KEYS, f"{page} names {SETTING}['{key}']"


def test_settings_in_code_exist() -> None:
    for page in pages():
        for block in blocks(page, "python"):
            for node in ast.walk(ast.parse(block.text)):
                if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == SETTING:
                    assert isinstance(node.value, ast.Dict)
                    used = {ast.literal_eval(key) for key in node.value.keys if key is not None}
                    assert used <= KEYS, f"{block.where}: {used - KEYS}"


# -- signals


def test_signals_and_their_arguments() -> None:
    table = {names(row[0])[0]: names(row[1]) for row in rows(read("signals.md")) if len(row) == 3}
    assert table == dict(written_signals())
    made = [name for name, value in vars(signals).items() if isinstance(value, Signal)]
    assert list(table) == made
    assert re.findall(r"autodata:: (\w+)", read("api.md")) == made


def written_signals() -> Iterator[tuple[str, list[str]]]:
    """The signals of the module, with the arguments that the comment above each one names."""
    source = Path(signals.__file__).read_text(encoding="utf-8")
    for comment, name in re.findall(r"^#: (.+?)\n(\w+) = Signal\(\)$", source, re.MULTILINE):
        head = re.sub(r"\([^)]*\)", "", comment).partition(":")[0]
        yield name, re.findall(r"``(\w+)``", head)


def test_each_signal_has_an_example_receiver() -> None:
    connected = "\n".join(block.text for block in blocks("signals.md", "python"))
    assert [
        name for name, _arguments in written_signals() if not re.search(rf"\b{name}\b[^\n]*\)\ndef ", connected)
    ] == []


# -- checks and findings


def checks() -> Iterator[str]:
    """The ids of the system checks: written out, or as the number that :func:`warning` makes one of."""
    for path in (*PACKAGE.glob("checks.py"), *PACKAGE.glob("checks/*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "warning":
                number = node.args[0]
                if isinstance(number, ast.Constant) and isinstance(number.value, int):
                    yield f"{CHECK}W{number.value:03}"
            elif isinstance(node, ast.Constant) and re.fullmatch(rf"{re.escape(CHECK)}[EWI]\d{{3}}", str(node.value)):
                yield str(node.value)


CHECK = "mmolove_referral."


def test_checks() -> None:
    made = set(checks())
    told = set(re.findall(rf"\b{re.escape(CHECK)}[EWI]\d{{3}}\b", everywhere()))
    page = read("checks.md") if (DOCS / "checks.md").exists() else everywhere()
    assert made, "no check has an id?"
    assert sorted(told - made) == []
    assert sorted(name for name in made if name.removeprefix(CHECK) not in page) == []


AREA = re.compile(r"[a-z][a-z_]*\.[a-z][a-z_]*")


@lru_cache
def findings() -> set[str]:
    """The ids that the doctor's code holds."""
    found = {value for value in constants("doctor/*.py", "doctor.py") if AREA.fullmatch(value)}
    return {*found, *(f"events.{state}" for state in ("rejected", "exhausted"))}


def test_findings_of_the_doctor_in_operations() -> None:
    told: set[str] = set()
    for row in rows(section("operations.md", "What is wrong?")):
        area = ""
        for name in names(row[0]):
            if AREA.fullmatch(name):
                area = name.partition(".")[0]
                told.add(name)
            elif name.startswith("."):
                told.add(area + name)
    assert sorted(told ^ findings()) == []


def test_findings_of_the_doctor_in_troubleshooting() -> None:
    told = {name for name in names(section("troubleshooting.md", "By finding")) if AREA.fullmatch(name)}
    assert sorted(told ^ findings()) == []


def test_findings_named_anywhere_exist() -> None:
    areas = {name.partition(".")[0] for name in findings()}
    for page in pages():
        for name in names(prose(path_of(page))):
            if AREA.fullmatch(name) and name.partition(".")[0] in areas and not name.endswith((".py", ".md")):
                assert name in findings(), f"{page} names {name}"


# -- commands


def own_options(command: str) -> dict[str, argparse.Action]:
    parser = load_command_class(APP, command).create_parser("manage.py", command)
    common = BaseCommand().create_parser("manage.py", command)
    return {
        action.option_strings[-1] if action.option_strings else f"{action.metavar or action.dest}": action
        for action in parser._actions
        if not set(action.option_strings) & set(common._option_string_actions) or not action.option_strings
    }


def test_each_command_is_documented_once_and_no_other() -> None:
    assert sorted(re.findall(r"^## `(\w+)`$", read("commands.md"), re.MULTILINE)) == sorted(COMMANDS)


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_the_options_of_a_command(command: str) -> None:
    options = own_options(command)
    table = {}
    for row in rows(section("commands.md", f"`{command}`")):
        name, _, value = names(row[0])[0].partition(" ")
        table[name] = (value, row[1])
    assert sorted(table) == sorted(options)
    for name, (value, told) in table.items():
        action = options[name]
        assert bool(value) == (bool(action.option_strings) and action.nargs != 0), f"{command} {name} {value}"
        for choice in action.choices or ():
            assert choice in names(told), f"{command} {name} takes {choice}"


# -- what may be imported


def test_public_names() -> None:
    documented = set(re.findall(r"autofunction:: (\w+)", read("api.md")))
    listed = {name for name in names(section("api.md", "The verbs")) if re.fullmatch(r"a?[a-z]+_[a-z_]+", name)}
    assert sorted(django_mmolove_referral.__all__) == sorted(documented | (listed - {APP}))


def test_what_the_documentation_imports_is_there() -> None:
    for page in pages():
        for block in blocks(page, "python"):
            for node in ast.walk(ast.parse(block.text)):
                if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(APP):
                    module = imported(str(node.module))
                    for alias in node.names if module else ():
                        assert hasattr(module, alias.name), f"{block.where}: {node.module}.{alias.name}"


def imported(name: str) -> ModuleType | None:
    """A module of ours; ``None`` if it needs a library that only those portals have that use it."""
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if APP in str(error.name):
            raise
        return None


def test_names_of_tasks() -> None:
    named = {name for name in names(section("api.md", "In your own code")) if name.startswith("mmolove_referral.")}
    assert named == {dispatch.DELIVER_TASK, dispatch.SWEEP_TASK, dispatch.PRUNE_TASK}


@pytest.mark.parametrize("model", [*apps.get_app_config("mmolove_referral").get_models()])
def test_the_fields_of_a_model(model: Any) -> None:
    text = section("api.md", f"`{model.__name__}`")
    table = {names(row[0])[0]: row[1] for row in rows(text)}
    fields = {field.name: field for field in model._meta.concrete_fields if not field.primary_key}
    assert sorted(table) == sorted(fields)
    for name, field in fields.items():
        if field.choices:
            assert [choice for choice, _label in field.choices] == names(table[name]), f"{model.__name__}.{name}"


@pytest.mark.parametrize(
    ("heading", "states"),
    [
        ("An event", models.OutboundEvent.State),
        ("A referral", models.Referral.State),
        ("A reward", models.Reward.State),
        ("A server", models.ServerHealth.State),
    ],
)
def test_the_states(heading: str, states: Any) -> None:
    assert [names(row[0])[0] for row in rows(section("concepts.md", heading))] == states.values


# -- permissions and loggers


def test_permissions() -> None:
    made = {
        name
        for model in apps.get_app_config("mmolove_referral").get_models()
        for _code, name in model._meta.permissions
    }
    told = set(re.findall(r"Can (?!view)[^*\n]+(?=\*)", " ".join(section("admin.md", "Who may what").split())))
    assert sorted(told ^ made) == []


def test_loggers() -> None:
    made = {
        match
        for path in PACKAGE.rglob("*.py")
        for match in re.findall(r'getLogger\("(mmolove_referral\.[.\w]*)"\)', path.read_text(encoding="utf-8"))
    }
    told = {
        names(row[0])[0] for row in rows(section("operations.md", "Logs")) if names(row[0])[0].startswith("mmolove_")
    }
    assert sorted(told ^ made) == []
