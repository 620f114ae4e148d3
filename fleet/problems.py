"""Findings about a fleet file: the fault, its place and the remedy. Holds findings; makes none."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

Key = str | int
KeyPath = tuple[Key, ...]


@dataclass(frozen=True, slots=True)
class Problem:
    """One error to repair, or one warning to look at."""

    file: str
    line: int | None  # counted from 1; None: the file as a whole
    path: str  # dotted: "pools.shared.tenants[2]"; empty: the whole file
    message: str
    remedy: str = ""

    def __str__(self) -> str:
        where = self.file if self.line is None else f"{self.file}:{self.line}"
        text = f"{where}: {self.path}: {self.message}" if self.path else f"{where}: {self.message}"
        return f"{text}; {self.remedy}" if self.remedy else text


class FleetError(Exception):
    """A fleet cannot be used as it is declared; holds every problem found, never only the first."""

    def __init__(
        self, problems: Iterable[Problem], *, may_be_more: bool = False, warnings: Iterable[Problem] = ()
    ) -> None:
        self.problems = tuple(problems)
        self.may_be_more = may_be_more  # some checks could not run because of these
        self.warnings = tuple(warnings)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class Findings:
    """Collects errors and warnings of one file; knows the line of every key."""

    def __init__(self, file: str, lines: Mapping[KeyPath, int] | None = None) -> None:
        self.file = file
        self._lines: Mapping[KeyPath, int] = {} if lines is None else lines
        self.errors: list[Problem] = []
        self.warnings: list[Problem] = []
        self.may_be_more = False  # some check could not run because of an error

    def error(self, path: KeyPath, message: str, remedy: str = "", *, hides: bool = False) -> None:
        """Add an error; one that `hides` others prevents further checks."""
        self.errors.append(self._problem(path, message, remedy))
        self.may_be_more |= hides

    def take(self, other: Findings) -> None:
        """Add the errors of `other`."""
        self.errors += other.errors
        self.may_be_more |= other.may_be_more

    def warn(self, path: KeyPath, message: str, remedy: str = "") -> None:
        """Add a warning."""
        self.warnings.append(self._problem(path, message, remedy))

    def raise_errors(self) -> None:
        """Raise `FleetError` with all errors in the order of their lines, if there are any."""
        if self.errors:
            problems = sorted(self.errors, key=lambda problem: problem.line or 0)
            warnings = () if self.may_be_more else self.warnings  # they may be wrong while parts are missing
            raise FleetError(problems, may_be_more=self.may_be_more, warnings=warnings)

    def _problem(self, path: KeyPath, message: str, remedy: str) -> Problem:
        return Problem(self.file, self._line(path), dotted(path), message, remedy)

    def _line(self, path: KeyPath) -> int | None:
        """Line of the key, or of the nearest key around it."""
        prefixes = (path[:length] for length in range(len(path), 0, -1))
        return next((self._lines[prefix] for prefix in prefixes if prefix in self._lines), None)


def dotted(path: KeyPath) -> str:
    """Write a path as people do: `pools.shared.tenants[2]`."""
    text = ""
    for key in path:
        text += f"[{key}]" if isinstance(key, int) else f".{key}" if text else key
    return text


def did_you_mean(wrong: str, known: Iterable[str]) -> str:
    """Suggest the known name that is close to the wrong one, or list them if they are few; else ""."""
    names = sorted(set(known))
    close = difflib.get_close_matches(wrong, names, n=1, cutoff=0.6)
    close = close or [name for name in names if wrong and name.startswith(wrong)]
    if close:
        return f"did you mean `{close[0]}`?"
    return f"known: {', '.join(names)}" if 0 < len(names) <= 12 else ""
