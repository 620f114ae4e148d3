"""One unfinished batch in memory: the next lines of its file, those that run, and what is not on disk yet."""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace

from routing.batches.journal import Journal, Outcome
from routing.batches.values import Batch, Counts, Line, LineAnswer

# Lines in memory that do not run, so that one model's do not stand in the way of another's.
AHEAD, AHEAD_BYTES = 256, 8 * 2**20
MOST_FAULTS = 3  # of engines on one line; each time several replicas were asked
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 60.0  # before a line is asked again


class BatchRun:
    """A batch that runs, from when its file was found right to when it has ended."""

    def __init__(self, batch: Batch, journal: Journal) -> None:
        self.batch = batch
        self.journal = journal
        self.is_prepared = False  # it was found right, and what is on disk was read
        self.is_ending = False  # its files are being written
        self.storing = asyncio.Lock()  # held while its status changes in the database
        self.in_flight = 0
        self.unwritten: list[Outcome] = []
        self.writing: asyncio.Task[None] | None = None
        self.feeding: asyncio.Task[None] | None = None
        self._tries: dict[int, int] = {}  # of lines that were asked and have no answer yet
        self._faults: dict[int, int] = {}  # of those, how often engines failed on them
        self._lines: Iterator[Line] = iter(())
        self._is_exhausted = False
        self._waiting: dict[str | None, deque[Line]] = {}  # by model
        self._ahead = self._ahead_bytes = 0
        self._later: list[tuple[float, int, Line]] = []  # heap: when they may be asked again

    @property
    def has_lines(self) -> bool:
        """Whether a line waits to be asked, now or later."""
        return self._ahead > 0

    @property
    def is_answered(self) -> bool:
        """Whether every line has its answer, on disk."""
        return self.is_prepared and self.batch.counts.answered >= self.batch.counts.total

    @property
    def is_quiet(self) -> bool:
        """Whether nothing of it runs or is being written."""
        is_writing = self.writing is not None and not self.writing.done()
        return not (self.in_flight or self.unwritten or is_writing)

    def prepare(self, counts: Counts, lines: Iterator[Line]) -> None:
        """Begin with what was answered before, and with the lines that are left; reading them blocks."""
        self.batch = replace(self.batch, counts=counts)
        self._lines = lines
        self.is_prepared = True

    def needs_lines(self) -> bool:
        """Whether more lines should be read."""
        busy = self.feeding is not None and not self.feeding.done()
        has_room = self._ahead <= AHEAD // 2 and self._ahead_bytes <= AHEAD_BYTES // 2
        return self.is_prepared and not self._is_exhausted and not busy and has_room

    async def feed(self) -> None:
        """Read the next lines. Raises what reading does."""
        read, self._is_exhausted = await asyncio.to_thread(_next_of, self._lines)
        for line in read:
            self._stand(line)

    def take(self, may_begin: Callable[[str | None], bool], now_s: float) -> Line | None:
        """Return a line whose model has room, and count it as running; None: there is none."""
        while self._later and self._later[0][0] <= now_s:
            line = heapq.heappop(self._later)[2]
            self._count_ahead(line, -1)
            self._stand(line)
        for model, lines in self._waiting.items():
            if may_begin(model):
                line = lines.popleft()
                if not lines:
                    del self._waiting[model]
                self._count_ahead(line, -1)
                self.in_flight += 1
                self._tries[line.number] = self._tries.get(line.number, 0) + 1
                return line
        return None

    def is_last_word(self, line: Line, answer: LineAnswer) -> bool:
        """Whether an answer stands; else the line should be put back."""
        if answer.is_fault:
            self._faults[line.number] = self._faults.get(line.number, 0) + 1
        return answer.retry_after_s is None or self._faults.get(line.number, 0) >= MOST_FAULTS

    def models(self) -> list[str | None]:
        """List the models that lines wait for."""
        return list(self._waiting)

    def put_back(self, line: Line, retry_after_s: float, now_s: float) -> None:
        """Let a line that ran in vain wait, twice as long each time."""
        pause_s = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(10, self._tries[line.number] - 1))
        heapq.heappush(self._later, (now_s + max(retry_after_s, pause_s), line.number, line))
        self._count_ahead(line, +1)
        self.in_flight -= 1

    def note(self, outcome: Outcome) -> None:
        """Take the answer of a line that ran; it counts once it is written."""
        self._tries.pop(outcome.number, None)
        self._faults.pop(outcome.number, None)
        self.in_flight -= 1
        self.unwritten.append(outcome)

    def count(self, outcomes: list[Outcome]) -> None:
        """Count answers that are on disk now."""
        counts = self.batch.counts
        for outcome in outcomes:
            counts = counts.plus(ok=outcome.ok)
        self.batch = replace(self.batch, counts=counts)

    def _stand(self, line: Line) -> None:
        self._waiting.setdefault(line.model, deque()).append(line)
        self._count_ahead(line, +1)

    def _count_ahead(self, line: Line, sign: int) -> None:
        self._ahead += sign
        self._ahead_bytes += sign * len(line.body)


def _next_of(lines: Iterator[Line]) -> tuple[list[Line], bool]:
    """Read some lines; say whether they were the last."""
    read: list[Line] = []
    size_bytes = 0
    for line in lines:
        read.append(line)
        size_bytes += len(line.body)
        if len(read) >= AHEAD // 2 or size_bytes >= AHEAD_BYTES // 2:
            return read, False
    return read, True
