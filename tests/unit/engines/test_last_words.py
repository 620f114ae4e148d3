"""Do an engine's words reach the process that started it? A child of the real kind says them."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace

import pytest

from engines import last_words as module
from engines.last_words import LastWords, ended_how, keep_errors

ELSEWHERE = "Worker failed with error 'a shape', please check the stack trace above for the root cause"


@pytest.fixture
def words(monkeypatch: pytest.MonkeyPatch) -> Iterator[LastWords]:
    """Words that are listened to, and the environment that makes children say them."""
    last_words = LastWords()
    for name, value in last_words.listen().items():
        monkeypatch.setenv(name, value)
    yield last_words
    last_words.close()


@pytest.fixture
def speaker(words: LastWords) -> Iterator[logging.Logger]:
    """A logger of a process that keeps its errors."""
    factory = logging.getLogRecordFactory()
    keep_errors()
    yield logging.getLogger("tests.engine")
    logging.setLogRecordFactory(factory)


def fail(logger: logging.Logger, message: str) -> None:
    """Log an exception as vLLM's core does."""
    try:
        raise RuntimeError(message)
    except RuntimeError:
        logger.exception("EngineCore encountered a fatal error.")


def speak(message: str) -> None:
    """What a child does: it replaces its handlers, as vLLM does, and fails."""
    keep_errors()
    logger = logging.getLogger("vllm.v1.engine.core")
    logger.handlers, logger.propagate = [logging.NullHandler()], False
    fail(logger, message)


def test_a_spawned_childs_last_words_arrive(words: LastWords) -> None:
    child = multiprocessing.get_context("spawn").Process(target=speak, args=("no compiler\x1b[2J\nmore",))
    child.start()
    child.join(60)
    assert words.read() == "RuntimeError: no compiler [2J"


def test_the_last_words_count(words: LastWords, speaker: logging.Logger) -> None:
    fail(speaker, "first")
    fail(speaker, "second")
    assert words.read() == "RuntimeError: second"


def test_words_that_point_elsewhere_hide_none(words: LastWords, speaker: logging.Logger) -> None:
    fail(speaker, ELSEWHERE)
    assert "a shape" in words.read(), "better than nothing"
    fail(speaker, "a shape")
    fail(speaker, ELSEWHERE)
    assert words.read() == "RuntimeError: a shape"


def test_what_is_no_exception_says_nothing(words: LastWords, speaker: logging.Logger) -> None:
    speaker.error("not good")
    try:
        raise RuntimeError("survived")
    except RuntimeError:
        speaker.warning("it goes on", exc_info=True)
    assert words.read() == ""


def test_words_are_of_one_start_and_of_the_last_moments(words: LastWords, speaker: logging.Logger) -> None:
    fail(speaker, "it broke")
    (path,) = words.listen().values()
    assert words.read() == ""
    fail(speaker, "an error that was survived")
    os.utime(path, (1, 1))
    assert words.read(within_s=30.0) == "" and words.read() != ""


def test_nothing_is_left_behind(words: LastWords, speaker: logging.Logger) -> None:
    (path,) = words.listen().values()
    fail(speaker, "it broke")
    words.close()
    assert not os.path.exists(os.path.dirname(path)) and words.read() == ""
    fail(speaker, "where nobody listens any more")


def engine_of(*codes: int | None) -> SimpleNamespace:
    """What is left of vLLM's engine, by its processes' exit codes."""
    manager = SimpleNamespace(processes=[SimpleNamespace(exitcode=code) for code in codes])
    return SimpleNamespace(engine_core=SimpleNamespace(resources=SimpleNamespace(engine_manager=manager)))


def test_a_process_that_was_killed_has_no_words_but_an_end() -> None:
    assert "SIGKILL" in ended_how(engine_of(-signal.SIGKILL))
    assert ended_how(engine_of(None)) == ended_how(SimpleNamespace()) == "its process ended without a word"


def test_a_core_and_the_workers_that_it_forks_or_spawns_run_vllms_own_functions(
    words: LastWords, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[str] = []
    for name in ("vllm", "vllm.v1", "vllm.v1.engine", "vllm.v1.executor"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    core, executor = ModuleType("vllm.v1.engine.core"), ModuleType("vllm.v1.executor.multiproc_executor")
    workers = type("WorkerProc", (), {"worker_main": staticmethod(lambda: ran.append("worker"))})
    monkeypatch.setattr(executor, "WorkerProc", workers, raising=False)
    cores = type("EngineCoreProc", (), {"run_engine_core": staticmethod(lambda: ran.append("core"))})
    monkeypatch.setattr(core, "EngineCoreProc", cores, raising=False)
    monkeypatch.setitem(sys.modules, core.__name__, core)
    monkeypatch.setitem(sys.modules, executor.__name__, executor)
    monkeypatch.setattr(module, "_worker_main", None)
    factory = logging.getLogRecordFactory()
    try:
        module.run_worker()  # a spawned one, whose vLLM is as it was
        module.run_engine_core()
        assert workers.worker_main is module.run_worker  # type: ignore[attr-defined]
        workers.worker_main()  # type: ignore[attr-defined]
    finally:
        logging.setLogRecordFactory(factory)
    assert ran == ["worker", "core", "worker"]
