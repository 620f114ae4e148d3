"""Runs that are made in portions: each goes to a file as it ends, and the next command goes on from there."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer

Key = tuple[Any, ...]  # which run, as JSON has it
Done = dict[Key, dict[str, Any]]  # a run's figures

ResultsFile = Annotated[Path, typer.Option(help="File of the runs that were made; it is gone on with.")]
ForSeconds = Annotated[float, typer.Option(help="Begin no run later than that.")]
FOR_EVER = math.inf


def go_on(
    results: Path,
    for_s: float,
    processes: int,
    to_do: Callable[[Mapping[Key, Any]], Iterable[Key]],
    run: Callable[[Key], tuple[Key, dict[str, Any]]],
) -> Done:
    """Make the runs that are `to_do` after those that are done; return all.

    Raises `OSError` and `ValueError` where the file is none of ours.
    """
    end_s = time.monotonic() + for_s
    results.touch()
    done = {tuple(key): figures for key, figures in map(json.loads, results.read_text().splitlines())}
    with results.open("a") as file, ProcessPoolExecutor(processes) as workers:
        while time.monotonic() < end_s and (keys := list(islice(to_do(done), 4 * processes))):
            for key, figures in workers.map(run, keys):
                done[key] = figures
                file.write(json.dumps([key, figures]) + "\n")
                file.flush()
    return done
