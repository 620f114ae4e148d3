"""The gateway's benchmark: what it asks, in which order, and how it reads."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from rich.console import Console

from benchmarks.endpoint import Target, split_url
from benchmarks.gateway import Plan, named
from benchmarks.gateway_report import FIGURES, KEEPING_UP_PER_S, render
from benchmarks.machine import cpu_model
from benchmarks.rounds import Measurement, Rounds
from benchmarks.scenarios import CHAT_32, SCENARIOS, SLOW_200, bodies
from benchmarks.tools import Endpoint, ToolError
from tests.unit.benchmarks.loads import load_result


def report_of(counts: dict[str, list[int]]) -> Rounds:
    measurements = [
        Measurement(
            scenario.name, name, load_result(ok, chunks=2 * ok), None if name == "other" else 1.0, 0.1
        )
        for scenario in SCENARIOS
        for name, rounds in counts.items()
        for ok in rounds
    ]
    return Rounds(measurements, {"gateway": 64 * 2**20})


def test_rates_are_per_counted_second() -> None:
    got = load_result(100, failed=3, chunks=200, tokens=5)
    assert (got.requests_per_s, got.chunks_per_s, got.errors) == (50.0, 100.0, 3)
    assert (got.done_requests_per_s, got.done_tokens_per_s) == (50.0, 250.0)


def test_the_table_shows_every_figure_and_every_target() -> None:
    table = render(
        report_of({"plain proxy": [60, 70], "gateway": [50, 50], "direct": [90, 100], "other": [1, 1]})
    )
    wide = Console(width=200)
    with wide.capture() as capture:
        wide.print(table)
    text = capture.get()
    assert all(figure.name in text for figure in FIGURES)
    head = next(line for line in text.splitlines() if "direct" in line)
    assert [head.index(name) for name in ("direct", "plain proxy", "gateway", "other")] == sorted(
        head.index(name) for name in ("direct", "plain proxy", "gateway", "other")
    ), "the mock alone comes first"


def test_scenarios_are_chosen_by_name_and_an_unknown_name_is_told() -> None:
    assert named(["slow_200", "chat_32"]) == [SLOW_200, CHAT_32]
    with pytest.raises(ToolError, match="no such scenario: chat, slow; there are chat_1, chat_32"):
        named(["chat", "chat_32", "slow"])


def test_every_round_measures_everything_once_and_the_same_seed_gives_the_same_order() -> None:
    targets = [Target(name, Endpoint("unix:/x"), ("m",)) for name in "abc"]
    steps = list(Plan(3, 1.0, 7).steps(targets))
    assert steps == list(Plan(3, 1.0, 7).steps(targets))
    assert steps != list(Plan(3, 1.0, 8).steps(targets))
    seen = Counter((number, scenario.name, target.name) for number, scenario, target in steps)
    assert set(seen.values()) == {1}
    assert len(seen) == 3 * 3 * len(SCENARIOS)


def test_bodies_name_the_models_in_turn_and_depend_on_the_seed_alone() -> None:
    lines = [json.loads(line) for line in bodies(CHAT_32, ("x", "y"), 1).splitlines()]
    assert [line["model"] for line in lines[:3]] == ["x", "y", "x"]
    assert bodies(CHAT_32, ("x",), 1) == bodies(CHAT_32, ("x",), 1)
    assert bodies(CHAT_32, ("x",), 1) != bodies(CHAT_32, ("x",), 2)


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("http://127.0.0.1:8000", ("127.0.0.1:8000", "")),
        ("http://gateway", ("gateway:80", "")),
        ("http://gateway:4000/base/v1/", ("gateway:4000", "/base")),
        ("unix:///run/x.sock", ("unix:/run/x.sock", "")),
        ("unix:/run/x.sock", ("unix:/run/x.sock", "")),
    ],
)
def test_a_url_gives_an_address_and_a_prefix(url: str, parts: tuple[str, str]) -> None:
    assert split_url(url) == parts


@pytest.mark.parametrize("url", ["https://secure", "gateway:80", ""])
def test_an_address_the_load_generator_cannot_reach_is_refused(url: str) -> None:
    with pytest.raises(ToolError, match="write http://host:port"):
        split_url(url)


def test_the_cpu_model_is_read_and_may_be_missing() -> None:
    assert cpu_model("processor: 0\nmodel name\t: Some CPU @ 2GHz\n") == "Some CPU @ 2GHz"
    assert cpu_model("processor: 0\n")


def test_slow_streams_say_their_pace_and_what_keeping_up_is() -> None:
    assert json.loads(bodies(SLOW_200, ("m",), 1).splitlines()[0])["seed"] == 20
    assert KEEPING_UP_PER_S == 10_000
