"""The command line: what it prints, how it exits, and that it shows no key."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from fleet import read_fleet
from fleet.api_keys import KEY_PREFIX
from fleet.key_hash import hash_key
from fleet.schema import json_schema
from routing.state import StateStore, TurnsStore
from tenantry import bundle
from tenantry.app import app
from tests.unit.fleet.files import adapter_folder, changed, declared, digest, write

RUN = CliRunner()
COMMANDS = (
    "check", "who-shares", "build", "new-key", "scheduler", "replicas", "drain", "resume", "top", "usage",
    "adapters", "keys", "schema", "metrics",
)  # fmt: skip


@pytest.fixture
def fleet(tmp_path: Path) -> Path:
    """A good fleet file, with its folders."""
    for name in "abc":
        adapter_folder(tmp_path / name)
    return write(tmp_path, declared())


def test_help_names_every_command() -> None:
    result = RUN.invoke(app, ["--help"])
    assert result.exit_code == 0
    assert all(command in result.stdout for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str) -> None:
    assert RUN.invoke(app, [command, "--help"]).exit_code == 0


@pytest.mark.parametrize("arguments", [["nonsense"], ["check", "--nonsense"], ["build", "--platform", "tpu"]])
def test_wrong_use_exits_with_2(arguments: list[str]) -> None:
    assert RUN.invoke(app, arguments).exit_code == 2


def test_check_shows_a_good_fleet_in_tables(fleet: Path) -> None:
    result = RUN.invoke(app, ["check", str(fleet)])
    assert result.exit_code == 0, result.stderr
    for title in ("Base models", "Adapters", "Tenants", "Models of the tenants", "Pools"):
        assert title in result.stdout
    for word in ("alpha", "a-support", "dedicated", "multi-lora"):
        assert word in result.stdout
    assert digest("alpha") not in result.stdout


def rows(output: str) -> list[list[str]]:
    """Cells of every line of every table."""
    lines = [line for line in output.splitlines() if "│" in line]
    return [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines]


def test_check_shows_prices_budgets_and_fallbacks_where_there_are_any(fleet: Path) -> None:
    assert "Prices" not in RUN.invoke(app, ["check", str(fleet)]).stdout
    price = {"input": 0.2, "cached_input": 0.05, "output": 0.6, "slot_hour": 1}
    data = changed("prices", {"currency": "EUR", "models": {"base": price, "plain": price}})
    data["tenants"]["alpha"] |= {
        "models": {"support": {"model": "a-support", "fallback": "raw"}, "raw": "plain"},
        "prices": {"factor": 0.5, "models": {"plain": {"input": 1, "output": 2}}},
        "budget": {"monthly_cost": 250.5},
    }
    write(fleet.parent, data)
    result = RUN.invoke(app, ["check", str(fleet)])
    assert "Prices in EUR" in result.stdout, result.stderr
    shown = rows(result.stdout)
    assert ["base", "all", "0.2", "0.05", "0.6", "1", "0"] in shown
    assert ["plain", "alpha", "1", "1", "2", "0", "0"] in shown
    assert ["all others", "alpha", *["x 0.5"] * 5] in shown
    assert ["alpha", "-", "-", "-", "250.5 EUR"] in shown
    assert ["alpha", "support", "a-support, else raw", "base", "shared"] in shown


def test_check_shows_caps_and_objectives_where_there_are_any(fleet: Path) -> None:
    plain = RUN.invoke(app, ["check", str(fleet)]).stdout
    assert "Rates and tokens" not in plain
    assert "Objectives" not in plain
    data = changed("adapters/c-support/max_concurrency", 32)
    data["tenants"]["gamma"]["caps"] = {"requests_per_minute": 60, "max_queued_tokens": 9000}
    data["tenants"]["gamma"]["budget"] = {"monthly_tokens": 5000000}
    data["pools"]["alone"] |= {"slo": {"ttft_s": 2}, "hedge_after_s": 0.5, "replicas": 2}
    data["gateway"]["scheduler"] = {"slot_wait_s": 7, "max_queued_mib": 64}
    write(fleet.parent, data)
    shown = rows(RUN.invoke(app, ["check", str(fleet)]).stdout)
    assert ["gamma", "60", "-", "9000", "5000000 tokens"] in shown
    assert ["alone", "2 s", "-", "0.5 s"] in shown
    assert ["a slot is drained after", "7 s"] in shown
    assert ["waiting at most", "10000 requests, 64 MiB"] in shown
    assert any(row[0] == "c-support" and row[-1] == "32" for row in shown)
    assert any(row[0] == "a-support" and row[-1] == "-" for row in shown)


def test_base_models_that_take_turns_are_shown_with_what_they_weigh(tmp_path: Path) -> None:
    for name in "abc":
        adapter_folder(tmp_path / name)
    data = declared()
    data["base_models"] |= {"odd": {"source": "org/odd"}, "even": {"source": "./even"}}
    (tmp_path / "even").mkdir()
    (tmp_path / "even/config.json").write_text("{}")
    with (tmp_path / "even/model.safetensors").open("wb") as file:
        file.truncate(3 * 2**29)
    data["tenants"]["alpha"]["models"] |= {"odd": "odd"}
    data["tenants"]["delta"] = {"api_keys": [{"sha256": digest("delta")}], "models": {"even": "even"}}
    residency = {"preload": ["odd"], "starvation_limit_s": 12}
    data["pools"]["mesh"] = {
        "strategy": "model-mesh",
        "base_models": ["odd", "even"],
        "tenants": ["alpha", "delta"],
        "residency": residency,
    }
    path = write(tmp_path, data)
    result = RUN.invoke(app, ["check", str(path), "--no-files"], env={"COLUMNS": "200"})
    assert "Base models by turns" in result.stdout
    weighed, wait = "odd (preload), even (1.50 GiB)", "12 s, one drain and one switch"
    assert ["mesh", "1", "as many as fit", weighed, wait] in rows(result.stdout)
    result = RUN.invoke(app, ["who-shares", str(path)], env={"COLUMNS": "200"})
    assert ["mesh", "mesh-0.odd", "odd", "- (by turns with 1 more)", "alpha (alone)"] in rows(result.stdout)
    assert ["alpha", "shared", "shared, whole, mesh", "beta, delta (by turns)"] in rows(result.stdout)
    assert ["delta", "shared", "mesh", "alpha (by turns)"] in rows(result.stdout)


def mesh_that_has_run(folder: Path, objective_s: float, **pool: Any) -> Path:
    """A fleet file whose models have taken turns: `odd` comes in 8 s or 2 s, `even` in half a second."""
    for name in "abc":
        adapter_folder(folder / name)
    data = declared()
    data["base_models"] |= {"odd": {"source": "org/odd"}, "even": {"source": "org/even"}}
    data["tenants"]["alpha"]["models"] |= {"odd": "odd", "even": "even"}
    data["pools"]["mesh"] = {"strategy": "model-mesh", "base_models": ["odd", "even"], "tenants": ["alpha"]}
    data["pools"]["mesh"] |= {"slo": {"ttft_s": objective_s}, **pool}
    path = write(folder, data)
    kept = StateStore(read_fleet(path, keys_needed=False).fleet.state.database_url)
    (folder / ".tenantry").mkdir(exist_ok=True)
    kept.open()
    turns = TurnsStore(kept)
    turns.keep_cost("mesh-0", "odd", None, 8.0, "cold")
    turns.keep_cost("mesh-0", "odd", "even", 2.0, "fork")
    turns.keep_cost("mesh-0", "even", "odd", 0.5, "put")
    kept.close()
    return path


def test_what_a_switch_took_here_is_shown(tmp_path: Path) -> None:
    path = mesh_that_has_run(tmp_path, 4.0)
    result = RUN.invoke(app, ["check", str(path)], env={"COLUMNS": "200"})
    wait = "30 s, one drain and one switch"
    assert ["mesh", "1", "as many as fit", "odd (comes in 2 s to 8 s), even (comes in 500 ms)", wait] in rows(
        result.stdout
    )
    assert "slo.ttft_s" not in result.stderr


def test_an_objective_shorter_than_the_quickest_switch_is_told(tmp_path: Path) -> None:
    path = mesh_that_has_run(tmp_path, 1.0)
    result = RUN.invoke(app, ["check", str(path)], env={"COLUMNS": "200"})
    said = "pools.mesh.slo.ttft_s: no switch to `odd` took less than 2 s here, and the objective is 1 s"
    assert result.exit_code == 0
    assert said in result.stderr and ": pools.mesh" in result.stderr.partition("fleet.yaml:")[2]
    told = json.loads(RUN.invoke(app, ["check", str(path), "--json"]).stdout)
    assert [warning["path"] for warning in told["warnings"]] == ["pools.mesh.slo.ttft_s"]
    assert "slo.ttft_s" not in RUN.invoke(app, ["check", str(path), "--no-files"]).stderr


@pytest.mark.parametrize("pool", [{"awake": 2}, {"awake": 2, "residency": {"pinned": ["odd"]}}])
def test_where_all_stay_awake_no_switch_is_waited_for(tmp_path: Path, pool: dict[str, Any]) -> None:
    path = mesh_that_has_run(tmp_path, 1.0, **pool)
    assert "slo.ttft_s" not in RUN.invoke(app, ["check", str(path)]).stderr


def test_check_prints_every_problem_with_its_line_and_exits_with_1(fleet: Path) -> None:
    data = changed("pools/shared/replicas", 0)
    data["adapters"]["a-support"]["base_model"] = "bass"
    write(fleet.parent, data)
    result = RUN.invoke(app, ["check", str(fleet)])
    assert result.exit_code == 1
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert lines[-2] == f"{fleet}: 2 problems"
    assert lines[-1] == "there may be more problems behind these; check again once they are fixed"
    assert len(lines) == 4
    assert all(re.match(rf"error: {re.escape(str(fleet))}:\d+: \w", line) for line in lines[:2])


def test_check_looks_into_the_folders_unless_told_not_to(tmp_path: Path) -> None:
    fleet = write(tmp_path, declared())
    result = RUN.invoke(app, ["check", str(fleet)])
    assert result.exit_code == 1
    assert result.stderr.count("there is no folder") == 3
    assert RUN.invoke(app, ["check", str(fleet), "--no-files"]).exit_code == 0


def test_only_check_asks_for_keys_and_only_unless_told_not_to(
    fleet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle, "build", lambda *_, **__: "x:1")
    write(fleet.parent, changed("tenants/beta/api_keys", [{"env": "NOT_SET"}]))
    result = RUN.invoke(app, ["check", str(fleet)])
    assert result.exit_code == 1
    assert "the environment variable NOT_SET is not set" in result.stderr
    assert RUN.invoke(app, ["check", str(fleet), "--no-keys"]).exit_code == 0
    assert RUN.invoke(app, ["who-shares", str(fleet)]).exit_code == 0
    assert RUN.invoke(app, ["build", "--fleet", str(fleet)]).exit_code == 0


def test_check_shows_warnings_and_goes_on(fleet: Path) -> None:
    write(fleet.parent, changed("base_models/idle", {"source": "org/idle"}))
    result = RUN.invoke(app, ["check", str(fleet)])
    assert result.exit_code == 0
    assert "warning: " in result.stderr
    assert "no pool holds this base model" in result.stderr


def test_check_of_a_file_that_is_not_there_exits_with_1(tmp_path: Path) -> None:
    result = RUN.invoke(app, ["check", str(tmp_path / "none.yaml")])
    assert result.exit_code == 1
    assert "cannot be read: No such file or directory" in result.stderr


def test_check_json_is_for_scripts(fleet: Path) -> None:
    report = json.loads(RUN.invoke(app, ["check", str(fleet), "--json"]).stdout)
    assert report["ok"] is True
    assert report["problems"] == report["warnings"] == []
    assert report["may_be_more"] is False
    assert report["replicas"][0] == {
        "pool": "shared",
        "replica": "shared-0",
        "base_model": "base",
        "device": None,
        "tenants": ["alpha", "beta"],
        "beside": [],
        "by_turns_with": [],
        "is_slice": False,
        "gpu": None,
        "on_its_gpu": [],
    }
    write(fleet.parent, changed("pools/shared/tenants/0", "alfa"))
    result = RUN.invoke(app, ["check", str(fleet), "--json"])
    report = json.loads(result.stdout)
    assert result.exit_code == 1
    assert report["ok"] is False
    assert report["may_be_more"] is True, "what the name would lead to is not known"
    assert report["problems"][-1]["path"] == "pools.shared.tenants[0]"
    assert report["problems"][-1]["remedy"] == "did you mean `alpha`?"
    assert isinstance(report["problems"][-1]["line"], int)


def test_schema_prints_the_json_schema() -> None:
    result = RUN.invoke(app, ["schema"])
    assert result.exit_code == 0
    assert json.loads(result.stdout) == json_schema()


def test_new_key_prints_a_key_once_and_the_line_for_the_fleet_file(tmp_path: Path) -> None:
    result = RUN.invoke(app, ["new-key"])
    assert result.exit_code == 0
    (key,) = re.findall(rf"{KEY_PREFIX}\S+", result.stdout)
    assert f"api_keys: [{{sha256: {hash_key(key)}}}]" in result.stdout
    assert RUN.invoke(app, ["new-key"]).stdout != result.stdout


def test_who_shares_lists_replicas_and_their_tenants(fleet: Path) -> None:
    result = RUN.invoke(app, ["who-shares", str(fleet)])
    assert result.exit_code == 0
    assert ["shared", "shared-0", "base", "-", "alpha, beta"] in rows(result.stdout)
    assert ["alone", "alone-0", "base", "-", "gamma (alone)"] in rows(result.stdout)


def test_who_shares_says_for_each_tenant_whom_it_meets_and_on_which_models(fleet: Path) -> None:
    write(fleet.parent, changed("tenants/beta/models/theirs", "a-support"))
    shown = rows(RUN.invoke(app, ["who-shares", str(fleet)]).stdout)
    assert ["alpha", "shared", "shared, whole", "beta"] in shown
    assert ["beta", "shared", "shared", "alpha"] in shown
    assert ["gamma", "dedicated", "alone", "nobody"] in shown
    assert ["shared", "base", "a-support", "alpha, beta"] in shown
    assert ["alone", "base", "c-support", "gamma"] in shown
    assert ["whole", "plain", "none: the base model", "alpha"] in shown


@pytest.mark.parametrize("command", [["who-shares"], ["build", "--fleet"]])
def test_a_wrong_fleet_stops_every_command(tmp_path: Path, command: list[str]) -> None:
    fleet = write(tmp_path, changed("pools/shared/replicas", 0))
    result = RUN.invoke(app, [*command, str(fleet)])
    assert result.exit_code == 1
    assert "pools.shared.replicas" in result.stderr


def test_build_stages_a_pool_and_says_how_to_serve_it(fleet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built: dict[str, object] = {}

    def fake_build(context: Path, *, version: str | None, **variables: object) -> str:
        built.update(files=sorted(path.name for path in context.iterdir()), version=version)
        return "mine:7"

    monkeypatch.setattr(bundle, "build", fake_build)
    result = RUN.invoke(
        app, ["build", "--fleet", str(fleet), "--pool", "alone", "--name", "mine", "--version", "7"]
    )
    assert result.exit_code == 0, result.stderr
    assert "fleet.yaml" in str(built["files"])
    assert built["version"] == "7"
    assert result.stdout == "Built mine:7\n  bentoml serve mine:7\n  bentoml containerize mine:7\n"


def test_build_of_an_unknown_pool_names_the_one_that_was_meant(fleet: Path) -> None:
    result = RUN.invoke(app, ["build", "--fleet", str(fleet), "--pool", "alon"])
    assert result.exit_code == 1
    assert "no pool is called `alon`; did you mean `alone`?" in result.stderr


def test_build_needs_only_the_folders_of_its_pool(fleet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle, "build", lambda *_, **__: "x:1")
    (fleet.parent / "a" / "adapter_config.json").unlink()
    assert RUN.invoke(app, ["build", "--fleet", str(fleet), "--pool", "alone"]).exit_code == 0
    result = RUN.invoke(app, ["build", "--fleet", str(fleet)])
    assert result.exit_code == 1
    assert "adapters.a-support.source" in result.stderr


def test_a_build_that_fails_says_why(fleet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> str:
        raise bundle.BundleError("BentoML could not build [it]")

    monkeypatch.setattr(bundle, "build", fail)
    result = RUN.invoke(app, ["build", "--fleet", str(fleet)])
    assert result.exit_code == 1
    assert result.stderr == "BentoML could not build [it]\n"
