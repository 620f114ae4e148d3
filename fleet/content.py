"""What may be in requests and answers: media, and texts that somebody looks at first. Plain values."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


@dataclass(frozen=True, slots=True)
class Media:
    """Which pictures, recordings and films an engine may be given, and from where it may fetch them."""

    hosts: tuple[str, ...] = ()  # from which engines fetch, by https; empty: from none
    max_mib: int = 16  # of one medium, given or fetched
    per_request: int = 16

    @property
    def max_bytes(self) -> int:
        """The size in bytes."""
        return self.max_mib * 2**20


class OnFailure(StrEnum):
    """What becomes of a text at which nobody could look."""

    ALLOW = "allow"
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True)
class Guard:
    """Who looks at a tenant's prompts and answers before they go on."""

    on_failure: OnFailure
    url: str | None = None  # of a moderation endpoint in OpenAI's form; either this or a plugin
    plugin: str | None = None  # name of an entry point in the group `tenantry.guards`
    key_variable: str | None = None  # environment variable with the endpoint's key
    model: str | None = None  # sent to the endpoint
    prompts: bool = True
    answers: bool = True
    timeout_s: float = 2.0  # of each look
    hold_back_chars: int = 400  # of a stream: so much of its text is looked at, and sent, at once
