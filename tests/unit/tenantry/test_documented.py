"""The `tenantry` commands that README, docs, messages and the console name: they are there, as shown."""

from __future__ import annotations

import re
import shlex
from itertools import pairwise
from pathlib import Path

import pytest
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from tenantry.app import app

ROOT = Path(__file__).parents[3]
TEXTS = frozenset({".py", ".md", ".tsx", ".yml", ".yaml"})
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LINE = re.compile(r"^\s*(?:\.venv/bin/)?tenantry (?!is\b)(.+?)(?: > .+)?$", re.MULTILINE)
NAMED = re.compile(r"`tenantry ([a-z][a-z -]*[a-z])")


def command_of(words: list[str]) -> TyperCommand | TyperGroup:
    """The command that words begin with; they are left with its arguments. Raises `KeyError`."""
    command = get_command(app)
    while isinstance(command, TyperGroup) and words and not words[0].startswith("-"):
        command = command.commands[words.pop(0)]
    assert isinstance(command, TyperCommand | TyperGroup)
    assert isinstance(command, TyperCommand) or command.invoke_without_command
    return command


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_of_a_page_take_what_it_shows(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for line in LINE.findall(page.read_text()):
        words = shlex.split(line, comments=True)
        for option, value in pairwise(words):
            if option == "--base":
                (tmp_path / value).mkdir(parents=True, exist_ok=True)
        command_of(words).make_context(line, words)  # raises for wrong use


def test_the_list_of_commands_is_whole() -> None:
    table = (ROOT / "docs" / "command.md").read_text().partition("| exit code |")[0]
    rows = re.findall(r"^\| (`.+?) \|", table, re.MULTILINE)
    command = get_command(app)
    assert isinstance(command, TyperGroup)
    assert sorted(name for row in rows for name in re.findall(r"`([a-z-]+)`", row)) == sorted(
        command.commands
    )


def test_commands_that_texts_name_are_there() -> None:
    folders = ("adapters", "console/src", "deploy", "docs", "routing", "tenantry", "tests")
    texts = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.suffix in TEXTS]
    found = {text for path in [*PAGES, *texts] for text in NAMED.findall(path.read_text())}
    assert {"new-key", "adapters add", "replicas"} <= found
    for words in map(str.split, sorted(found)):
        command = get_command(app)
        while isinstance(command, TyperGroup) and words and not words[0].startswith("-"):
            command = command.commands[words.pop(0)]
