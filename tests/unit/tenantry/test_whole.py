"""`tenantry models add`, `show`, `promote`, `rollback`, `retry` and `retire` against the admin API."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from adapters.states import VersionState
from routing.lifecycle.ports import ModelPlace
from tests.integration.test_whole_models import model_folder
from tests.unit.routing.admin import fakes
from tests.unit.routing.admin.fakes import Desk
from tests.unit.tenantry.commands import Run, runner

URL = "hf://example/new"


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return fakes.desk(tmp_path, max_upload_bytes=10**6)


@pytest.fixture
def run(desk: Desk) -> Run:
    """Runs the command as an operator."""
    return runner(desk, "models")


def test_a_new_model_is_added_with_its_place_and_settings(run: Run, desk: Desk) -> None:
    done = run("add", "new", URL, "--pool", "mesh", "--like", "one", "--set", "max_model_len=512",
               "--set", "vllm_args=[--enforce-eager]")  # fmt: skip
    assert done.exit_code == 0, done.output
    place = ModelPlace("mesh", "one", {"max_model_len": 512, "vllm_args": ["--enforce-eager"]})
    assert desk.management.calls == [("add", "new", place, URL, None, True)]
    assert "new, in pool mesh" in done.output


def test_a_known_model_gets_another_version(run: Run, desk: Desk) -> None:
    assert run("add", "one", URL, "--json").exit_code == 0
    assert desk.management.calls == [("add", "one", ModelPlace(), URL, None, True)]


def test_a_folder_is_packed_and_sent_without_what_no_engine_reads(
    run: Run, desk: Desk, tmp_path: Path
) -> None:
    folder = model_folder(tmp_path / "model")
    assert run("add", "new", str(folder), "--set", "max_num_seqs=4").exit_code == 0
    (archive,) = desk.management.whole.sent
    assert b"model.safetensors" in archive and b"not served" not in archive
    assert desk.management.calls[0][2] == ModelPlace(None, None, {"max_num_seqs": 4})


def test_it_is_given_to_a_tenant_once_it_is_ready(run: Run, desk: Desk) -> None:
    assert run("add", "new", URL, "--for", "acme").exit_code == 0
    assert any("acme" in map(str, call) for call in desk.management.calls[1:])
    assert run("add", "new", URL, "--for", "acme", "--no-wait").exit_code == 2


def test_one_that_is_refused_ends_with_the_reason(run: Run, desk: Desk) -> None:
    desk.management.whole.becomes = VersionState.QUARANTINED
    done = run("add", "new", URL)
    assert done.exit_code == 1 and "cut short" in done.output


@pytest.mark.parametrize("setting", ["max_model_len", "=512", "a=[", ""])
def test_what_is_no_setting_is_refused_before_anything_is_sent(run: Run, desk: Desk, setting: str) -> None:
    assert run("add", "new", URL, "--set", setting).exit_code == 2
    assert desk.management.calls == []


def test_a_pickle_is_refused_before_anything_is_sent(run: Run, desk: Desk, tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "model")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    done = run("add", "new", str(folder))
    assert done.exit_code == 1 and "is a pickle" in done.output
    assert desk.management.calls == []


def test_a_model_is_shown_with_its_versions_and_hosts(run: Run) -> None:
    shown = run("show", "one").output
    assert "quarantined" in shown and "names no architecture" in shown and "mesh-0: awake" in shown
    assert json.loads(run("show", "one", "--json").output)["name"] == "one"


@pytest.mark.parametrize(
    ("arguments", "call"),
    [
        (("promote", "one", "2"), ("promote", "one", 2)),
        (("rollback", "one"), ("rollback", "one")),
        (("retry", "one", "2"), ("retry", "one", 2)),
        (("retire", "one"), ("retire", "one", None)),
        (("retire", "one", "--version", "2"), ("retire", "one", 2)),
    ],
)
def test_each_order_is_one_call(
    run: Run, desk: Desk, arguments: tuple[str, ...], call: tuple[object, ...]
) -> None:
    assert run(*arguments).exit_code == 0
    assert desk.management.calls == [call]


def test_a_model_that_is_not_there_is_told(run: Run) -> None:
    done = run("show", "nobody")
    assert done.exit_code == 1 and "fetches no model" in done.output
