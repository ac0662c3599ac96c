"""The documentation against the code: settings, commands, names, links, examples.

It reads the files of the repository, and nothing else.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import typer
from pydantic_core import PydanticUndefined

import livejobs
import livejobs.testing
import livejobs_server
from livejobs import errors
from livejobs.settings import Settings
from livejobs_server.cli import app as command_line

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])
DECISIONS = sorted((DOCS / "decisions").glob("[0-9]*.md"))

_FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(?<!!)\[[^\]]+\]\(([^)\s]+)\)")
_IMAGE = re.compile(r"!\[[^\]]+\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^(#+) (.+)$", re.MULTILINE)
_TEST = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")
_OPTION = re.compile(r"(?<![\w-])(--?[a-zA-Z][\w-]*)")


def page_id(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def read(name: str) -> str:
    return (DOCS / name).read_text("utf-8")


def prose(path: Path) -> str:
    """A page without its code blocks."""
    return _FENCE.sub("", path.read_text("utf-8"))


def blocks(path: Path, language: str) -> list[str]:
    return [code for _, kind, code in _FENCE.findall(path.read_text("utf-8")) if kind == language]


def rows(text: str, columns: int) -> Iterator[list[str]]:
    """The cells of all table rows with so many columns, without headings and rulers."""
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split(" | ")]
        if line.startswith("| `") and len(cells) == columns:
            yield cells


def anchors(path: Path) -> set[str]:
    """The fragments that a page's headings can be linked by."""
    titles = (title for _, title in _HEADING.findall(prose(path)))
    return {re.sub(r"[^\w -]", "", title).strip().lower().replace(" ", "-") for title in titles}


def sections(text: str) -> dict[str, str]:
    """Second-level headings, each with what stands below it."""
    parts = re.split(r"^## (.+)$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


# -- links -------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PAGES, ids=page_id)
def test_relative_links_resolve(path: Path) -> None:
    broken = []
    for link in _LINK.findall(prose(path)):
        if "://" in link:
            continue
        target, _, fragment = link.partition("#")
        found = (path.parent / unquote(target)).resolve() if target else path
        # What a clone does not hold does not count, wherever else it may lie.
        is_there = found.exists() and found.is_relative_to(ROOT)
        if not is_there or (fragment and fragment not in anchors(found)):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("path", PAGES, ids=page_id)
def test_pictures_are_there(path: Path) -> None:
    shown = [(path.parent / name).resolve() for name in _IMAGE.findall(prose(path))]
    assert [picture for picture in shown if not picture.is_file()] == []


def test_every_page_is_reached_from_the_index() -> None:
    reached, ahead = set(), [DOCS / "index.md"]
    while ahead:
        path = ahead.pop()
        if path in reached:
            continue
        reached.add(path)
        links = (link.partition("#")[0] for link in _LINK.findall(prose(path)))
        targets = ((path.parent / link).resolve() for link in links if link.endswith(".md"))
        ahead += [target for target in targets if target.is_relative_to(DOCS) and target.exists()]
    assert set(DOCS.rglob("*.md")) - reached == set()


@pytest.mark.parametrize("path", PAGES, ids=page_id)
def test_tests_named_in_a_page_exist(path: Path) -> None:
    missing = []
    for file, test in _TEST.findall(prose(path)):
        source = ROOT / file
        text = source.read_text("utf-8") if source.exists() else None
        if text is None or (test and f"def {test}(" not in text):
            missing.append(f"{file}::{test}")
    assert missing == []


# -- examples ----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PAGES, ids=page_id)
def test_python_examples_can_be_read(path: Path) -> None:
    for code in blocks(path, "python"):
        compile(code, page_id(path), "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


@pytest.mark.parametrize("path", PAGES, ids=page_id)
def test_python_examples_import_what_is_there(path: Path) -> None:
    missing = []
    for code in blocks(path, "python"):
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("livejobs"):
                module = importlib.import_module(node.module or "")
                missing += [name.name for name in node.names if not hasattr(module, name.name)]
    assert missing == []


@pytest.mark.parametrize("path", PAGES, ids=page_id)
def test_json_examples_can_be_read(path: Path) -> None:
    for text in blocks(path, "json"):
        json.loads(text)


# -- settings ----------------------------------------------------------------------------------


def shown_default(value: Any) -> str:
    """A default as the reference writes it."""
    if value is None:
        return "unset"
    if value == ():
        return "empty"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple):
        return f"`{','.join(value)}`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def environment_name(field: str) -> str:
    alias: Any = Settings.model_fields[field].validation_alias
    return str(alias.choices[0])


def test_every_setting_is_in_the_reference_with_its_default() -> None:
    listed = {
        field.strip("`"): (environment.strip("`"), default, bool(meaning))
        for environment, field, default, _, meaning in rows(read("reference/settings.md"), 5)
    }
    real = {
        name: (environment_name(name), shown_default(field.default), True)
        for name, field in Settings.model_fields.items()
    }
    assert all(field.default is not PydanticUndefined for field in Settings.model_fields.values())
    assert listed == real


UNITS = {"in seconds": "s", "in bytes": "bytes", "in days": "days"}


def test_settings_with_a_unit_name_it() -> None:
    units = {
        field.strip("`"): unit for _, field, _, unit, _ in rows(read("reference/settings.md"), 5)
    }
    said = {
        name: next(
            (unit for words, unit in UNITS.items() if words in (field.description or "")), ""
        )
        for name, field in Settings.model_fields.items()
    }
    assert units == said


def test_every_setting_is_in_the_example_environment() -> None:
    lines = (ROOT / ".env.example").read_text("utf-8").splitlines()
    shown = dict(
        line.removeprefix("#").split("=", 1) for line in lines if re.match(r"#?[A-Z]", line)
    )
    wrong = {}
    for name, field in Settings.model_fields.items():
        default = shown_default(field.default).strip("`")
        expected = "" if default in ("unset", "empty") else default
        found = shown.get(environment_name(name))
        if found != expected:
            wrong[environment_name(name)] = found
    assert wrong == {}


# -- the command line --------------------------------------------------------------------------


def commands() -> dict[str, Any]:
    """All commands by their names, `livejobs keys create` for example."""

    def walk(command: Any, name: str) -> Iterator[tuple[str, Any]]:
        if not getattr(command, "commands", None):
            yield name, command
            return
        for child, each in command.commands.items():
            yield from walk(each, f"{name} {child}")

    return dict(walk(typer.main.get_command(command_line), "livejobs"))


COMMANDS = commands()
CELERYS = {"-A", "-Q"}
"""Options of Celery's in the page."""


def options(command: Any) -> set[str]:
    return {
        option
        for parameter in command.params
        if parameter.param_type_name == "option" and not parameter.hidden
        for option in [*parameter.opts, *parameter.secondary_opts]
    }


def test_the_reference_has_a_section_for_each_command() -> None:
    headings = {title for title in sections(read("reference/cli.md")) if "livejobs " in title}
    assert headings == set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_section_of_a_command_names_its_options(name: str) -> None:
    section = sections(read("reference/cli.md"))[name]
    named = set(_OPTION.findall(section))
    assert options(COMMANDS[name]) - named == set()
    assert named - options(COMMANDS[name]) - CELERYS == set()


@pytest.mark.parametrize("name", COMMANDS)
def test_the_section_of_a_command_names_its_arguments(name: str) -> None:
    section = sections(read("reference/cli.md"))[name]
    [synopsis] = re.findall(r"```text\n(.*?)```", section, re.DOTALL)
    usual = {
        "task": "TASK",
        "ids": "ID...",
        "key_id": "ID",
        "job_id": "ID",
        "arguments": "[ARG|NAME=ARG]...",
        "url": "URL",
    }
    for parameter in COMMANDS[name].params:
        if parameter.param_type_name == "argument":
            assert usual[parameter.name] in synopsis
    assert synopsis.startswith(name)


# -- names -------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", [livejobs, livejobs.testing, livejobs_server])
def test_public_names_are_in_the_reference(module: Any) -> None:
    section = sections(read("reference/python.md"))[module.__name__]
    named = set(re.findall(r"`(\w+)", section))
    assert set(module.__all__) - named == set()


def test_every_error_is_in_the_reference() -> None:
    classes = {name for name, value in vars(errors).items() if inspect.isclass(value)}
    own = {name for name in classes if getattr(errors, name).__module__ == errors.__name__}
    listed = {cells[0].strip("`") for cells in rows(read("reference/errors.md"), 3)}
    assert own <= listed
    tree = blocks(DOCS / "reference/errors.md", "text")[0]
    assert own == set(re.findall(r"\b([A-Z]\w+)", tree)) - {"BaseException", "ValueError"}


def test_errors_that_the_reference_names_elsewhere_exist() -> None:
    for name, _, _ in rows(read("reference/errors.md"), 3):
        module, _, error = name.strip("`").rpartition(".")
        if module:
            assert issubclass(getattr(importlib.import_module(module), error), errors.LivejobsError)


# -- decisions ---------------------------------------------------------------------------------


def test_decisions_are_numbered_without_a_gap() -> None:
    assert [path.name[:4] for path in DECISIONS] == [
        f"{number:04}" for number in range(1, len(DECISIONS) + 1)
    ]


@pytest.mark.parametrize("path", DECISIONS, ids=page_id)
def test_decision_has_its_parts_and_is_listed(path: Path) -> None:
    text = path.read_text("utf-8")
    assert text.startswith(f"# {path.name[:4]}: ")
    assert list(sections(text)) == ["Context", "Decision", "Consequences"]
    title = text.partition("\n")[0].partition(": ")[2]
    assert f"[{path.name[:4]}]({path.name}) | {title} |" in read("decisions/README.md")


def test_changelog_has_an_unreleased_section() -> None:
    assert "[Unreleased]" in sections((ROOT / "CHANGELOG.md").read_text("utf-8"))
