"""Runs the clients' suites against plain vLLM, then through the gateway, and compares: `make clients`."""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.clients.reasons import reason_of
from tests.clients.sides import gateway, plain
from tests.clients.suites import SUITES, Outcome, Outcomes

MISSING = Outcome(passed=False, error="it was not run")
Results = dict[str, Outcomes]


def main() -> int:
    """Run the suites that are named, or all; returns 1 where only the gateway fails, without a reason."""
    parser = argparse.ArgumentParser(prog="python -m tests.clients", description=__doc__)
    parser.add_argument("suites", nargs="*", metavar="SUITE", help=f"of {', '.join(SUITES)}; default: all")
    parser.add_argument("--folder", type=Path, help="where logs and reports are kept; default: a new one")
    options = parser.parse_args()
    if wrong := set(options.suites) - SUITES.keys():
        parser.error(f"no such suite: {', '.join(sorted(wrong))}")
    names = options.suites or list(SUITES)
    folder = (options.folder or Path(tempfile.mkdtemp(prefix="clients-"))).absolute()
    sides: list[Results] = []
    for open_side in (plain, gateway):
        own = folder / open_side.__name__
        own.mkdir(parents=True, exist_ok=True)
        with open_side(own) as side:
            sides.append({})
            for name in names:
                began_s = time.monotonic()
                sides[-1][name] = outcomes = SUITES[name](side, own)
                passed, took_s = sum(o.passed for o in outcomes.values()), time.monotonic() - began_s
                print(f"{side.name}: {name}: {passed} of {len(outcomes)}, {took_s:.0f} s", flush=True)
    print(f"logs: {folder}")
    return report(*sides)


def report(there: Results, here: Results) -> int:
    """Print what passes where, and what plain vLLM passes alone; returns 1 for one without a reason."""
    table = Table("suite", "passes here", "passes there", "checks", "only there", title="clients")
    faults, explained = Table("suite", "check", "error"), Table("suite", "check", "reason")
    for suite, theirs in there.items():
        ours = here[suite]
        lost = [
            name for name, outcome in theirs.items() if outcome.passed and not ours.get(name, MISSING).passed
        ]
        for name in lost:
            reason = reason_of(suite, name)
            if reason is None:
                faults.add_row(suite, name, ours.get(name, MISSING).error[:300])
            else:
                explained.add_row(suite, name, reason)
        counts = (sum(o.passed for o in side.values()) for side in (ours, theirs))
        table.add_row(suite, *map(str, (*counts, len(theirs.keys() | ours.keys()), len(lost))))
    console = Console(width=160)
    console.print(table)
    for title, rows in (("with a reason", explained), ("FAULTS", faults)):
        if rows.row_count:
            rows.title = title
            console.print(rows)
    return 1 if faults.row_count else 0


if __name__ == "__main__":
    raise SystemExit(main())
