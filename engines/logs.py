"""Writes the log of every process of a deployment: one handler on standard error, in one of two formats.

Lines for people in a terminal, JSON elsewhere. Of libraries' lines, people see warnings and errors, and a
collector gets more. service.py calls `set_up` in BentoML's processes, engine_process.py in vLLM's.

Environment:
    TENANTRY_LOG         text or json; where not set, text if standard error is a terminal
    TENANTRY_LOG_LEVEL   DEBUG, INFO (the default), WARNING, ERROR
    VLLM_LOGGING_LEVEL   vLLM's own lines, where they are wanted at another level
    NO_COLOR             no colours in a terminal
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TextIO

FORMATS = ("text", "json")
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
OURS = "tenantry"
REQUESTS = "tenantry.request"  # its messages are lines of JSON already
REPLICA = "TENANTRY_LOG_REPLICA"  # set for the processes that an engine starts
# Libraries whose own handlers are taken away. The server's access log would be a second line per request.
_LIBRARIES = ("bentoml", "circus", "uvicorn", "uvicorn.error", "uvicorn.access", "vllm")
_SILENT = ("uvicorn.access",)
# Lines that do not help an operator, repeated by each process; written at DEBUG. (logger, part of it)
_ASIDES = (
    ("bentoml", "Applying user config override"),
    ("vllm", "Triton is "),  # without a GPU
    ("vllm", "Reset SSM cache type "),
    ("vllm", "Model Runner V2 requires Triton"),
    ("vllm", "Inductor compilation was disabled by user settings"),
    ("vllm", "CPU backend doesn't allow to use `torch.set_num_threads`"),
    ("vllm", "is not found in LD_PRELOAD"),
    ("vllm", "Default vLLM sampling parameters have been overridden by the model's"),
    ("vllm", "The chat template requires system-first ordering"),
    ("vllm", "Passing raw prompts to InputProcessor is deprecated"),  # by our own checks of an engine
    ("vllm", "vLLM has deprecated support for supporting different tokenizers"),
    ("uvicorn", "Invalid HTTP request received"),  # of anybody, without a key: it could fill the log
)
_LIBRARY_WARNINGS = ("FutureWarning:", "DeprecationWarning:")  # for developers, not for operators
_COLOURS = {logging.WARNING: "\x1b[33m", logging.ERROR: "\x1b[31m", logging.CRITICAL: "\x1b[31m"}
_PLAIN = "\x1b[0m"


@dataclass(frozen=True, slots=True)
class LogSettings:
    """The format of lines, and their lowest level."""

    as_json: bool
    level: int = logging.INFO
    vllm_level: int | None = None  # None: as other libraries
    coloured: bool = False

    @classmethod
    def read(cls, environment: Mapping[str, str], *, is_terminal: bool) -> LogSettings:
        """Read the environment. Raises `ValueError`, in a sentence."""
        form = environment.get("TENANTRY_LOG") or ("text" if is_terminal else "json")
        if form not in FORMATS:
            raise ValueError(f"TENANTRY_LOG is {form!r}; it takes text or json")
        as_text = form == "text"
        return cls(
            as_json=not as_text,
            level=_level(environment, "TENANTRY_LOG_LEVEL") or logging.INFO,
            vllm_level=_level(environment, "VLLM_LOGGING_LEVEL"),
            coloured=as_text and is_terminal and not environment.get("NO_COLOR"),
        )

    @property
    def library_level(self) -> int:
        """The lowest level of libraries' lines: warnings in text logs."""
        if self.as_json:
            return self.level
        return logging.INFO if self.level == logging.DEBUG else max(self.level, logging.WARNING)


def _level(environment: Mapping[str, str], variable: str) -> int | None:
    name = environment.get(variable, "").upper()
    if not name:
        return None
    if name not in LEVELS:
        raise ValueError(f"{variable} is {environment[variable]!r}; it takes {', '.join(LEVELS)}")
    return logging.getLevelNamesMapping()[name]


def set_up(replica: str = "") -> None:
    """Send all lines of this process through one handler; `replica` names the engine in each.

    Ends the process with a message if the environment holds an invalid setting.
    """
    if replica:
        os.environ[REPLICA] = replica
    try:
        settings = LogSettings.read(os.environ, is_terminal=sys.stderr.isatty())
    except ValueError as error:
        raise SystemExit(str(error)) from None
    if "VLLM_LOGGING_CONFIG_PATH" not in os.environ:  # vLLM leaves the log to us, in its own processes too
        os.environ.setdefault("VLLM_CONFIGURE_LOGGING", "0")
    if not sys.stderr.isatty():  # progress bars of downloads are for terminals
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        os.environ.setdefault("TQDM_DISABLE", "1")
    configure(settings, sys.stderr, os.environ.get(REPLICA))


def configure(settings: LogSettings, stream: TextIO, replica: str | None) -> None:
    """Apply the settings to this process's loggers."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines(replica) if settings.as_json else Lines(replica, settings.coloured))
    if settings.level > logging.DEBUG:
        handler.addFilter(_is_no_aside)
    root = logging.getLogger()
    root.handlers = [handler]
    # Other libraries' INFO lines are for their developers.
    root.setLevel(max(settings.level, logging.WARNING))
    for name in _LIBRARIES:
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [], name not in _SILENT
        logger.setLevel(logging.NOTSET)
    logging.getLogger(OURS).setLevel(settings.level)
    logging.getLogger("bentoml").setLevel(settings.library_level)
    logging.getLogger("vllm").setLevel(settings.vllm_level or settings.library_level)
    logging.captureWarnings(True)


def _is_no_aside(record: logging.LogRecord) -> bool:
    """Whether a line is for operators."""
    library = record.name.partition(".")[0]
    if library == OURS:
        return True
    message = record.getMessage()
    if record.name == "py.warnings":
        return not any(kind in message for kind in _LIBRARY_WARNINGS)
    return not any(library == name and part in message for name, part in _ASIDES)


class JsonLines(logging.Formatter):
    """One JSON object a line."""

    def __init__(self, replica: str | None) -> None:
        """`replica` is a field of every line."""
        super().__init__()
        self._replica = replica

    def format(self, record: logging.LogRecord) -> str:
        """Write one line; for requests one line each."""
        if record.name == REQUESTS:
            return record.getMessage()
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if self._replica is not None:
            line["replica"] = self._replica
        if record.processName != "MainProcess":
            line["process"] = str(record.processName)
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


class Lines(logging.Formatter):
    """Short lines for people. No text that came from a client can begin a line of its own."""

    def __init__(self, replica: str | None, coloured: bool) -> None:
        """`replica` stands before every line."""
        super().__init__()
        self._replica = replica
        self._coloured = coloured

    def format(self, record: logging.LogRecord) -> str:
        """Write the time, the level unless it is a usual one, the source and the message."""
        at = time.strftime("%H:%M:%S ", time.localtime(record.created))
        for_people: Callable[[str], str] | None = getattr(record, "for_people", None)
        if for_people is not None:
            return for_people(at)
        level = "" if record.levelno == logging.INFO else f"{record.levelname} "
        if self._coloured and record.levelno in _COLOURS:
            level = f"{_COLOURS[record.levelno]}{level}{_PLAIN}"
        message = record.getMessage()
        if self._replica is not None:
            message = message.removeprefix(f"{self._replica}: ")
        line = f"{at}{level}{self._who(record.name)}: {printable(message)}"
        if record.exc_info:
            trace = self.formatException(record.exc_info).split("\n")
            line += "".join(f"\n    {printable(part)}" for part in trace)
        return line

    def _who(self, logger: str) -> str:
        library, _, rest = logger.partition(".")
        if library != OURS:
            return f"{self._replica} {library}" if self._replica is not None else library
        return self._replica or rest.partition(".")[0] or OURS


def printable(text: str) -> str:
    """Escape every character that moves a cursor, ends a line, or is invisible."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
