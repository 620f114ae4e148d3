"""One request of the hostile client, in the making and made; and what it knows of whom it attacks."""

from __future__ import annotations

from dataclasses import dataclass, field

PATIENCE_S = 0.2  # for the answer to what is not sent in full


@dataclass(frozen=True)
class World:
    """What the hostile client knows of the service it attacks."""

    key: str  # its own, which calls models
    admin_key: str  # its own, which manages its adapters
    models: tuple[str, ...]  # its own
    foreign: tuple[str, ...]  # names of others: tenants, models, adapters
    broken_keys: tuple[str, ...]  # that open nothing, much like those of others


@dataclass
class Attack:
    """One request, in the making and made."""

    number: int
    method: str
    path: str
    headers: list[tuple[str, str]]
    body: bytes = b""
    model: str | None = None  # what it asks for, where that is its own
    how: list[str] = field(default_factory=list)  # what is wrong with it
    http: str = "HTTP/1.1"
    length: str | None = None  # instead of the body's
    sent_bytes: int | None = None  # the rest is not sent
    leaves_after_bytes: int | None = None  # of the answer
    waits: bool = True  # for an answer until it comes; else not for long
    ahead: bytes = b""  # a right request that goes before it on the same connection

    @property
    def id(self) -> str:
        """Its x-request-id, where it has one."""
        return f"hostile-{self.number}"

    @property
    def raw(self) -> bytes:
        """The whole request as it goes onto the wire."""
        lines = [f"{self.method} {self.path} {self.http}"]
        lines += [f"{name}: {value}" for name, value in self.headers]
        length = str(len(self.body)) if self.length is None else self.length
        if length and (self.body or self.method in ("POST", "PUT")):
            lines.append(f"content-length: {length}")
        head = "\r\n".join((*lines, "connection: close", "", "")).encode("utf-8", "surrogateescape")
        return self.ahead + head + self.body

    def __str__(self) -> str:
        shown = self.raw if len(self.raw) <= 1000 else self.raw[:600] + b" ... " + self.raw[-300:]
        ways = "; ".join(self.how)
        return f"request {self.number} ({ways}; {len(self.raw)} bytes, sent {self.sent_bytes}): {shown!r}"
