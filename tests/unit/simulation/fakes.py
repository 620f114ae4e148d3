"""Listeners, calls and measured runs for tests of the simulator."""

from __future__ import annotations

from dataclasses import replace

from benchmarks.simulator.measured import MeasuredRun, Simulated
from simulation.costs import EngineSettings, StepCosts
from simulation.driver import Call
from simulation.engine import IDLE, Engine, Sequence, Totals

# A step takes 10 ms whatever is in it; loads are told apart by their times.
FLAT = StepCosts(10.0, 0.0, 0.0, 0.0, 0.0, 0.0, 100.0, 1000.0)
RUN = MeasuredRun(16, (0.1, 0.05), 8, 4, 9, 60.0, 900, 900, 15.0, 0.05, 0.1, 15.0)


class Heard:
    """Keeps what an engine says: (what, key, when), and gaps as (seconds, tokens)."""

    def __init__(self) -> None:
        self.events: list[tuple[str, int, float]] = []
        self.gaps: list[tuple[float, int]] = []

    def first_token(self, sequence: Sequence, now: float) -> None:
        self.events.append(("first", sequence.key, round(now, 6)))

    def finished(self, sequence: Sequence, now: float) -> None:
        self.events.append(("finished", sequence.key, round(now, 6)))

    def tokens(self, engine: Engine, gap_s: float, tokens: int) -> None:
        self.gaps.append((round(gap_s, 6), tokens))

    def when(self, what: str) -> dict[int, float]:
        """Key -> time of every event of one kind."""
        return {key: at_s for kind, key, at_s in self.events if kind == what}


def an_engine(heard: Heard, *, costs: StepCosts = FLAT, slots: int = 2, **settings: int) -> Engine:
    """An engine with few slots."""
    return Engine(replace(EngineSettings(slots=slots, host_places=max(4, slots)), **settings), costs, heard)


def run_out(engine: Engine, *, until_s: float = IDLE) -> float:
    """Let an engine go on until it is idle; when that was."""
    now = 0.0
    while engine.due_s < min(IDLE, until_s):
        now = engine.due_s
        engine.advance(now)
    return now


def a_call(at_s: float = 0.0, adapter: str = "a0", *, prompt: int = 10, completion: int = 3) -> Call:
    """A call of the tenant that owns the adapter."""
    return Call(at_s, f"t{adapter[1:]}", adapter, prompt, completion)


def served(
    at_s: float, first_s: float, finished_s: float, *, tenant: str = "t0", completion: int = 11
) -> Call:
    """A call that has been through an engine."""
    call = Call(at_s, tenant, "a0", 100, completion)
    call.sequence = Sequence(0, "a0", 100, completion, first_s, finished_s)
    return call


def simulated(
    *, tokens_per_s: float = 15.0, ttft_s: float = 0.05, itl_ms: float = 15.0, totals: Totals | None = None
) -> Simulated:
    """What the model made of `RUN`."""
    return Simulated(tokens_per_s, ttft_s, 0.1, itl_ms, totals or Totals())
