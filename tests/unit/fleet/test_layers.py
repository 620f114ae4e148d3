"""Mistakes of every kind in one file: all are told, or that more may follow is; none is made up."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from fleet import FleetError, read_fleet
from tenantry.app import app
from tests.unit.fleet.files import adapter_folder, declared, digest, write

Data = dict[str, Any]


def put(path: str, value: Any) -> Callable[[Data], None]:
    def change(data: Data) -> None:
        *parents, last = path.split("/")
        section: Any = data
        for key in parents:
            section = section[int(key) if isinstance(section, list) else key]
        section[int(last) if isinstance(section, list) else last] = value

    return change


MISTAKES: dict[str, tuple[Callable[[Data], None], str]] = {
    "unknown key": (put("adapters/a-support/rnk", 8), "adapters.a-support.rnk"),
    "wrong type": (put("tenants/beta/weight", "heavy"), "tenants.beta.weight"),
    "out of bounds": (put("pools/whole/replicas", 0), "pools.whole.replicas"),
    "wrong setting": (put("gateway/log_requests", "x"), "gateway.log_requests"),
    "bad name": (put("base_models/Not Good", {"source": "org/x"}), "base_models.Not Good"),
    "unknown base model": (put("adapters/b-support/base_model", "bass"), "adapters.b-support.base_model"),
    "unknown base model of a pool": (put("pools/alone/base_models/0", "bas"), "pools.alone.base_models[0]"),
    "unknown tenant": (put("pools/shared/tenants/0", "alfa"), "pools.shared.tenants[0]"),
    "unknown model": (put("tenants/gamma/models/more", "c-supprt"), "tenants.gamma.models.more"),
    "no default": (put("tenants/alpha/default_model", "no"), "tenants.alpha.default_model"),
    "devices": (put("pools/alone/devices", [0, 1]), "pools.alone.devices"),
    "host memory": (put("base_models/base/max_cpu_loras", 1), "base_models.base.max_cpu_loras"),
    "key not set": (put("tenants/beta/api_keys/0", {"env": "NOT_SET"}), "tenants.beta.api_keys[0]"),
    "key twice": (
        put("tenants/gamma/api_keys/0", {"sha256": digest("operator")}),
        "gateway.operator_keys[0]",
    ),
    "source": (put("base_models/plain/source", "plain"), "base_models.plain.source"),
    "no folder": (put("adapters/c-support/source", "./none"), "adapters.c-support.source"),
    "broken adapter": (put("adapters/a-support/source", "./dora"), "adapters.a-support.source"),
    "state": (put("state", {"database": "mysql://x"}), "state.database"),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in "abc":
        adapter_folder(tmp_path / name)
    adapter_folder(tmp_path / "dora", use_dora=True)
    return tmp_path


def checked(folder: Path, *mistakes: str) -> tuple[set[str], bool]:
    """The places of all problems of a file with these mistakes, and whether more may follow."""
    data = declared()
    for mistake in mistakes:
        MISTAKES[mistake][0](data)
    try:
        read_fleet(write(folder, data), env={}, files=True)
    except FleetError as error:
        assert all(problem.line is not None for problem in error.problems)
        return {problem.path for problem in error.problems}, error.may_be_more
    return set(), False


@pytest.mark.parametrize("mistake", MISTAKES)
def test_one_mistake_is_one_problem(folder: Path, mistake: str) -> None:
    assert checked(folder, mistake)[0] == {MISTAKES[mistake][1]}


@pytest.mark.parametrize("one", MISTAKES)
def test_two_mistakes_are_two_problems_or_more_may_follow_and_no_third_is_made_up(
    folder: Path, one: str
) -> None:
    for other in MISTAKES:
        places = {MISTAKES[one][1], MISTAKES[other][1]}
        found, may_be_more = checked(folder, one, other)
        assert found <= places, (one, other)
        assert found == places or may_be_more, (one, other)


def test_mistakes_of_all_kinds_are_told_at_once(folder: Path) -> None:
    kinds = ["wrong type", "unknown base model", "unknown model", "devices", "source", "no folder", "state"]
    found, may_be_more = checked(folder, *kinds)
    assert found == {MISTAKES[kind][1] for kind in kinds}
    assert may_be_more


def test_names_and_sources_of_a_part_that_is_refused_are_looked_at(folder: Path) -> None:
    data = declared()
    data["adapters"]["a-support"] = {"source": "./none", "base_model": "bass", "rnk": 8}
    data["tenants"]["beta"] |= {"weight": "heavy", "models": {"support": "b-supprt"}}
    data["pools"]["alone"] = {"base_models": ["bas"], "tenants": ["gama"], "replicas": 0}
    with pytest.raises(FleetError) as error:
        read_fleet(write(folder, data), env={}, files=True)
    assert {problem.path for problem in error.value.problems} == {
        "adapters.a-support.source",
        "adapters.a-support.base_model",
        "adapters.a-support.rnk",
        "tenants.beta.weight",
        "tenants.beta.models.support",
        "pools.alone.base_models[0]",
        "pools.alone.tenants[0]",
        "pools.alone.replicas",
    }


VALUES: list[Any] = [None, [], {}, "x", 7]
UNREADABLE = [
    (section, value)
    for section in ("base_models", "adapters", "tenants", "pools")
    for value in VALUES
    if section not in ("adapters", "tenants") or value != {}  # a fleet may begin without
]


@pytest.mark.parametrize(("section", "value"), UNREADABLE)
def test_a_section_that_cannot_be_read_hides_nothing_elsewhere_and_makes_nothing_up(
    folder: Path, section: str, value: Any
) -> None:
    data = declared() | {section: value, "gateway": {"nonsense": 1}}
    with pytest.raises(FleetError) as error:
        read_fleet(write(folder, data), env={}, files=True)
    assert {problem.path for problem in error.value.problems} == {section, "gateway.nonsense"}
    assert error.value.may_be_more


@pytest.mark.parametrize("section", ["base_models", "tenants", "pools"])
def test_beside_a_section_that_is_missing_the_rest_is_checked(folder: Path, section: str) -> None:
    data = declared()
    del data[section]
    data["adapters"]["c-support"]["source"] = "./none"
    with pytest.raises(FleetError) as error:
        read_fleet(write(folder, data), env={}, files=True)
    assert [problem.path for problem in error.value.problems] == ["", "adapters.c-support.source"]
    assert f"`{section}` is missing" in error.value.problems[0].message


@pytest.mark.parametrize(
    "text",
    ["a: [", "7", "a: 1\na: 2", "x: &x {<<: 1}", "\ud800".encode("utf-8", "surrogatepass"), b"\xff"],
)
def test_a_file_that_cannot_be_read_to_its_end_may_hold_more(tmp_path: Path, text: str | bytes) -> None:
    path = tmp_path / "fleet.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(FleetError) as error:
        read_fleet(path, env={})
    assert error.value.may_be_more


def test_a_file_that_is_not_there_promises_nothing(tmp_path: Path) -> None:
    with pytest.raises(FleetError) as error:
        read_fleet(tmp_path / "none.yaml", env={})
    assert not error.value.may_be_more


def test_a_file_that_was_checked_whole_does_not_promise_more(folder: Path) -> None:
    found, may_be_more = checked(folder, "devices", "key not set", "no default")
    assert len(found) == 3 and not may_be_more


# -- paths that nobody expects ------------------------------------------------------------------------------

LOOP, DENIED = "./loop", "./denied"
WEIRD = [
    "~nouser",
    "~nouser/x",
    "~",
    "~/",
    "./" + "x" * 4000,
    "./" + "/".join(["y" * 200] * 20),
    "/" + "x" * 300 + "/y",
    "/dev/null",
    "/dev/zero",
    "/proc/self/mem",
    LOOP,
    f"{LOOP}/x",
    DENIED,
    f"{DENIED}/x",
    "./fleet.yaml",
    "./fleet.yaml/x",
    "./a\0b",
    "./\ud83d\ude00",
    "./ ",
    ".",
    "..",
    "/",
    "./a\nb",
    "./[red]",
    "./${BYTES}",
    "${NOT_SET}",
    "https://[::1",
    "https://x:y:z",
    "s3://",
    "hf://../..",
    "://",
]
PLACES = {
    "base_models/base/source": "base_models.base.source",
    "adapters/a-support/source": "adapters.a-support.source",
    "state": "state.folder",
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("text", WEIRD, ids=lambda text: ascii(text)[:24])
def test_no_path_in_a_fleet_file_breaks_check(
    folder: Path, monkeypatch: pytest.MonkeyPatch, place: str, text: str
) -> None:
    """It is taken, or there is a problem on its line."""
    (folder / "loop").symlink_to("loop")
    (folder / "denied").mkdir()
    real = os.stat

    def denying(path: Any, *args: Any, **options: Any) -> os.stat_result:
        if "denied" in str(path):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *args, **options)

    monkeypatch.setattr(os, "stat", denying)
    monkeypatch.setenv("BYTES", "\udcff\udcfe")
    monkeypatch.delenv("NOT_SET", raising=False)
    data = declared()
    put(place, {"folder": text} if place == "state" else text)(data)
    fleet = write(folder, yaml.safe_dump(data, sort_keys=False, width=10_000))
    result = CliRunner().invoke(app, ["check", str(fleet)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    assert result.exit_code in (0, 1)
    lines = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert bool(lines) == (result.exit_code == 1)
    assert all(f": {PLACES[place]}: " in line and line.startswith(f"error: {fleet}:") for line in lines)
    assert all(len(line) < 1000 for line in lines)


@pytest.mark.parametrize("text", ["~nouser", "./" + "x" * 4000, LOOP, DENIED], ids=lambda text: text[:12])
def test_a_path_that_leads_nowhere_is_refused_with_the_reason(
    folder: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    test_no_path_in_a_fleet_file_breaks_check(folder, monkeypatch, "adapters/a-support/source", text)
    result = CliRunner().invoke(app, ["check", str(folder / "fleet.yaml")])
    assert result.exit_code == 1
    reasons = ("no such user", "too long", "symbolic links", "Permission denied")
    assert any(reason in result.stderr for reason in reasons), result.stderr
