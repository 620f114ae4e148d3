"""How many threads has an engine on CPUs, where others share the machine's cores?"""

from __future__ import annotations

import os

import pytest

from engines import cores


@pytest.mark.parametrize(
    ("at_once", "of", "threads"),
    [(0, 8, None), (1, 8, None), (2, 8, 4), (3, 8, 2), (8, 8, 1), (9, 8, 1), (2, 1, 1)],
)
def test_engines_that_are_awake_at_once_part_the_cores(at_once: int, of: int, threads: int | None) -> None:
    assert cores.threads_of(at_once, of) == threads


@pytest.fixture
def two_cores(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setenv(cores.THREADS, "7")  # so that it is as it was, afterwards
    monkeypatch.delenv(cores.THREADS)
    monkeypatch.setattr(cores, "is_cpu_build", lambda: True)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    return monkeypatch


def test_the_processes_of_an_engine_get_that_many(two_cores: pytest.MonkeyPatch) -> None:
    cores.share(1)
    assert cores.THREADS not in os.environ
    cores.share(2)
    assert os.environ[cores.THREADS] == "1"


def test_what_an_operator_says_counts(two_cores: pytest.MonkeyPatch) -> None:
    two_cores.setenv(cores.THREADS, "2")
    cores.share(2)
    assert os.environ[cores.THREADS] == "2"


def test_engines_on_gpus_are_left_alone(two_cores: pytest.MonkeyPatch) -> None:
    two_cores.setattr(cores, "is_cpu_build", lambda: False)
    cores.share(2)
    assert cores.THREADS not in os.environ
