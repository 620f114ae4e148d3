"""`tenantry plan`: from tables by hand to a plan that is shown, written and reported."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from fleet import read_fleet
from routing.catalog.entries import AdapterKey
from routing.types import Target
from routing.usage.store import UsageStore
from tenantry.app import app
from tests.unit.planning.reading.test_ledger import with_adapters
from tests.unit.planning.small_models import base_tensors, saved
from tests.unit.routing.usage.made import record, rows

MODELS = """
models:
  - {name: base, parameters: 8e9, kv_kib_per_token: 128, shape: eight-b, max_model_len: 4096,
     slot_mib_per_rank: 5, source: example/base}
  - {name: "a{n}", count: 4, base: base, source: "https://example.com/a.tar.gz"}
  - {name: whole, parameters: 8e9, kv_kib_per_token: 128, shape: eight-b, max_model_len: 4096,
     source: example/whole}
"""
DEMAND = """model,requests/day,in,out,tenant,ttft_s,isolation
a1,200,300,100,shop,2,shared
a2,50,300,100,mill,2,shared
a3,10,300,100,bank,2,dedicated
whole,30,300,100,shop,20,shared
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "models.yaml").write_text(MODELS)
    (tmp_path / "demand.csv").write_text(DEMAND)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: str, demand: str = "demand.csv") -> tuple[int, str]:
    command = ["plan", "--from", demand, "--models", "models.yaml", "--seeds", "1", *arguments]
    result = CliRunner().invoke(app, command, env={"COLUMNS": "300"})
    return result.exit_code, result.output


def test_a_plan_is_shown_with_its_reasons_and_what_is_not_known(folder: Path) -> None:
    code, shown = run("--machines", "h100-80gb")
    assert code == 0, shown
    assert "same base as 2 others" in shown
    assert "contract: dedicated" in shown
    assert "simulated, it meets all objectives" in shown
    assert "one fleet a model" in shown
    assert "costs are computed" in shown


def test_a_plan_as_json_is_whole(folder: Path) -> None:
    code, shown = run("--machines", "h100-80gb", "--json")
    assert code == 0, shown
    answer = json.loads(shown)
    assert answer["devices"]["planned"] == sum(len(pool["places"]) for pool in answer["pools"])
    assert {one["model"] for one in answer["models"]} == {"a1", "a2", "a3", "a4", "whole"}


def test_a_plan_is_written_as_a_fleet_that_check_passes_and_as_a_page(folder: Path) -> None:
    code, shown = run("--machines", "h100-80gb", "--write", "planned.yaml", "--html", "plan.html")
    assert code == 0, shown
    fleet = read_fleet(folder / "planned.yaml", keys_needed=False).fleet
    assert set(fleet.adapters) == {"a1", "a2", "a3", "a4"}
    assert "set the keys" in shown
    assert (folder / "plan.html").read_text().startswith("<!doctype html>")


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("", "models.yaml: `a1` cannot be written: name a folder or an address as its `source`"),
        ("example/a", "`a1` cannot be written: its source `example/a` is no address; write hf://example/a"),
        (
            "nothing",
            "`a1` cannot be written: its source `nothing` is neither a folder that exists nor a hub id",
        ),
    ],
)
def test_a_source_that_cannot_be_written_is_named_before_the_plan_is_made(
    folder: Path, source: str, said: str
) -> None:
    (folder / "models.yaml").write_text(MODELS.replace("https://example.com/a.tar.gz", source))
    code, shown = run("--machines", "h100-80gb", "--write", "planned.yaml")
    assert code == 1
    assert said in shown
    assert not (folder / "planned.yaml").exists()
    assert run("--machines", "h100-80gb")[0] == 0


@pytest.mark.parametrize("option", ["--write", "--html"])
def test_a_file_that_cannot_be_written_is_named_before_the_plan_is_made(folder: Path, option: str) -> None:
    code, shown = run("--machines", "h100-80gb", option, "gone/plan")
    assert code == 1
    assert f"gone/plan: there is no folder {folder}/gone; make it first" in shown


def test_folders_that_are_not_on_this_machine_are_written_and_said(folder: Path) -> None:
    (folder / "models.yaml").write_text(MODELS.replace("https://example.com/a.tar.gz", "./lora"))
    code, shown = run("--machines", "h100-80gb", "--write", "planned.yaml")
    assert code == 0
    assert f"`tenantry check` on this machine: there is no folder {folder}/lora" in shown
    assert (
        read_fleet(folder / "planned.yaml", keys_needed=False).fleet.adapters["a1"].source == f"{folder}/lora"
    )


def test_a_device_that_is_too_small_for_a_model_is_an_error(folder: Path) -> None:
    (folder / "machines.yaml").write_text("machines: [{device: l4, devices: 1}]")
    (folder / "models.yaml").write_text(MODELS.replace("8e9", "80e9"))
    code, shown = run("--machines", "machines.yaml")
    assert code == 1
    assert "needs 1" in shown
    assert "largest device given is l4" in shown


def test_contradictory_isolation_is_an_error(folder: Path) -> None:
    (folder / "demand.csv").write_text(DEMAND.replace("a1,200,300,100,shop", "a1,200,300,100,bank"))
    code, shown = run("--machines", "h100-80gb")
    assert code == 1
    assert "tenant `bank` is dedicated with `a3` and not with `a1`" in shown


def test_without_models_it_says_what_to_name(folder: Path) -> None:
    command = ["plan", "--from", "demand.csv", "--machines", "h100-80gb"]
    result = CliRunner().invoke(app, command, env={"COLUMNS": "300"})
    assert result.exit_code == 1
    assert "no model is described: name a fleet file, or a table of models with --models" in result.output


def test_a_strategy_that_a_plan_cannot_do_without_is_wrong_use(folder: Path) -> None:
    code, shown = run("--machines", "h100-80gb", "--without", "multi-lora")
    assert code == 2
    assert "cannot be left out; there are mig, model-mesh, swap" in shown


def test_a_plan_that_misses_an_objective_ends_with_one_and_names_who_misses(folder: Path) -> None:
    (folder / "machines.yaml").write_text("machines: [{device: l40s, devices: 2}]")
    (folder / "demand.csv").write_text(
        DEMAND.replace("a1,200,", "a1,800000,").replace("shop,2,", "shop,0.3,")
    )
    code, shown = run("--machines", "machines.yaml")
    assert code == 1
    assert "does not meet all objectives" in shown


@pytest.fixture
def served(folder: Path) -> Path:
    """A fleet with a ledger: of what it declares, of an adapter that was added, and of one that is gone."""
    base = saved(folder / "base", base_tensors(), max_position_embeddings=4096)
    pool = {"base_models": ["base"], "tenants": ["alpha"], "slo": {"ttft_s": 2}}
    data: dict[str, Any] = {
        "base_models": {"base": {"source": str(base), "max_loras": 2}},
        "tenants": {"alpha": {"api_keys": [{"sha256": "a" * 64}], "models": {"raw": "base"}}},
        "pools": {"shared": pool},
        "gateway": {"operator_keys": [{"sha256": "c" * 64}]},
        "state": {"folder": str(folder / "state")},
    }
    (folder / "fleet.yaml").write_text(yaml.safe_dump(data))
    url = read_fleet(folder / "fleet.yaml", keys_needed=False).fleet.state.database_url
    with_adapters(url, AdapterKey("alpha", "tone"))
    ledger = UsageStore(url)
    ledger.open()
    raw = record("alpha", "raw", adapter=False, prompt_tokens=200)
    tone, gone = (
        replace(raw, target=Target("alpha", name, name, "base", "shared", 1)) for name in ("tone", "gone")
    )
    ledger.write(rows(raw, raw, tone, gone))
    ledger.close()
    return folder


def test_adapters_that_were_added_at_run_time_are_planned_and_not_written(served: Path) -> None:
    command = ["plan", "--machines", "l4", "--seeds", "1", "--write", "planned.yaml", "--json"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    answer = json.loads(result.output)
    assert {one["model"]: one["served"] for one in answer["models"]} == {
        "base": "whole, a device of its own",
        "alpha/tone": "adapter of base",
    }
    assert {one["objective_s"] for one in answer["models"]} == {2.0}
    said = "left out, since nothing is known of them: alpha/gone; --models can describe them"
    assert said in answer["not_known"]
    fleet = read_fleet(served / "planned.yaml", keys_needed=False).fleet
    assert (fleet.adapters, fleet.base_models["base"].max_loras) == ({}, 1)
    assert fleet.pools["base"].slo.ttft_s == 2.0


def test_a_model_whose_files_are_not_here_is_named_with_what_to_do(served: Path) -> None:
    shutil.rmtree(served / "base")
    result = CliRunner().invoke(app, ["plan", "--machines", "l4"], env={"COLUMNS": "300"})
    assert result.exit_code == 1
    assert "base cannot be planned: " in result.output
    assert "or describe it in a table (--models)" in result.output
