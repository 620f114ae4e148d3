"""Where models lie: folders, hub ids, and variables in both."""

from __future__ import annotations

from pathlib import Path

import pytest

from fleet.sources import Source, SourceError, expand, is_hub_id, resolve


@pytest.mark.parametrize(
    ("text", "resolved"),
    [
        ("./x", "/fleets/x"),
        ("../x", "/x"),
        (".cache/demo/base", "/fleets/.cache/demo/base"),
        ("/models/x", "/models/x"),
        ("/models/../x/", "/x"),
        ("a/b/c", "/fleets/a/b/c"),
        ("${ROOT}/x", "/srv/x"),
        ("${NOT_SET:-/default}/x", "/default/x"),
        ("${EMPTY:-/default}/x", "/default/x"),
    ],
)
def test_folders_are_absolute_and_relative_to_the_fleet_file(text: str, resolved: str) -> None:
    env = {"ROOT": "/srv", "EMPTY": ""}
    assert resolve(text, folder=Path("/fleets"), env=env) == Source(resolved, is_folder=True)


def test_a_tilde_is_the_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert resolve("~/x", folder=Path("/fleets"), env={}) == Source("/home/me/x", is_folder=True)


def test_two_parts_are_a_hub_id_unless_the_folder_exists(tmp_path: Path) -> None:
    assert resolve("org/Name-8B.v2", folder=tmp_path, env={}) == Source("org/Name-8B.v2", is_folder=False)
    (tmp_path / "org" / "name").mkdir(parents=True)
    assert resolve("org/name", folder=tmp_path, env={}) == Source(str(tmp_path / "org/name"), is_folder=True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name", "neither a folder that exists nor a hub id"),
        ("org/na me", "neither a folder that exists nor a hub id"),
        ("-org/name", "neither a folder that exists nor a hub id"),
        ("${NOT_SET}/x", "the environment variable NOT_SET is not set"),
        ("${EMPTY}", "is empty"),
        ("/x\0y", "NUL"),
    ],
)
def test_anything_else_is_refused(text: str, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        resolve(text, folder=Path("/fleets"), env={"EMPTY": ""})


def test_a_dollar_that_names_no_variable_stays() -> None:
    assert expand("$HOME/${}/$", {"HOME": "/x"}) == "$HOME/${}/$"


def test_a_resolved_source_tells_which_it_is() -> None:
    assert is_hub_id("org/name")
    assert not is_hub_id("/models/x")
