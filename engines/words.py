"""One line for an engine's failure, for operators or for tenants. Pure."""

from __future__ import annotations

import re

MAX_LENGTH = 500
# Errors of a compiler, a disk or the machine's memory: no adapter causes them.
_MACHINE = re.compile(
    r"InvalidCxxCompiler|CppCompileError|C\+\+ compile error|InductorError|BackendCompilerFailed|"
    r"compilation terminated|No space left on device|Read-only file system|Too many open files"
)
_PLACE = re.compile(r"\w+://\S+|(?<![\w./<])~?/[^\s'\"`,;:)\]]+")  # a URL, or an absolute path
_POINTS_ELSEWHERE = re.compile(r"(see|check) .{0,20}(root cause|stack trace)", re.IGNORECASE)
_ERROR_LINE = re.compile(r"\berror: ")


def words_of(error: BaseException) -> str:
    """Return the root cause in one line: the type of the exception, and the useful part of its message."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # A compiler's complaint stands in the middle of a long message.
    chosen = next((line for line in lines if _ERROR_LINE.search(line)), lines[0] if lines else "")
    kind = type(error).__name__
    return in_a_line(f"{kind}: {chosen}" if chosen else kind)


def points_elsewhere(text: str) -> bool:
    """Whether a message only points to the place of the reason."""
    return _POINTS_ELSEWHERE.search(text) is not None


def in_a_line(text: str) -> str:
    """Return a bounded text in one line that steers no terminal."""
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return text if len(text) <= MAX_LENGTH else f"{text[: MAX_LENGTH - 3]}..."


def without_paths(text: str) -> str:
    """Return the text for readers outside of this machine: no path, no URL."""
    return _PLACE.sub("<path>", text)


def blames_machine(words: str) -> bool:
    """Whether the error is one that no adapter causes."""
    return _MACHINE.search(words) is not None
