"""What must an answer to a hostile client be, and what must it never be or hold?"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from dataclasses import dataclass

from tests.hostile.client import Answer, error_of
from tests.hostile.request import Attack

# What a request may be told though nothing is wrong with it: documented in docs/operations.md.
BUSY = frozenset(
    {(503, "overloaded"), (503, "queue_timeout"), (503, "state_unavailable"), (503, "overloaded_error")}
)
OTHER_TYPES = {
    "text/plain": (
        "/metrics",
        "/readyz",
        "/livez",
        "/healthz",
        "/v1/load_lora_adapter",
        "/v1/unload_lora_adapter",
    ),
    "text/html": ("/", "/console", "/docs"),
    "application/octet-stream": ("/v1/embeddings", "/pooling"),
    "": ("/health", "/ping"),  # empty
}


@dataclass(frozen=True)
class Judge:
    """Holds answers against what they must be."""

    secrets: Collection[bytes]  # what no answer may hold, unless its request held it
    allowed: Collection[tuple[int, str]] = frozenset()  # statuses from 500 on, with their codes

    def faults(self, attack: Attack, answer: Answer) -> list[str]:
        """Say what is wrong with an answer."""
        found = []
        if answer.late:
            found.append("no answer in time")
        if answer.garbage:
            found.append(f"no HTTP: {answer.garbage}")
        if answer.status >= 500 and (answer.status, answer.code) not in self.allowed:
            found.append(f"status {answer.status} {answer.code}")
        sent = attack.raw
        found += [
            f"holds {secret!r}" for secret in self.secrets if secret in answer.raw and secret not in sent
        ]
        if attack.waits and attack.leaves_after_bytes is None and not answer.late:
            if not answer.status:
                found.append("the connection ended without an answer")
            elif not answer.whole:
                found.append("the answer has no end")
        if answer.whole and attack.method != "HEAD":
            found += _shape(attack, answer)
        return found


def _shape(attack: Attack, answer: Answer) -> list[str]:
    kind = answer.media_type
    if answer.status >= 400:
        return [] if kind == "application/json" and answer.error is not None else ["an error of no shape"]
    if answer.status in (204, 304, 307) or attack.method == "OPTIONS":
        return []
    if kind == "application/json":
        return [] if _is_json(answer.body) else ["no JSON"]
    if kind == "text/event-stream":
        return _events(answer.body)
    path = re.split("[?#]", attack.path.removeprefix("http://example.com"))[0]
    if any(path == known or path.startswith(f"{known}/") for known in OTHER_TYPES.get(kind, ())):
        return []
    return [f"{kind} in answer to {path}"]


def _events(body: bytes) -> list[str]:
    found = []
    if not body.endswith(b"\n\n"):
        found.append("a stream that ends in mid-event")
    for event in body.split(b"\n\n")[:-1]:
        data = event.partition(b"data: ")[2]
        if data == b"[DONE]" or event.startswith(b":"):
            continue
        if not _is_json(data):
            found.append(f"an event that is no JSON: {event[:100]!r}")
        elif data.startswith(b'{"error"') and error_of(json.loads(data)) is None:
            found.append(f"an error of no shape: {event[:200]!r}")
    return found


def _is_json(data: bytes) -> bool:
    try:
        json.loads(data, parse_constant=_refuse)
    except ValueError:
        return False
    return True


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")
