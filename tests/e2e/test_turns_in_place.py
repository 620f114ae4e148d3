"""Turns in place on real engines: answers, prefix cache, failures in the middle, adapters, memory.

TENANTRY_TURNS sets the number of turns between the two fine-tunes (20).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.serving import DEMO, ONE_THREAD, ROOT, answers
from tests.whole_models import of_another_shape

pytestmark = pytest.mark.engine
WITHIN_S = 900.0
QUESTION = "What are your opening hours?"
Run = Callable[[str], dict[str, Any]]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Runs a scenario of `tests.e2e.turning` with two fine-tunes of one shape, and a Qwen2."""
    folder = tmp_path_factory.mktemp("turning")
    sources = {
        "support": DEMO / "whole/acme-support",
        "sales": DEMO / "whole/acme-sales",
        "qwen": of_another_shape(DEMO, folder / "qwen"),
    }

    def scenario(name: str) -> dict[str, Any]:
        slots = {"max_loras": 2, "max_lora_rank": 8} if name == "adapters" else {}
        served = {"dtype": "float32", "max_model_len": 512, "kv_cache_gib": 0.1, **slots}
        flags = {"vllm_args": ["--enforce-eager"]}
        fleet = folder / f"{name}.yaml"
        models = {model: {"source": str(source), **served, **flags} for model, source in sources.items()}
        tenant = {"api_keys": [{"sha256": "0" * 64}], "models": {model: model for model in sources}}
        pool = {"strategy": "model-mesh", "base_models": list(sources), "tenants": ["acme"], "awake": 1}
        fleet.write_text(
            yaml.safe_dump({"base_models": models, "tenants": {"acme": tenant}, "pools": {"mesh": pool}})
        )
        environment = {**os.environ, **ONE_THREAD, "PYTHONPATH": str(ROOT), "TENANTRY_DEMO_FOLDER": str(DEMO)}
        command = [sys.executable, "-m", "tests.e2e.turning", name, str(fleet)]
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=WITHIN_S
        )
        (result,) = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")] or [done.stderr]
        assert result.startswith("RESULT "), result[-5000:]
        said: dict[str, Any] = json.loads(result.removeprefix("RESULT "))
        assert said["left"] == [], "no process is left"
        return said

    return scenario


def test_models_of_one_shape_take_turns_and_answer_as_each_does_alone(run: Run) -> None:
    said, known = run("turns"), answers()
    assert said["says"] == {
        "support": known["acme-support"][QUESTION],
        "sales": known["acme-sales"][QUESTION],
    }
    assert (said["other_shape"]["way"], said["cold"]["way"]) == ("fork", "fork"), "another shape"
    assert said["reloaded"]["way"] == "reload"
    assert {how["way"] for how in said["ways"]} <= {"put", "reload"}, "whichever was cheaper"
    assert "put" in {how["way"] for how in said["ways"]}
    assert all(said["same"]), "text and log-probabilities, to the last bit"
    assert "does not exist" in said["other_name"], "the name goes with the model"
    assert said["checks_failed"] == 0
    memory = list(map(sum, said["memory_mib"]))
    assert max(memory[len(memory) // 2 :]) - memory[len(memory) // 4] < 30, memory


def test_each_model_finds_its_own_prefixes_again_and_no_others(run: Run) -> None:
    said = run("cache")
    support, sales, again = (text for _, text, _ in said["parted"])
    assert support == again != sales
    assert [cached > 0 for *_, cached in said["parted"]] == [False, False, True]
    # With one salt for both the second one answers from the first one's cache: the check can fail.
    assert said["shared"][1][2] > 0
    assert said["shared"][1][1] not in (support, sales)


def test_whatever_fails_in_the_middle_ends_the_engine_and_the_model_comes_another_way(run: Run) -> None:
    said, known = run("spoiled"), answers()
    support, sales = known["acme-support"][QUESTION], known["acme-sales"][QUESTION]
    assert said["alone"] == support
    how, text = said["mid_reload"]
    assert (how["way"], text, said["half_loaded_is_gone"]) == ("fork", sales, True)
    assert said["after_mid_reload"][1] == support
    assert (said["killed"][0]["way"], said["killed"][1]) == ("fork", sales)
    assert said["before_wrong"]["way"] == "reload"
    how, text, counted = said["wrong"]
    assert (how["way"], text) == ("fork", sales)
    assert counted >= 1


def test_adapters_go_with_their_model_and_are_checked_when_it_is_back(run: Run) -> None:
    said, known = run("adapters"), answers()
    assert said["first"] == said["again"] != known["acme-support"][QUESTION]
    assert {how["way"] for how in said["ways"]} <= {"put", "reload"}
    assert "does not exist" in said["unknown_to_the_other"] and said["host_of_the_other"] == []
    assert said["kept"] == ["globex/support@1"]
    how, counted = said["wrong"]
    assert (how["way"], counted >= 1) == ("fork", True)


def test_engines_are_forked_and_end_with_their_server_and_their_host(run: Run) -> None:
    said, answer = run("forked"), answers()["acme-support"][QUESTION]
    assert said["first"]["way"] == "fork", "the first one, too"
    assert {how["way"] for how in said["by_turns"]} == {"fork"}
    assert [*said["says"], said["core_killed"][1], said["server_killed"][1]] == [answer] * 4
    assert said["another_server"]
    assert [how["way"] for how in said["cold"]] == ["cold"] * 2, "where none can be forked"
    assert said["shared_memory"], "there was some"
    assert [path for path in said["shared_memory"] if Path(path).exists()] == []
