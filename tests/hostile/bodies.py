"""What does the hostile client send? Every request follows from a seed and a number, and from nothing else.

    python -m tests.hostile.bodies SEED NUMBER [small|demo]

shows one request again. It begins with what is right and spoils it: fields,
text, headers, key, path, and how much of it is sent or how soon the client leaves.
"""

from __future__ import annotations

import copy
import gzip
import json
import random
import sys
from collections.abc import Callable, Mapping
from typing import Any

from engines.protocol import Kind
from routing.openai.bodies import DROPPED_FIELDS, OVERWRITTEN_FIELDS
from routing.openai.endpoints import ENDPOINTS
from routing.openai.vllm_fields import FIELDS
from tests.hostile.heads import QUERIES, break_off, quoted, spoil_head, spoil_key, spoil_path
from tests.hostile.request import Attack, World
from tests.hostile.values import anything, deep, fitting, text

SEED = 1
FEW_TOKENS = 4
CHAT, COMPLETION, EMBEDDING, RESPONSE = Kind.CHAT, Kind.COMPLETION, Kind.EMBEDDING, Kind.RESPONSE
VALID: Mapping[Kind, dict[str, Any]] = {
    CHAT: {"messages": [{"role": "user", "content": "hello"}], "max_tokens": FEW_TOKENS},
    COMPLETION: {"prompt": "hello", "max_tokens": FEW_TOKENS},
    EMBEDDING: {"input": "hello"},
    RESPONSE: {"input": "hello", "max_output_tokens": FEW_TOKENS},
    Kind.CHAT_BATCH: {"messages": [[{"role": "user", "content": "hello"}]], "max_tokens": FEW_TOKENS},
    Kind.POOLING: {"input": "hello"},
    Kind.SCORE: {"queries": "hello", "documents": ["hello", "bye"]},
    Kind.RERANK: {"query": "hello", "documents": ["hello", "bye"]},
    Kind.TOKENIZE: {"prompt": "hello"},
    Kind.DETOKENIZE: {"tokens": [1, 2, 3]},
    Kind.MESSAGES: {"messages": [{"role": "user", "content": "hello"}], "max_tokens": FEW_TOKENS},
    Kind.COUNT_TOKENS: {"messages": [{"role": "user", "content": "hello"}]},
}
READS = (
    *("/v1/models", "/v1/models/support", "/v1/usage", "/v1/usage?from=2026-01-01&to=2026-01-02", "/metrics"),
    *("/metrics/shared-0", "/", "/console", "/docs", "/openapi.json", "/readyz", "/livez", "/healthz"),
    *("/health", "/ping", "/version", "/load"),
    *(
        "/v1",
        "/v1/files",
        "/v1/batches",
        "/v1/chat",
        "/schema.json",
        "/static_content/x",
        "/favicon.ico",
        "/tokenizer_info",
    ),
)
ADAPTERS = "/admin/v1/adapters"
ADMIN = (
    ("GET", ADAPTERS), ("POST", ADAPTERS), ("GET", f"{ADAPTERS}/support"), ("DELETE", f"{ADAPTERS}/support"),
    ("POST", f"{ADAPTERS}/support/versions"), ("GET", f"{ADAPTERS}/support/versions/1"),
    ("POST", f"{ADAPTERS}/support/versions/1/verify"), ("DELETE", f"{ADAPTERS}/support/versions/1"),
    ("POST", f"{ADAPTERS}/support/promote"), ("POST", f"{ADAPTERS}/support/rollback"),
    ("POST", f"{ADAPTERS}/support/rollout"), ("POST", f"{ADAPTERS}/support/pin"),
    ("GET", "/admin/v1/keys"), ("POST", "/admin/v1/keys"), ("DELETE", "/admin/v1/keys/x"),
    ("GET", "/admin/v1/usage"), ("GET", "/admin/v1/events"), ("GET", "/admin/v1/tenants"),
    ("GET", "/admin/v1/scheduler"), ("GET", "/admin/v1/replicas"), ("GET", "/admin/v1/live"),
    ("POST", "/admin/v1/replicas/shared-0/drain"), ("POST", "/admin/v1/replicas/shared-0/resume"),
    ("GET", "/admin/v1/openapi.json"), ("GET", "/admin/v1/whoami"), ("GET", "/admin/v1/nothing"),
)  # fmt: skip
ADMIN_BODY: dict[str, Any] = {
    "name": "support", "source": "https://127.0.0.1:1/x.tar", "base_model": "base", "sha256": "0" * 64,
    "rollout": {"weight": 0.1}, "version": 1, "role": "adapters", "note": "x", "expires_in_s": 60.0,
}  # fmt: skip
LOADS = ("/v1/load_lora_adapter", "/v1/unload_lora_adapter")
LOAD_BODY = {"lora_name": "x", "lora_path": "file:///etc/passwd", "load_inplace": False}


def attack(seed: int, number: int, world: World) -> Attack:
    """Make the request of that number."""
    chance = random.Random(f"{seed}/{number}")
    made = FAMILIES[number % len(FAMILIES)](chance, number, world)
    made.how.insert(0, f"seed {seed}")
    for likely, spoil in ((0.12, spoil_key), (0.2, spoil_head), (0.08, spoil_path), (0.15, break_off)):
        if chance.random() < likely:
            spoil(chance, made, world)
    return made


def harmless(number: int, world: World, tokens: int) -> Attack:
    """A right request for so many tokens, for the same load without harm."""
    route = (CHAT, COMPLETION, RESPONSE)[number % 3]
    limit = "max_output_tokens" if route == RESPONSE else "max_tokens"
    body = {"model": world.models[0], **VALID[route], "stream": number % 2 == 1}
    body |= {limit: tokens, "ignore_eos": True}
    made = Attack(number, "POST", route, _headers(number, world.key), json.dumps(body).encode())
    made.headers[-1:] = [("x-request-id", f"harmless-{number}"), ("content-type", "application/json")]
    return made


# -- what it begins with -----------------------------------------------------------------------------------


def _headers(number: int, key: str) -> list[tuple[str, str]]:
    return [
        ("host", "localhost"),
        ("authorization", f"Bearer {key}"),
        ("x-request-id", f"hostile-{number}"),
    ]


def _posts(route: Kind) -> Callable[[random.Random, int, World], Attack]:
    def make(chance: random.Random, number: int, world: World) -> Attack:
        model = chance.choice(world.models)
        body: dict[str, Any] = {"model": model, **copy.deepcopy(VALID[route])}
        if chance.random() < 0.5 and ENDPOINTS[route].streams:
            body["stream"] = True
        if chance.random() < 0.2 and ENDPOINTS[route].streams:
            body["stream_options"] = {"include_usage": chance.random() < 0.5}
        made = Attack(number, "POST", route, _headers(number, world.key), model=model)
        made.headers.append(("content-type", "application/json"))
        for _ in range(chance.choice((0, 1, 1, 1, 2, 3))):
            _spoil_body(chance, made, body, world)
        made.body = _written(chance, made, body)
        return made

    return make


def _read(chance: random.Random, number: int, world: World) -> Attack:
    return Attack(number, "GET", chance.choice(READS), _headers(number, world.key), how=["reads"])


def _manage(chance: random.Random, number: int, world: World) -> Attack:
    method, path = chance.choice(ADMIN)
    key = world.admin_key if chance.random() < 0.7 else world.key
    made = Attack(number, method, path, _headers(number, key), how=["manages"])
    if chance.random() < 0.4:
        made.path += f"?{chance.choice(QUERIES)}={quoted(text(chance)[:200])}"
    if method == "POST":
        made.headers.append(("content-type", "application/json"))
        names = chance.sample(list(ADMIN_BODY), chance.randint(0, 4))
        body = {name: ADMIN_BODY[name] if chance.random() < 0.5 else anything(chance) for name in names}
        made.body = _written(chance, made, body)
    return made


def _load(chance: random.Random, number: int, world: World) -> Attack:
    key = world.admin_key if chance.random() < 0.7 else world.key
    made = Attack(number, "POST", chance.choice(LOADS), _headers(number, key), how=["loads"])
    made.headers.append(("content-type", "application/json"))
    body: dict[str, Any] = dict(LOAD_BODY)
    for _ in range(chance.randint(0, 2)):
        name = chance.choice((*LOAD_BODY, "lora_int_id", "is_3d_lora_weight"))
        body[name] = anything(chance) if chance.random() < 0.6 else chance.choice(world.foreign)
    made.body = _written(chance, made, body)
    return made


def _upload(chance: random.Random, number: int, world: World) -> Attack:
    """A form with a file, of which something may be wrong."""
    made = Attack(number, "POST", "/v1/files", _headers(number, world.key), how=["uploads"])
    boundary = chance.choice(("cut", "-", "x" * 70, "x" * 300, ""))
    made.headers.append(("content-type", f"multipart/form-data; boundary={boundary}"))
    names = chance.choices(("purpose", "file", "expires_after[seconds]", "", "../x", text(chance)[:50]), k=3)
    parts = [
        f'--{boundary}\r\ncontent-disposition: form-data; name="{name}"{chance.choice(_FORM_HEADS)}\r\n\r\n'
        + chance.choice(("batch", "{}", text(chance), "1e9", "\r\n--" + boundary))
        for name in ("purpose", *names)
    ]
    whole = "\r\n".join((*parts, f"--{boundary}--\r\n")).encode("utf-8", "surrogatepass")
    made.body = whole if chance.random() < 0.7 else whole[: chance.randrange(len(whole))]
    return made


_FORM_HEADS = ("", '; filename="../../etc/passwd"', '; filename="\0"', "\r\ncontent-type: x\r\na", "\r\n: ")
BATCH_BODY: dict[str, Any] = {
    "input_file_id": "file-0", "endpoint": "/v1/chat/completions", "completion_window": "24h", "metadata": {},
}  # fmt: skip


def _batch(chance: random.Random, number: int, world: World) -> Attack:
    """A batch of nothing, or a question for one that is not there."""
    method, path = chance.choice((
        ("POST", "/v1/batches"), ("POST", "/v1/batches"), ("POST", "/v1/batches/batch_0/cancel"),
        ("GET", "/v1/batches/batch_0"), ("GET", "/v1/files/file-0/content"), ("DELETE", "/v1/files/file-0"),
        ("GET", "/v1/files/..%2f..%2fhome"), ("GET", "/v1/responses/resp_0"),
    ))  # fmt: skip
    made = Attack(number, method, path, _headers(number, world.key), how=["a batch"])
    if chance.random() < 0.3:
        made.path += f"?{chance.choice(QUERIES)}={quoted(text(chance)[:200])}"
    if method == "POST":
        made.headers.append(("content-type", "application/json"))
        body = {**BATCH_BODY, chance.choice(list(BATCH_BODY)): anything(chance)}
        made.body = _written(chance, made, body)
    return made


FAMILIES = (*(_posts(route) for route in VALID), _read, _manage, _load, _upload, _batch)


# -- what is spoiled ---------------------------------------------------------------------------------------


def _spoil_body(chance: random.Random, made: Attack, body: dict[str, Any], world: World) -> None:
    known = FIELDS[Kind(made.path)]
    kind = chance.random()
    if kind < 0.35:
        name = chance.choice(
            (*known, *VALID[Kind(made.path)], "stream", *DROPPED_FIELDS, *OVERWRITTEN_FIELDS)
        )
        body[name] = anything(chance)
    elif kind < 0.7:
        name = chance.choice(list(known))
        body[name] = fitting(chance, known[name])
    elif kind < 0.8:
        name = f"at {_replace_somewhere(chance, body)}"
    elif kind < 0.85:
        name = text(chance)[:50]
        body[name] = anything(chance)
    elif kind < 0.9:
        name = chance.choice(list(body))
        del body[name]
    else:
        name = "model"
        body[name] = _model(chance, world)
    if body.get("model") != made.model:
        made.model = None
    made.how.append(f"field {name!r}")


def _replace_somewhere(chance: random.Random, value: Any, depth: int = 0) -> str:
    """Put anything in the place of one part of a value; returns where that was."""
    places = list(value) if isinstance(value, dict) else range(len(value))
    place = chance.choice(list(places))
    inner = value[place]
    if isinstance(inner, (dict, list)) and inner and (depth < 4 and chance.random() < 0.7):
        return f"{place}.{_replace_somewhere(chance, inner, depth + 1)}"
    value[place] = anything(chance)
    return str(place)


def _model(chance: random.Random, world: World) -> Any:
    own, foreign = chance.choice(world.models).partition("@")[0], chance.choice(world.foreign)
    names = (
        *(
            f"{own}@1",
            f"{own}@2",
            f"{own}@-1",
            f"{own}@{2**64}",
            f"{own}@",
            f"{own}@1@1",
            f" {own}",
            own.upper(),
        ),
        *(
            foreign,
            f"{foreign}@1",
            f"{own}/../{foreign}",
            f"../{foreign}",
            f"{own}\0{foreign}",
            f"{foreign}\n",
        ),
    )
    return chance.choice(names) if chance.random() < 0.8 else anything(chance)


def _written(chance: random.Random, made: Attack, body: Any) -> bytes:
    """The body's text, which may be no JSON, or a strange one."""
    whole = json.dumps(body, ensure_ascii=chance.random() < 0.5)
    data = whole.encode("utf-8", "surrogatepass")
    if chance.random() < 0.85:
        return data
    ways: tuple[tuple[str, Callable[[], bytes]], ...] = (
        ("cut JSON", lambda: data[: chance.randrange(len(data))]),
        ("more after JSON", lambda: data + chance.choice((b"}", b"\n{}", b"\0", b"//", data))),
        ("BOM", lambda: b"\xef\xbb\xbf" + data),
        ("UTF-16", lambda: whole.encode("utf-16")),
        (
            "bad UTF-8",
            lambda: data[:-1] + b',"x":"' + chance.choice((b"\xff", b"\xc3", b"\xed\xa0\x80")) + b'"}',
        ),
        ("lone surrogate", lambda: data[:-1] + b',"user":"\\ud800"}'),
        (
            "not a number",
            lambda: data[:-1] + chance.choice((b',"seed":NaN}', b',"seed":1e999}', b',"n":-0}')),
        ),
        ("long number", lambda: data[:-1] + b',"seed":' + b"9" * chance.choice((19, 20, 400)) + b"}"),
        ("twice the same name", lambda: data[:-1] + b',"model":"x","stream":1,"stream":true}'),
        ("not an object", lambda: json.dumps([body]).encode()),
        ("anything", lambda: json.dumps(anything(chance)).encode("utf-8", "surrogatepass")),
        (
            "deep",
            lambda: json.dumps({**body, "user": deep(chance)} if isinstance(body, dict) else body).encode(),
        ),
        ("deeper", lambda: b'{"x":' * 2000 + b"1" + b"}" * 2000),
        ("no body", lambda: b""),
        ("gzip", lambda: gzip.compress(data, mtime=0)),
        ("bytes", lambda: chance.randbytes(chance.choice((1, 20, 3000)))),
        ("blank", lambda: b" " * chance.choice((1, 5000))),
    )
    name, write = chance.choice(ways)
    made.how.append(name)
    made.model = None
    if name == "gzip" and chance.random() < 0.5:
        made.headers.append(("content-encoding", "gzip"))
    return write()


def main(arguments: list[str]) -> None:
    """Show one request again."""
    from tests.hostile.worlds import WORLDS

    seed, number, world = *map(int, arguments[:2]), WORLDS[(*arguments, "small")[2]]
    sys.stdout.write(f"{attack(seed, number, world)}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
