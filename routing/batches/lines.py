"""What is a line of a batch's file, and what of the files that come out of it? Pure.

A file that is wrong fails as a whole, before anything of it runs: each line must be a request to the batch's
endpoint, with a `custom_id` of its own. What only a model or its limits say, each line is told for itself.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator

import orjson

from engines.protocol import Kind
from routing.batches.values import MAX_LINES, Batch, Line, LineAnswer, Mistake

MAX_MISTAKES = 100  # that a batch names
MAX_CUSTOM_ID = 512  # characters


class WrongLine(Exception):
    """A line is no request of its batch."""

    def __init__(self, mistake: Mistake) -> None:
        super().__init__(mistake.message)
        self.mistake = mistake


def split(chunks: Iterable[bytes], *, max_bytes: int) -> Iterator[bytes]:
    """Give the lines of a file that comes in chunks; one longer than `max_bytes` is given cut off."""
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        yield from lines
        if len(rest) > max_bytes:
            rest = rest[: max_bytes + 1]
    if rest:
        yield rest


def read(chunks: Iterable[bytes], kind: Kind, *, max_bytes: int) -> Iterator[Line]:
    """Give the requests of a file, numbered as its lines are. Raises `WrongLine`; reading on is possible."""
    for number, raw in _requests(chunks, max_bytes):
        yield parse(raw, number, kind, max_bytes=max_bytes)


def mistakes_of(chunks: Iterable[bytes], kind: Kind, *, max_bytes: int) -> tuple[int, list[Mistake]]:
    """Look through a file; return how many requests it has, and what is wrong, up to `MAX_MISTAKES`."""
    seen: set[str] = set()
    mistakes: list[Mistake] = []
    requests = 0
    for number, raw in _requests(chunks, max_bytes):
        requests += 1
        if requests > MAX_LINES:
            return requests, [Mistake("too_many_tasks", f"A batch has at most {MAX_LINES} requests.")]
        try:
            custom_id = parse(raw, number, kind, max_bytes=max_bytes).custom_id
            if custom_id in seen:
                raise _wrong(number, "duplicate_custom_id", "This `custom_id` was there before.", "custom_id")
            seen.add(custom_id)
        except WrongLine as wrong:
            if len(mistakes) < MAX_MISTAKES:
                mistakes.append(wrong.mistake)
    if not requests:
        mistakes.append(Mistake("empty_file", "The file has no request."))
    return requests, mistakes


def parse(raw: bytes, number: int, kind: Kind, *, max_bytes: int) -> Line:
    """Read one line. Raises `WrongLine`."""
    if len(raw) > max_bytes:
        raise _wrong(number, "line_too_large", f"A line has at most {max_bytes} bytes.")
    try:
        told = orjson.loads(raw)
    except orjson.JSONDecodeError:
        raise _wrong(number, "invalid_json_line", "This line is not valid JSON.") from None
    if not isinstance(told, dict):
        raise _wrong(number, "invalid_request", "This line is not a JSON object.")
    custom_id, body = told.get("custom_id"), told.get("body")
    if not isinstance(custom_id, str) or not 0 < len(custom_id) <= MAX_CUSTOM_ID:
        raise _wrong(
            number,
            "invalid_custom_id",
            f"`custom_id` is a text of 1 to {MAX_CUSTOM_ID} characters.",
            "custom_id",
        )
    if told.get("method") != "POST":
        raise _wrong(number, "invalid_method", "`method` is POST.", "method")
    if told.get("url") != kind.value:
        raise _wrong(number, "invalid_url", f"`url` is the batch's endpoint, {kind.value}.", "url")
    if not isinstance(body, dict):
        raise _wrong(number, "invalid_body", "`body` is the request, a JSON object.", "body")
    if body.get("stream"):
        raise _wrong(number, "invalid_body", "A line of a batch cannot stream.", "body.stream")
    model = body.get("model")
    try:
        return Line(number, custom_id, model if isinstance(model, str) else None, orjson.dumps(body))
    except orjson.JSONEncodeError:
        raise _wrong(number, "invalid_body", "`body` is nested too deeply.", "body") from None


def answered(batch: Batch, line: Line, answer: LineAnswer) -> bytes:
    """Write the line of the output or error file for an answer; one that is no JSON has no body."""
    try:
        body = orjson.loads(answer.body)
    except orjson.JSONDecodeError:
        body = None
    response = {"status_code": answer.status, "request_id": request_id(batch, line), "body": body}
    try:
        return _written(batch, line, response, None)
    except orjson.JSONEncodeError:  # it is nested too deeply: orjson reads more levels than it writes
        return _written(batch, line, {**response, "body": None}, None)


def unanswered(batch: Batch, line: Line, code: str, message: str) -> bytes:
    """Write the line of the error file for a request that did not run."""
    return _written(batch, line, None, {"code": code, "message": message})


def request_id(batch: Batch, line: Line) -> str:
    """Return the id of a line's request: always the same one, and of no other line."""
    return f"{batch.id}-{line.number}"


def _requests(chunks: Iterable[bytes], max_bytes: int) -> Iterator[tuple[int, bytes]]:
    """Give the lines that are not empty, with their numbers; some editors begin a file with a mark."""
    for number, raw in enumerate(split(chunks, max_bytes=max_bytes), start=1):
        line = raw.removeprefix(codecs.BOM_UTF8) if number == 1 else raw
        if line.strip():
            yield number, line


def _written(batch: Batch, line: Line, response: object, error: object) -> bytes:
    told = {"id": f"batch_req_{batch.id.removeprefix('batch_')}_{line.number}", "custom_id": line.custom_id}
    return orjson.dumps({**told, "response": response, "error": error})


def _wrong(number: int, code: str, message: str, param: str | None = None) -> WrongLine:
    return WrongLine(Mistake(code, message, number, param))
