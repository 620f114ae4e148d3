"""What is a file, a batch, a line of it, its answer? Plain values, as the database and the routes have them.

States are OpenAI's. A batch that ends writes its files first: until they are there it is `finalizing`, or
still `cancelling`, and `ending` says what it will be.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from engines.protocol import Kind

WINDOW = "24h"
WINDOW_S = 86_400.0
MAX_LINES = 50_000  # of one batch; OpenAI's own bound
ENDPOINTS: Mapping[str, Kind] = {
    kind.value: kind for kind in (Kind.CHAT, Kind.COMPLETION, Kind.EMBEDDING, Kind.RESPONSE)
}
INPUT_PURPOSE, OUTPUT_PURPOSE = "batch", "batch_output"


class BatchStatus(StrEnum):
    """How far a batch is."""

    VALIDATING = "validating"
    FAILED = "failed"
    IN_PROGRESS = "in_progress"
    FINALIZING = "finalizing"
    COMPLETED = "completed"
    EXPIRED = "expired"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"


ENDED = frozenset({BatchStatus.FAILED, BatchStatus.COMPLETED, BatchStatus.EXPIRED, BatchStatus.CANCELLED})


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file of a tenant."""

    id: str
    account: str  # its tenant's
    purpose: str
    filename: str  # as the client calls it; it names nothing here
    size_bytes: int
    created_s: float  # Unix time
    expires_s: float


@dataclass(frozen=True, slots=True)
class Mistake:
    """Why a batch failed: something of its file, or of its tenant."""

    code: str
    message: str
    line: int | None = None  # from 1
    param: str | None = None


@dataclass(frozen=True, slots=True)
class Counts:
    """How many lines a batch has, and how many of them have an answer."""

    total: int = 0
    completed: int = 0
    failed: int = 0

    @property
    def answered(self) -> int:
        """Lines that are done, well or not."""
        return self.completed + self.failed

    def plus(self, *, ok: bool) -> Counts:
        """Count one line more that has its answer."""
        done = (self.completed + 1, self.failed) if ok else (self.completed, self.failed + 1)
        return Counts(self.total, *done)


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch of one tenant."""

    id: str
    account: str  # its tenant's
    key: str  # id of the API key that made it
    home: str  # the state folder that has its answers
    endpoint: Kind
    input_file: str
    created_s: float  # Unix time, as all of these
    expires_s: float
    status: BatchStatus = BatchStatus.VALIDATING
    ending: BatchStatus | None = None  # what it will be, once its files are written
    at_s: Mapping[str, float] = field(default_factory=dict)  # when it came to a status
    counts: Counts = Counts()
    mistakes: tuple[Mistake, ...] = ()
    output_file: str | None = None
    error_file: str | None = None
    metadata: Mapping[str, str] | None = None
    keep_s: float | None = None  # how long its files are kept; None: as long as the service keeps files

    def now(self, status: BatchStatus, at_s: float) -> Batch:
        """Return it in another status since a Unix time."""
        return replace(self, status=status, at_s={**self.at_s, status.value: at_s})


@dataclass(frozen=True, slots=True)
class Line:
    """A request of a batch."""

    number: int  # from 1
    custom_id: str
    model: str | None
    body: bytes  # JSON


@dataclass(frozen=True, slots=True)
class LineAnswer:
    """How a line was answered."""

    status: int
    body: bytes  # JSON
    row: tuple[str | float | bool | None, ...] | None = None  # for the ledger; None: there is nothing to tell
    retry_after_s: float | None = None  # it need not be the last word: ask again
    is_fault: bool = False  # an engine failed on it, so that it is asked again a few times only

    @property
    def is_ok(self) -> bool:
        """Whether it belongs into the output, and not among the errors."""
        return self.status == 200
