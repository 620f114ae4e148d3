"""`tenantry plan ...`: what it shows of demand, models, machines and costs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from planning.catalogue import BY_KIND
from planning.reading.costs_file import read_costs
from planning.served import Served
from planning.values import Way
from routing.usage.store import UsageStore
from tenantry import plan_measuring
from tenantry.app import app
from tests.unit.fleet.files import changed, write
from tests.unit.planning.small_models import base_tensors, fine_tuned, saved
from tests.unit.planning.test_fitting import served
from tests.unit.routing.usage.made import record, rows

RUN = CliRunner()


def run(*words: str) -> Any:
    return RUN.invoke(app, ["plan", *(str(word) for word in words)], env={"COLUMNS": "200"})


@pytest.fixture(autouse=True)
def empty_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def trace(path: Path, hours: int = 48) -> Path:
    """One model by day, one by night, one all the time."""
    lines = ["time,model,prompt,completion"]
    for hour in range(hours):
        for minute in range(0, 60, 5):
            at = 1_769_860_800 + hour * 3600 + minute * 60
            lines.append(f"{at},{'day' if hour % 24 < 12 else 'night'},800,150")
            lines.append(f"{at},even,100,20")
    path.write_text("\n".join(lines))
    return path


def test_demand_shows_who_is_busy_when_and_who_takes_turns(tmp_path: Path) -> None:
    shown = run("demand", "--from", str(trace(tmp_path / "t.csv")))
    assert shown.exit_code == 0, shown.output
    assert "trace t.csv: 47.9 hours, 3 models" in shown.output
    assert "take turns by themselves: day and night (-1.00)" in shown.output
    assert "apart they need 1.8 times the room" in shown.output
    assert "800 / 800" in shown.output


def test_demand_in_json_has_all(tmp_path: Path) -> None:
    shown = run("demand", "--from", str(trace(tmp_path / "t.csv")), "--json")
    told = json.loads(shown.output)
    assert [one["model"] for one in told["models"]] == ["day", "night", "even"]
    assert len(told["models"][0]["hourly"]) == 48
    assert told["apart"][0]["correlation"] == pytest.approx(-1.0, abs=0.01)


def test_demand_of_a_fleet_is_that_of_its_ledger(tmp_path: Path) -> None:
    path = write(tmp_path, changed("state", {"folder": str(tmp_path / "state")}))
    store = UsageStore(f"sqlite:///{tmp_path}/state/state.db")
    store.open()
    store.write(rows(record("alpha"), record("alpha")))
    store.close()
    shown = run("demand", str(path))
    assert shown.exit_code == 0, shown.output
    assert "the ledger" in shown.output
    assert "Nobody asked for" in shown.output
    assert "had fewer than 20 requests" in shown.output


def test_a_fleet_without_a_ledger_says_so(tmp_path: Path) -> None:
    path = write(tmp_path, changed("state", {"folder": str(tmp_path / "state")}))
    shown = run("demand", str(path))
    assert shown.exit_code == 1
    assert "the ledger: it cannot be opened: has the fleet served on this machine" in shown.output
    assert not (tmp_path / "state").exists()


def test_nothing_named_and_bad_files_are_one_sentence_each(tmp_path: Path) -> None:
    nothing = run("demand")
    assert nothing.exit_code == 1
    assert "name a fleet file" in nothing.output
    (tmp_path / "bad.csv").write_text("a,b\n1,2\n")
    bad = run("demand", "--from", "bad.csv")
    assert bad.exit_code == 1
    assert "bad.csv: it is none of what can be read" in bad.output
    assert run("demand", "--from", "bad.csv", "--over", "soon").exit_code == 2


def test_a_name_cannot_steer_the_terminal(tmp_path: Path) -> None:
    path = tmp_path / "t.yaml"
    path.write_text('- {model: "a\\e[31mb", requests/day: 5, in: 10, out: 10}\n')
    assert "\x1b" not in run("demand", "--from", str(path)).output


def test_two_thousand_models_are_shown_by_the_largest(tmp_path: Path) -> None:
    lines = ["model,requests/day,in,out", *(f"m{n},{n},100,20" for n in range(1, 2001))]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    shown = run("demand", "--from", "t.csv")
    assert "m2000" in shown.output
    assert "and 1960 smaller ones" in shown.output


def test_a_whole_model_of_low_rank_is_shown_as_an_adapter_and_written(tmp_path: Path) -> None:
    base, tuned = (
        saved(tmp_path / "base", base_tensors()),
        saved(tmp_path / "t", fine_tuned(base_tensors(), 3)),
    )
    shown = run("adapters", str(tuned), "--base", str(base), "--write", str(tmp_path / "out"))
    assert shown.exit_code == 0, shown.output
    assert "An adapter of rank 3: 4 matrices differ" in shown.output
    assert "and checked. Compare both on your own prompts" in shown.output.replace("\n  ", " ")
    again = run("adapters", str(tuned), "--base", str(base), "--write", str(tmp_path / "out"))
    assert again.exit_code == 1
    assert "is there already" in again.output


def test_a_model_that_is_no_adapter_ends_with_1_and_the_reason(tmp_path: Path) -> None:
    base = saved(tmp_path / "base", base_tensors())
    other = base_tensors()
    other["model.norm.weight"] = other["model.norm.weight"] * np.float32(2)
    path = str(saved(tmp_path / "o", other))
    shown = run("adapters", path, "--base", str(base))
    assert shown.exit_code == 1
    assert "Not an adapter: 'model.norm.weight' differs by 100.00% of its size" in shown.output
    told = run("adapters", path, "--base", str(base), "--json")
    assert told.exit_code == 1
    assert json.loads(told.stdout)["is_adapter"] is False


def test_calibrating_writes_costs_and_keeps_those_of_other_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def measured(*_: Any, **__: Any) -> Served:
        return served(3.0, adapters=3)

    monkeypatch.setattr(plan_measuring, "calibrate", measured)
    monkeypatch.setenv("TENANTRY_API_KEY", "key")
    monkeypatch.delenv("TENANTRY_ADMIN_KEY", raising=False)
    words = ("--adapter", "a1", "--adapter", "a2", "--device", "l4")
    for model in ("base", "base=other", "base"):
        shown = run("calibrate", model, *words)
        assert shown.exit_code == 0, shown.output
        assert "measured" in shown.output
    costs = read_costs(tmp_path / "costs.json")
    assert sorted(one.cost.model for one in costs) == ["base", "other"]
    assert costs[0].cost.base_s.value == pytest.approx(0.02, rel=0.2)
    assert costs[0].device == BY_KIND["l4"]


def test_calibrating_without_a_key_or_for_an_unknown_device_sends_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("TENANTRY_API_KEY", raising=False)
    shown = run("calibrate", "base")
    assert shown.exit_code == 2
    assert "TENANTRY_API_KEY is not set" in shown.output
    monkeypatch.setenv("TENANTRY_API_KEY", "key")
    wrong = run("calibrate", "base", "--device", "h300")
    assert wrong.exit_code == 1
    assert "no device that is known" in wrong.output
    (tmp_path / "costs.json").write_text("{")
    broken = run("calibrate", "base", "--device", "cpu")
    assert broken.exit_code == 1
    assert "is no file of costs" in broken.output


def test_switches_are_the_median_of_hosts() -> None:
    entries = [
        {"model": "a", "took_s": {"put": 1.0, "cold": 40.0}},
        {"model": "a", "took_s": {"put": 3.0, "elsewhere": 1.0}},
        {"model": "b", "took_s": {"put": 9.0}},
    ]
    found = plan_measuring.switches_of(entries, "a")
    assert {way: figure.value for way, figure in found.items()} == {Way.PUT: 2.0, Way.COLD: 40.0}
