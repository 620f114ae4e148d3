"""What does a process write to its log, and how does a line look for whom?"""

from __future__ import annotations

import io
import json
import logging
import multiprocessing
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from engines import logs
from engines.logs import LogSettings, printable

TEXT = LogSettings(as_json=False)
JSON = LogSettings(as_json=True)


@pytest.fixture(autouse=True)
def loggers_as_before() -> Iterator[None]:
    """What is configured here must not last: pytest's own handlers are the root's."""
    names = ("", "tenantry", "bentoml", "circus", "uvicorn", "uvicorn.error", "uvicorn.access", "vllm")
    before = [(log, log.handlers, log.level, log.propagate) for log in map(logging.getLogger, names)]
    yield
    logging.captureWarnings(False)
    for logger, handlers, level, propagate in before:
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(level)


@pytest.fixture
def written() -> Callable[..., io.StringIO]:
    """Configure this process to write to memory."""

    def configure(settings: LogSettings, replica: str | None = None) -> io.StringIO:
        stream = io.StringIO()
        logs.configure(settings, stream, replica)
        return stream

    return configure


def lines(stream: io.StringIO) -> list[str]:
    return stream.getvalue().splitlines()


def say(logger: str, message: str, *arguments: object, level: int = logging.INFO, **options: Any) -> None:
    logging.getLogger(logger).log(level, message, *arguments, **options)


def failed() -> BaseException:
    try:
        raise ValueError("a tenant said\n12:00:00 gateway: forged\x1b[2J")
    except ValueError as error:
        return error


# -- settings ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environment", "is_terminal", "as_json", "coloured"),
    [
        ({}, True, False, True),
        ({}, False, True, False),
        ({"TENANTRY_LOG": "json"}, True, True, False),
        ({"TENANTRY_LOG": "text"}, False, False, False),
        ({"NO_COLOR": "1"}, True, False, False),
        ({"TENANTRY_LOG": ""}, False, True, False),
    ],
)
def test_a_terminal_gets_lines_for_people_and_all_else_json_unless_told(
    environment: dict[str, str], is_terminal: bool, as_json: bool, coloured: bool
) -> None:
    settings = LogSettings.read(environment, is_terminal=is_terminal)
    assert (settings.as_json, settings.coloured) == (as_json, coloured)


@pytest.mark.parametrize(
    ("variable", "value", "sentence"),
    [
        ("TENANTRY_LOG", "yaml", "TENANTRY_LOG is 'yaml'; it takes text or json"),
        (
            "TENANTRY_LOG_LEVEL",
            "loud",
            "TENANTRY_LOG_LEVEL is 'loud'; it takes DEBUG, INFO, WARNING, ERROR",
        ),
        ("VLLM_LOGGING_LEVEL", "7", "VLLM_LOGGING_LEVEL is '7'; it takes DEBUG, INFO, WARNING, ERROR"),
    ],
)
def test_what_there_is_not_ends_the_process_with_a_sentence(
    variable: str, value: str, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SystemExit, match=sentence):
        logs.set_up()


# -- who is heard ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "heard"),
    [
        (TEXT, {"tenantry info", "tenantry warning", "vllm warning", "bentoml warning", "aiohttp warning"}),
        (
            JSON,
            {
                *("tenantry info", "tenantry warning", "vllm info", "vllm warning", "bentoml info"),
                *("bentoml warning", "aiohttp warning"),
            },
        ),
        (LogSettings(as_json=False, level=logging.ERROR), set()),
        (
            LogSettings(as_json=False, vllm_level=logging.INFO),
            {
                *("tenantry info", "tenantry warning", "vllm info", "vllm warning", "bentoml warning"),
                "aiohttp warning",
            },
        ),
    ],
    ids=["people", "collector", "errors", "vLLM's own level"],
)
def test_people_hear_us_and_warnings_of_libraries(
    settings: LogSettings, heard: set[str], written: Callable[..., io.StringIO]
) -> None:
    stream = written(settings)
    for name in ("tenantry", "vllm", "bentoml", "aiohttp"):
        for level in ("debug", "info", "warning"):
            say(f"{name}.part", f"{name} {level}", level=logging.getLevelNamesMapping()[level.upper()])
    told = {line.rpartition(": ")[2].strip('"}') for line in lines(stream)}
    assert told == heard


def test_debug_shows_what_libraries_are_about(written: Callable[..., io.StringIO]) -> None:
    stream = written(LogSettings(as_json=False, level=logging.DEBUG))
    say("tenantry.engine", "ours", level=logging.DEBUG)
    say("vllm.config", "Model Runner V2 requires Triton; using the V1 model runner", level=logging.WARNING)
    say("vllm.config", "loading")
    assert [line.split(maxsplit=1)[1] for line in lines(stream)] == [
        "DEBUG engine: ours",
        "WARNING vllm: Model Runner V2 requires Triton; using the V1 model runner",
        "vllm: loading",
    ]


@pytest.mark.parametrize("settings", [TEXT, JSON], ids=["text", "json"])
@pytest.mark.parametrize(("logger", "part"), logs._ASIDES)
def test_what_each_process_says_anew_is_not_said(
    logger: str, part: str, settings: LogSettings, written: Callable[..., io.StringIO]
) -> None:
    stream = written(settings)
    say(f"{logger}.any", f"so {part} and so on", level=logging.WARNING)
    say("tenantry.any", f"so {part} and so on", level=logging.WARNING)
    assert len(lines(stream)) == 1, "only where it is ours"


def test_a_warning_for_who_writes_a_library_is_not_shown_to_who_runs_it(
    written: Callable[..., io.StringIO],
) -> None:
    stream = written(TEXT)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        warnings.warn("old name", FutureWarning, stacklevel=1)
        warnings.warn("the disk is nearly full", RuntimeWarning, stacklevel=1)
    (line,) = lines(stream)
    assert "RuntimeWarning: the disk is nearly full" in line


def test_the_servers_access_log_is_off_and_handlers_of_libraries_are_gone(
    written: Callable[..., io.StringIO],
) -> None:
    logging.getLogger("bentoml").addHandler(logging.StreamHandler(io.StringIO()))
    logging.getLogger("bentoml").propagate = False
    stream = written(JSON)
    say("uvicorn.access", '"GET / HTTP/1.1" 200', level=logging.WARNING)
    say("bentoml.serve", "once")
    assert [json.loads(line)["message"] for line in lines(stream)] == ["once"]


# -- lines for people --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("replica", "logger", "message", "level", "line"),
    [
        (None, "tenantry.gateway", "replica x is ready", "INFO", "gateway: replica x is ready"),
        (None, "tenantry.lifecycle", "x", "WARNING", "WARNING lifecycle: x"),
        (None, "tenantry", "x", "INFO", "tenantry: x"),
        ("chat-0", "tenantry.engine", "chat-0: ready (41 s)", "INFO", "chat-0: ready (41 s)"),
        ("chat-0", "tenantry.engine", "adapter a loaded", "INFO", "chat-0: adapter a loaded"),
        ("chat-0", "vllm.v1.engine", "x", "ERROR", "ERROR chat-0 vllm: x"),
        (None, "circus", "x", "ERROR", "ERROR circus: x"),
    ],
)
def test_a_line_names_who_speaks_and_a_level_that_is_not_of_every_day(
    replica: str | None,
    logger: str,
    message: str,
    level: str,
    line: str,
    written: Callable[..., io.StringIO],
) -> None:
    stream = written(TEXT, replica)
    say(logger, message, level=logging.getLevelNamesMapping()[level])
    at, _, rest = stream.getvalue().rstrip("\n").partition(" ")
    assert len(at) == len("12:34:56") and rest == line


@pytest.mark.parametrize(
    "text",
    [
        "two\nlines",
        "\r12:00:00 gateway: forged",
        "\x1b[2J",
        "\x9b2J",
        "\u2028next",
        "\u202eabc",
        "\x00",
        "\ud800",
    ],
    ids=["newline", "return", "escape", "C1", "separator", "direction", "null", "surrogate"],
)
def test_text_of_a_client_forges_no_line_and_moves_no_cursor(
    text: str, written: Callable[..., io.StringIO]
) -> None:
    stream = written(TEXT)
    say("tenantry.gateway", "no model %s", text, level=logging.WARNING)
    line = stream.getvalue()
    assert line.endswith("\n") and line[:-1].isprintable()


def test_ordinary_text_stays_as_it_is() -> None:
    assert printable("Grüße, 世界 \\n") == "Grüße, 世界 \\n"


def test_a_traceback_is_indented_so_that_none_of_its_lines_begins_one(
    written: Callable[..., io.StringIO],
) -> None:
    stream = written(TEXT)
    say("tenantry.gateway", "broke", level=logging.ERROR, exc_info=failed())
    first, *trace = stream.getvalue().splitlines()
    assert first.endswith("ERROR gateway: broke")
    assert trace and all(line.startswith("    ") and line.isprintable() for line in trace)
    assert "forged" in trace[-1]


def test_colours_are_for_terminals_alone(written: Callable[..., io.StringIO]) -> None:
    for settings, coloured in ((TEXT, False), (LogSettings(as_json=False, coloured=True), True)):
        stream = written(settings)
        say("tenantry.gateway", "x", level=logging.ERROR)
        assert ("\x1b[" in stream.getvalue()) is coloured


# -- JSON --------------------------------------------------------------------------------------------------


def test_a_json_line_says_when_how_bad_who_and_what(written: Callable[..., io.StringIO]) -> None:
    stream = written(JSON, "chat-0")
    say("tenantry.engine", "two\nlines \ud800", level=logging.ERROR, exc_info=failed())
    (line,) = lines(stream)
    read = json.loads(line)
    assert read["time"].endswith("+00:00")
    assert (read["level"], read["logger"], read["message"]) == (
        "ERROR",
        "tenantry.engine",
        "two\nlines \ud800",
    )
    assert read["replica"] == "chat-0"
    assert read["exception"].startswith("Traceback") and "forged" in read["exception"]


def test_a_json_line_leaves_out_what_is_not_known(written: Callable[..., io.StringIO]) -> None:
    stream = written(JSON)
    say("tenantry.gateway", "x")
    assert json.loads(stream.getvalue()).keys() == {"time", "level", "logger", "message"}


# -- every process -----------------------------------------------------------------------------------------

SPAWNING = """
import multiprocessing, sys
sys.path.insert(0, {root!r})
from engines import engine_process, logs

if __name__ == "__main__":
    logs.set_up("chat-0")
    engine_process.become_main_of_children()
    from tests.unit.engines import logging_child
    child = multiprocessing.get_context("spawn").Process(target=logging_child.speak, name="EngineCore")
    child.start()
    child.join()
"""


def test_processes_that_an_engine_spawns_and_that_these_spawn_write_like_it(tmp_path: Any) -> None:
    script = tmp_path / "main.py"
    script.write_text(SPAWNING.format(root=os.getcwd()))
    ran = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=60, check=True
    )
    read = [json.loads(line) for line in ran.stderr.splitlines()]
    assert [(line["message"], line["process"], line["replica"]) for line in read] == [
        ("imported", "EngineCore", "chat-0"),
        ("running", "EngineCore", "chat-0"),
        ("imported", "Worker", "chat-0"),
        ("running", "Worker", "chat-0"),
    ]
    assert multiprocessing.current_process().name == "MainProcess"
