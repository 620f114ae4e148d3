"""Adapters in BentoML's model store. In a process of its own: BentoML takes its home when it is imported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from adapters import model_store
from adapters.checkpoint import inspect_adapter
from adapters.errors import AdapterError
from tests.adapter_kinds import CONFIG, WEIGHTS, good

PROGRAM = """
import sys
from adapters import model_store
from adapters.errors import AdapterError
from pathlib import Path

folder = Path(sys.argv[1])
tag = model_store.export(folder, "acme-support", {"digest": "f" * 64})
print(tag)
print(model_store.resolve(tag))
print(model_store.resolve("acme-support") == model_store.resolve(tag))
print(model_store.resolve("acme-support:latest") == model_store.resolve(tag))
for wrong in ("missing", "acme-support:missing", "../x", "acme-support:../..", "", "a b"):
    try:
        print(model_store.resolve(wrong))
    except AdapterError as error:
        print("refused:", error)
for name, source in (("../x", folder), (tag, folder), ("acme-support", folder.parent)):
    try:
        print(model_store.export(source, name, {}))
    except AdapterError as error:
        print("refused:", error)
"""


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """The home of the store, and what the program printed."""
    home = tmp_path_factory.mktemp("bento") / "home"
    folder = good().write(home.parent / "a")
    (folder / "README.md").write_text("not served")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder)],
        env={**os.environ, "BENTOML_HOME": str(home), "BENTOML_DO_NOT_TRACK": "1", "PYTHONPATH": "."},
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return home, done.stdout.splitlines()


def test_what_is_put_there_comes_back(ran: tuple[Path, list[str]]) -> None:
    home, (tag, folder, *_) = ran
    assert tag.startswith("acme-support:")
    assert Path(folder).is_relative_to(home)
    assert {path.name for path in Path(folder).iterdir()} == {CONFIG, WEIGHTS, "model.yaml"}
    assert inspect_adapter(Path(folder)).digest == inspect_adapter(home.parent / "a").digest


def test_a_name_alone_is_its_latest_version(ran: tuple[Path, list[str]]) -> None:
    assert ran[1][2:4] == ["True", "True"]


def test_what_is_not_there_is_said_without_the_stores_place(ran: tuple[Path, list[str]]) -> None:
    home, lines = ran
    refused = lines[4:10]
    assert [line.partition(";")[0] for line in refused[:2]] == [
        "refused: BentoML's model store has no 'missing'",
        "refused: BentoML's model store has no 'acme-support:missing'",
    ]
    assert all(line.startswith("refused: BentoML's model store refuses") for line in refused[2:])
    assert not any(str(home) in line for line in refused)


def test_a_wrong_name_a_taken_tag_and_a_wrong_folder_leave_nothing(ran: tuple[Path, list[str]]) -> None:
    home, lines = ran
    assert "refuses '../x'" in lines[10]
    assert "already exists" in lines[11]
    assert "has no adapter_config.json" in lines[12]
    assert [path.name for path in (home / "models").iterdir()] == ["acme-support"]
    assert len([path for path in (home / "models" / "acme-support").iterdir() if path.is_dir()]) == 1


@pytest.mark.parametrize("missing", ["bentoml", "attrs_of_bentoml"])
def test_without_bentoml_it_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    def find_spec(name: str, path: object = None, target: object = None) -> None:
        if name == "bentoml":
            raise ModuleNotFoundError(f"No module named {missing!r}", name=missing)

    monkeypatch.setattr(sys, "meta_path", [SimpleNamespace(find_spec=find_spec), *sys.meta_path])
    for loaded in [name for name in sys.modules if name.partition(".")[0] == "bentoml"]:
        monkeypatch.delitem(sys.modules, loaded)
    with pytest.raises(AdapterError, match=f"needs {missing}, which is not installed"):
        model_store.resolve("support:1")
    with pytest.raises(AdapterError, match="not installed"):
        model_store.export(tmp_path, "support", {})
