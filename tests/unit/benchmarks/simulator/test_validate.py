"""Reading measured runs, simulating one, and saying how far off that is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.simulator.measured import measured_runs, simulate
from benchmarks.simulator.validate import UNKNOWN, Pair, Validation
from simulation.costs import StepCosts
from simulation.engine import Totals
from tests.unit.simulation.fakes import RUN, simulated

LINE = (
    "rank_16_rates_0.1_0.05 _8_128_16_ 15885629 26462 3600.08 "
    "5881127 5143701 1428.78 78360.08 167853.44 21.00"
)


def test_a_measured_run_is_read_from_its_line(tmp_path: Path) -> None:
    (tmp_path / "llama31_real.txt").write_text(f"{LINE}\nrank_16_rates_0.1_0.05 _256_256_16_ \n\n")
    (run,) = measured_runs(tmp_path)
    assert (run.rank, run.rates_per_s, run.slots, run.adapters) == (16, (0.1, 0.05), 8, 128)
    assert (run.completed, run.itl_ms) == (26462, 21.0)
    assert run.ttft_s == pytest.approx(78.36008)


@pytest.mark.parametrize(
    "line", [LINE.replace("rates", "speeds"), LINE.replace("26462", "many"), LINE.replace("_8_128", "_8")]
)
def test_a_line_that_is_no_run_is_refused(tmp_path: Path, line: str) -> None:
    (tmp_path / "llama31_real.txt").write_text(line)
    with pytest.raises(ValueError):
        measured_runs(tmp_path)


def test_a_run_is_simulated_at_its_rate() -> None:
    run = replace(RUN, rates_per_s=(0.2,), duration_s=600.0)
    one = simulate(run, StepCosts())
    assert one.tokens_per_s == pytest.approx(4 * 0.2 * 100, rel=0.2)
    assert 14.0 < one.itl_ms < 17.0
    assert one.totals.disk_loads == 4


def test_errors_are_relative_and_both_must_be_small() -> None:
    pair = Pair(RUN, simulated(tokens_per_s=15.3, itl_ms=12.0))
    assert pair.tokens_error == pytest.approx(0.02)
    assert pair.itl_error == pytest.approx(-0.2)
    assert not pair.within
    assert pair.remark() == UNKNOWN
    assert Pair(RUN, simulated()).within and Pair(RUN, simulated()).remark() == ""


def test_runs_in_the_wrong_order_are_named() -> None:
    slow = replace(RUN, ttft_s=5.0)
    right = Validation(StepCosts(), [Pair(RUN, simulated(ttft_s=0.1)), Pair(slow, simulated(ttft_s=0.2))])
    wrong = Validation(StepCosts(), [Pair(RUN, simulated(ttft_s=0.3)), Pair(slow, simulated(ttft_s=0.2))])
    alike = Validation(StepCosts(), [Pair(RUN, simulated(ttft_s=0.3)), Pair(RUN, simulated(ttft_s=0.2))])
    assert (len(right.inverted()), len(wrong.inverted()), len(alike.inverted())) == (0, 1, 0)
    assert "0 of 1 pairs" in wrong.summary()[2]


def test_the_report_says_what_is_outside_and_complains_of_nothing_to_compare() -> None:
    report = Validation(StepCosts(), [Pair(RUN, simulated(itl_ms=30.0, totals=Totals(preemptions=1)))])
    assert not report.pairs[0].within
    assert report.table().row_count == 1
    assert report.complaints() == []
    assert Validation(StepCosts()).complaints()
