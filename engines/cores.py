"""How many threads has an engine on CPUs, where others share the machine's cores?

Threads of OpenMP spin while they wait for one another, also for one that does not run since another engine's
is on its core. On two cores, with two threads each, engines that were busy at once took 2 s to a first token,
with one thread each 0.03 s (python -m benchmarks.forecast run awake).
"""

from __future__ import annotations

import os

from engines.vllm_engine import is_cpu_build

THREADS = "OMP_NUM_THREADS"


def threads_of(at_once: int, cores: int) -> int | None:
    """Return the threads of each of some engines that are awake at once; None: as many as there are cores."""
    return None if at_once < 2 else max(1, cores // at_once)


def share(at_once: int) -> None:
    """Have the engines of this process take their part of the cores, unless an operator said otherwise."""
    threads = threads_of(at_once, len(os.sched_getaffinity(0)))
    if threads is not None and is_cpu_build():
        os.environ.setdefault(THREADS, str(threads))
