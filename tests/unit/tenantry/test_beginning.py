"""`tenantry init`: the file that it writes is right as it stands, and shows no key."""

from __future__ import annotations

import re
import shlex
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from fleet import LoadedFleet, read_fleet
from fleet.demo_keys import uses_demo_keys
from fleet.key_hash import hash_key
from tenantry.app import app
from tests.unit.fleet.files import adapter_folder

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs `tenantry init` in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(app, ["init", *arguments])


def base_folder(path: Path) -> Path:
    path.mkdir(parents=True)
    (path / "config.json").write_text("{}")
    return path


def written(run: Run, *arguments: str, output: str = "fleet.yaml") -> LoadedFleet:
    """The fleet of the file, once `tenantry check` has taken it without a word."""
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    checked = CliRunner().invoke(app, ["check", output])
    assert (checked.exit_code, checked.stderr) == (0, "")
    return read_fleet(Path(output))


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ((), "qwen2.5-0.5b-instruct"),
        (("meta-llama/Llama-3.1-8B-Instruct",), "llama-3.1-8b-instruct"),
        (("org/Model_v1..2",), "model_v1-2"),
        (("org/123",), "123"),
        (("org/on",), "on"),
        (("org/" + "x" * 90,), "x" * 63),
    ],
)
def test_a_model_of_the_hub_is_taken_by_its_id(run: Run, model: tuple[str, ...], name: str) -> None:
    fleet = written(run, *model).fleet
    assert list(fleet.base_models) == [name]
    assert not model or fleet.base_models[name].source == model[0]
    assert fleet.base_models[name].serves_adapters
    assert fleet.tenants["shop"].default_model == name


@pytest.mark.parametrize("spelling", ["./my models/Tiny Llama", "my models/Tiny Llama", "absolute"])
def test_a_folder_is_taken_where_it_lies(run: Run, tmp_path: Path, spelling: str) -> None:
    folder = base_folder(tmp_path / "my models" / "Tiny Llama")
    fleet = written(run, str(folder) if spelling == "absolute" else spelling).fleet
    assert fleet.base_models["tiny-llama"].source == str(folder)


def test_a_file_elsewhere_still_finds_the_folders(run: Run, tmp_path: Path) -> None:
    base_folder(tmp_path / "base")
    adapter_folder(tmp_path / "support")
    (tmp_path / "etc").mkdir()
    arguments = ("./base", "--adapter", "support=support", "-o", "etc/fleet.yaml")
    fleet = written(run, *arguments, output="etc/fleet.yaml").fleet
    assert fleet.base_models["base"].source == str(tmp_path / "base")
    assert fleet.adapters["support"].source == str(tmp_path / "support")


def test_what_lies_beside_the_file_may_move_with_it(run: Run, tmp_path: Path) -> None:
    base_folder(tmp_path / "base")
    adapter_folder(tmp_path / "support")
    written(run, str(tmp_path / "base"), "--adapter", f"support={tmp_path / 'support'}")
    assert str(tmp_path) not in (tmp_path / "fleet.yaml").read_text()


def test_adapters_are_models_of_the_tenant_the_first_by_default(run: Run, tmp_path: Path) -> None:
    adapter_folder(tmp_path / "a")
    fleet = written(run, "--adapter", "support=./a", "--adapter", "sales=hf://org/sales-lora").fleet
    assert list(fleet.tenants["shop"].models) == ["support", "sales", "qwen2.5-0.5b-instruct"]
    assert fleet.tenants["shop"].default_model == "support"
    assert fleet.adapters["sales"].source == "hf://org/sales-lora"


@pytest.mark.parametrize(("rank", "slots_of"), [(4, 16), (16, 16), (17, 32), (64, 64), (100, 128)])
def test_the_slots_take_the_largest_adapter(run: Run, tmp_path: Path, rank: int, slots_of: int) -> None:
    adapter_folder(tmp_path / "a", rank=4)
    adapter_folder(tmp_path / "b", rank=rank)
    fleet = written(run, "--adapter", "a=./a", "--adapter", "b=./b").fleet
    assert next(iter(fleet.base_models.values())).max_lora_rank == slots_of


def test_keys_are_shown_once_and_open_what_they_say(run: Run, tmp_path: Path) -> None:
    result = run("--tenant", "globex")
    shown = dict(re.findall(r"^  (tenant globex|operator) +(tnt_\S+)$", result.stdout, re.MULTILINE))
    assert list(shown) == ["tenant globex", "operator"]
    text = (tmp_path / "fleet.yaml").read_text()
    assert not any(key in text for key in shown.values())
    fleet = read_fleet(tmp_path / "fleet.yaml").fleet
    assert fleet.tenants["globex"].key_hashes == {hash_key(shown["tenant globex"])}
    assert fleet.gateway.operator_key_hashes == {hash_key(shown["operator"])}
    assert not uses_demo_keys(fleet)
    again = run("--force")
    assert not any(key in again.stdout for key in shown.values())


def test_the_next_commands_can_be_pasted(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["/with space/bin/tenantry"])
    assert "  '/with space/bin/tenantry' serve 'my fleet.yaml'\n" in run("-o", "my fleet.yaml").stdout
    monkeypatch.setattr(sys, "argv", ["/checkout/tenantry/__main__.py"])
    assert f"  {shlex.quote(sys.executable)} -m tenantry serve two.yaml\n" in run("-o", "two.yaml").stdout
    program = tmp_path / "tenantry"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    assert "  tenantry check fleet.yaml\n  tenantry serve fleet.yaml\n" in run().stdout


def test_a_file_that_is_there_is_not_overwritten_unless_told_to(run: Run, tmp_path: Path) -> None:
    (tmp_path / "fleet.yaml").write_text("mine")
    result = run()
    assert result.exit_code == 1
    assert "--force" in result.stderr and len(result.stderr.splitlines()) == 1
    assert (tmp_path / "fleet.yaml").read_text() == "mine"
    assert run("--force").exit_code == 0
    assert "tenants" in yaml.safe_load((tmp_path / "fleet.yaml").read_text())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("./no-such-folder",), "no-such-folder"),
        (("just-a-word",), "just-a-word"),
        (("--adapter", "support=./no-such-folder"), "no-such-folder"),
        (("--adapter", "support=ftp://host/file"), "adapters.support"),
        (("--adapter", "Sup port: {=hf://a/b"), "a name is"),
        (("--tenant", "ACME"), "a name is"),
        (("--adapter", "qwen2.5-0.5b-instruct=hf://a/b"), "is a base model as well"),
        (("-o", "no/such/folder/fleet.yaml"), "no/such/folder"),
    ],
    ids=" ".join,
)
def test_what_would_not_be_right_is_not_written(
    run: Run, tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    result = run(*arguments)
    assert result.exit_code == 1, result.output
    assert said in result.stderr and "Traceback" not in result.output
    assert "tnt_" not in result.output
    assert list(tmp_path.iterdir()) == []


def test_an_adapter_that_nobody_could_serve_is_refused_with_the_reason(run: Run, tmp_path: Path) -> None:
    (adapter_folder(tmp_path / "a") / "adapter_config.json").write_text("{}")
    result = run("--adapter", "support=./a")
    assert result.exit_code == 1 and result.stderr
    assert not (tmp_path / "fleet.yaml").exists()


@pytest.mark.parametrize("given", ["support", "support=", "=./a"])
def test_an_adapter_without_name_or_source_is_wrong_use(run: Run, given: str) -> None:
    result = run("--adapter", given)
    assert result.exit_code == 2
    assert "NAME=SOURCE" in result.stderr


def test_others_on_the_machine_may_read_the_file_as_any_other(run: Run, tmp_path: Path) -> None:
    (tmp_path / "other").write_text("")
    run()
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("other", "fleet.yaml")}
    assert len(modes) == 1
