"""What does the check of switches say, and what without a GPU?"""

from __future__ import annotations

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from benchmarks.switches import __main__ as command
from benchmarks.switches.report import PLAIN, Memory, Report, Slots, Switch, render


def report() -> Report:
    """One with something of everything."""
    made = Report("2 CPU cores", turns=50, ways_of_turns={"put": 48, "reload": 2})
    made.switches = [Switch("put", seconds, seconds + 0.1) for seconds in (0.5, 9.0, 0.7)]
    made.switches += [Switch("cold", 39.0, 40.0), Switch(PLAIN, 60.0, 60.0)]
    made.memory = [Memory("before", 2**30, 2**31)]
    made.slots = [Slots("one@1", 0.2, 0.3, 0.1)]
    made.tokens_per_s = {"plain vllm serve": 123.4}
    made.not_possible = {"wake1": "vLLM sleeps on GPUs alone"}
    return made


def test_each_way_has_its_medians_beside_a_cold_start() -> None:
    ready_s, first_token_s, times = report().medians()["put"]
    assert (ready_s, times) == (0.7, 3) and first_token_s == pytest.approx(0.8)
    console = Console(width=140, record=True)
    console.print(render(report()))
    shown = console.export_text()
    for text in ("0.80", "2%", "vLLM sleeps on GPUs alone", "1024", "48 put, 2 reload", "123 tokens/s"):
        assert text in shown


def test_a_wrong_answer_and_a_failed_check_are_complained_of() -> None:
    made = report()
    assert made.complaints() == []
    made.wrong_answers, made.failed_checks = 1, 2
    assert made.complaints() == ["1 answers of 50 turns were wrong", "2 checks after a switch failed"]


def test_without_a_gpu_it_says_so_and_ends_with_a_status_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "device", lambda: "")
    app = typer.Typer()
    app.command()(command.main)
    ended = CliRunner().invoke(app, [])
    assert ended.exit_code == command.NO_GPU == 3
    assert "No GPU here" in ended.output


def test_slow_ways_are_taken_less_often() -> None:
    plans = [command.Plan(frozenset(command.Part), 50, rounds, 1.0, on_cpu=True) for rounds in (1, 6)]
    assert [plan.slow_rounds for plan in plans] == [1, 2]
