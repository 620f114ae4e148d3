"""What is spoiled beside the body: key, headers, path, and how much is sent or how soon the client leaves."""

from __future__ import annotations

import random
from collections.abc import Callable

from tests.hostile.request import Attack, World
from tests.hostile.values import text

QUERIES = ("tenant", "from", "to", "group_by", "before", "after", "limit", "state", "model", "pool", "x")


def spoil_key(chance: random.Random, made: Attack, world: World) -> None:
    given = chance.choice((
        [], ["Bearer"], ["Bearer "], [f"bearer {world.key}"], [f"Basic {world.key}"], [world.key],
        [f"Bearer {world.key} x"], [f"Bearer  {world.key}"], [f"Bearer {world.key[:-1]}"],
        [f"Bearer {world.key}", f"Bearer {world.key}"], [f"Bearer {world.key}", f"Bearer {world.admin_key}"],
        [f"Bearer {world.admin_key}"], [f"Bearer {chance.choice(world.broken_keys)}"],
        [f"Bearer {chance.choice(world.foreign)}"], ["Bearer \u00e4\u00ff"], ["Bearer " + "x" * 5000],
    ))  # fmt: skip
    made.headers = [(name, value) for name, value in made.headers if name != "authorization"]
    made.headers += [("authorization", value) for value in given]
    made.how.append("key")


def spoil_head(chance: random.Random, made: Attack, world: World) -> None:
    spoil = chance.choice(HEADS)
    made.how.append(spoil.__name__.removeprefix("_"))
    spoil(chance, made, world)
    if made.method in ("HEAD", "GET", "OPTIONS", "TRACE"):
        made.model = None


def _content_type(chance: random.Random, made: Attack, world: World) -> None:
    types = ("text/plain", "", "application/json; charset=utf-16", "multipart/form-data", "APPLICATION/JSON")
    value = chance.choice((*types, "application/x-tar", "\u00e4", "a" * 3000))
    made.headers = [(n, v) for n, v in made.headers if n != "content-type"] + [("content-type", value)]


def _wrong_length(chance: random.Random, made: Attack, world: World) -> None:
    wrong = ("", "-1", "0", "1", "x", "+5", "1e3", "0x10", " 7 ", "9" * 30, "2147483648")
    near = str(max(0, len(made.body) + chance.choice((-20, -1, 1, 1000))))
    made.length, made.waits = chance.choice((*wrong, near, near, near)), False


def _two_framings(chance: random.Random, made: Attack, world: World) -> None:
    made.headers.append(("transfer-encoding", chance.choice(("chunked", "gzip, chunked", "xchunked"))))
    made.waits = False


def _many_headers(chance: random.Random, made: Attack, world: World) -> None:
    made.headers += [(f"x-{n}", "y" * chance.choice((1, 50))) for n in range(chance.choice((50, 150)))]


def _long_header(chance: random.Random, made: Attack, world: World) -> None:
    made.headers.append(("cookie", "z" * chance.choice((3000, 70_000))))


def _request_id(chance: random.Random, made: Attack, world: World) -> None:
    value = chance.choice(("a b", "x\ty", "\u00e4", "\x01", "y" * 200, "", "../x", world.foreign[0]))
    made.headers = [(n, v) for n, v in made.headers if n != "x-request-id"] + [("x-request-id", value)]


def _odd_header(chance: random.Random, made: Attack, world: World) -> None:
    names = ("x-forwarded-for", "forwarded", "traceparent", "expect", "upgrade", "range", "accept-encoding")
    values = ("127.0.0.1", "for=127.0.0.1", "00-" + "0" * 32 + "-" + "1" * 16 + "-01", "100-continue")
    made.headers += [(chance.choice(names), chance.choice((*values, "websocket", "bytes=0-", "gzip")))]


def _inner_header(chance: random.Random, made: Attack, world: World) -> None:
    inner = ("x-tenantry-token", "x-tenantry-adapter", "x-tenantry-fault", "x-tenantry-replica")
    made.headers += [(chance.choice(inner), chance.choice((*world.foreign, "engine", "adapter", "x")))]


def _version(chance: random.Random, made: Attack, world: World) -> None:
    made.http = chance.choice(("HTTP/1.0", "HTTP/2.0", "HTTP/9.9", "http/1.1", "", "XTTP/1.1"))


def _method(chance: random.Random, made: Attack, world: World) -> None:
    made.method = chance.choice(("GET", "HEAD", "OPTIONS", "PUT", "PATCH", "DELETE", "TRACE", "post", "X"))


def _bad_header(chance: random.Random, made: Attack, world: World) -> None:
    made.headers.append(chance.choice((("bad name", "x"), ("x", "a\r\n b"), ("x\0y", "z"), ("", "x"))))


def _request_ahead(chance: random.Random, made: Attack, world: World) -> None:
    head = f"GET /v1/models HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {world.key}\r\n\r\n"
    made.ahead, made.waits = head.encode(), False  # where the second is refused, the first may go unanswered


HEADS: tuple[Callable[[random.Random, Attack, World], None], ...] = (
    _content_type, _wrong_length, _wrong_length, _two_framings, _many_headers, _long_header,
    _request_id, _odd_header, _inner_header, _version, _method, _bad_header, _request_ahead, _request_ahead,
)  # fmt: skip


def spoil_path(chance: random.Random, made: Attack, world: World) -> None:
    path = made.path
    made.path = chance.choice((
        path + "/", "/" + path, path + "%00", path.replace("/v1/", "/v1/%2e%2e/v1/"), path.upper(),
        path + "?", path + "?" + "&".join(f"{name}={quoted(text(chance)[:30])}" for name in 6 * QUERIES),
        path + f"/{chance.choice(world.foreign)}", path + "/../../etc/passwd", "http://example.com" + path,
        "//" + path, "*", "x" + path, path + "#x", path + "?x=%ff", path + "%ff", path + "\u00e4",
        "/" + "p" * 8000,
    ))  # fmt: skip
    made.model = None
    made.how.append("path")


def break_off(chance: random.Random, made: Attack, world: World) -> None:
    if chance.random() < 0.4:
        made.sent_bytes, made.waits = chance.randrange(len(made.raw)), False
        made.model = None
        made.how.append("sent in part")
    else:
        made.leaves_after_bytes = chance.choice((0, 1, 200, 600, 900))
        made.how.append("leaves")


def quoted(value: str) -> str:
    """For a URL; what is no ASCII and no space goes as it is, or percent by percent."""
    return "".join(c if c.isalnum() or c in "-._~:,+" else f"%{ord(c) % 256:02x}" for c in value)
