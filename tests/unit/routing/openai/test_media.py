"""Which media go to an engine? Data URLs within bounds, and addresses of hosts that the model allows."""

from __future__ import annotations

import base64
import copy
from collections.abc import Callable
from typing import Any

import orjson
import pytest

from engines.protocol import Kind
from fleet.content import Media
from routing.errors import InvalidRequest, OverLimit
from routing.openai import bodies, media
from routing.openai.endpoints import ENDPOINTS

ALLOWED = Media(hosts=("pictures.example",), max_mib=1, per_request=2)
OWN = "https://pictures.example/a%20b/c.png?size=2&q=[1]"
DATA = "data:image/png;base64,iVBORw0KGgo="
_Places = dict[str, Callable[[Any], dict[str, Any]]]


def said(content: Any) -> list[Any]:
    return [{"role": "user", "content": content}]


# Where a URL can stand in a message of OpenAI's form, as vLLM reads it; the field that names it comes first.
PARTS: dict[str, Callable[[Any], dict[str, Any]]] = {
    "image_url": lambda url: {"type": "image_url", "image_url": {"url": url}},
    "image_url, plain": lambda url: {"type": "image_url", "image_url": url},
    "image_url, untyped": lambda url: {"image_url": url},
    "image_url, as text": lambda url: {"type": "text", "text": "x", "uuid": "u", "image_url": {"url": url}},
    "image_url, beside another": lambda url: {
        "type": "audio_url",
        "audio_url": None,
        "image_url": {"url": url},
    },
    "input_image": lambda url: {"type": "input_image", "image_url": url, "detail": "auto"},
}


def in_chat(part: Callable[[Any], dict[str, Any]]) -> Callable[[Any], dict[str, Any]]:
    return lambda url: {"messages": said([part(url)])}


def in_batch(chat: Callable[[Any], dict[str, Any]]) -> Callable[[Any], dict[str, Any]]:
    return lambda url: {"messages": [chat(url)["messages"]]}


def in_pair(names: tuple[str, ...], side: int) -> Callable[[Any], dict[str, Any]]:
    return lambda url: {
        **{name: ["x"] for name in names},
        names[side]: {"content": [PARTS["image_url"](url)]},
    }


CHATS: _Places = {name: in_chat(part) for name, part in PARTS.items()}
CHATS["a tool's result"] = lambda url: {
    "messages": [{"role": "tool", "tool_call_id": "x", "content": [PARTS["image_url"](url)]}]
}


def source(url: Any) -> dict[str, Any]:
    return {"type": "image", "source": {"type": "url", "url": url}}


ANTHROPIC: _Places = {
    "image": lambda url: {"max_tokens": 1, "messages": said([source(url)])},
    "a tool's result": lambda url: {
        "max_tokens": 1,
        "messages": said([{"type": "tool_result", "tool_use_id": "x", "content": [source(url)]}]),
    },
    "system": lambda url: {"max_tokens": 1, "system": [source(url)], "messages": said("x")},
}
PAIRS: _Places = {
    f"{side} of {names}": in_pair(names, side) for names in ENDPOINTS[Kind.SCORE].content for side in (0, 1)
}
RERANKS: _Places = {
    "query": lambda url: {"query": {"content": [PARTS["image_url"](url)]}, "documents": ["x"]},
    "document": lambda url: {"query": "x", "documents": ["x", {"content": [PARTS["image_url"](url)]}]},
}
RESPONSES: _Places = {
    "message": lambda url: {"input": said([PARTS["input_image"](url)])},
    "file": lambda url: {"input": said([{"type": "input_file", "file_url": url}])},
    "function's output": lambda url: {
        "input": [{"type": "function_call_output", "call_id": "x", "output": [PARTS["input_image"](url)]}]
    },
    "computer's output": lambda url: {
        "input": [{"type": "computer_call_output", "call_id": "x", "output": PARTS["input_image"](url)}]
    },
    "earlier input": lambda url: {"input": "x", "previous_input_messages": said([PARTS["image_url"](url)])},
}
PLACES: dict[Kind, _Places] = {
    Kind.CHAT: CHATS,
    Kind.CHAT_BATCH: {name: in_batch(chat) for name, chat in CHATS.items()},
    Kind.RESPONSE: RESPONSES,
    Kind.EMBEDDING: CHATS,
    Kind.POOLING: CHATS | {"input": lambda url: {"input": said([PARTS["image_url"](url)])}},
    Kind.SCORE: PAIRS,
    Kind.RERANK: RERANKS,
    Kind.TOKENIZE: CHATS,
    Kind.MESSAGES: ANTHROPIC,
    Kind.COUNT_TOKENS: ANTHROPIC,
}
ALL = [
    pytest.param(kind, of, id=f"{kind.name}-{name}")
    for kind, places in PLACES.items()
    for name, of in places.items()
]
WRONG = [
    "http://pictures.example/a.png",
    "https://other.example/a.png",
    "https://169.254.169.254/latest/meta-data",
    "https://localhost/a",
    "https://[::1]/a",
    "https://127.1/a",
    "https://pictures.example.other.example/a",
    "https://pictures.example@other.example/a",
    "https://other.example#@pictures.example/a",
    "https://other.example\\@pictures.example/a",
    "https://pictures.example\\@other.example/a",
    "https://pictures.example:8443/a",
    "https://pictures.example /a",
    "https://pictures.example/a\nb",
    " https://pictures.example/a",
    "https://pictures.example./a",
    "https://p\u0131ctures.example/a",
    "//pictures.example/a",
    "file:///etc/passwd",
    "FILE:///etc/passwd",
    "ftp://pictures.example/a",
    "pictures.example/a",
    "/etc/passwd",
    "gopher://pictures.example",
    "data:text/html;base64,AAAA",
    "data:image/png,AAAA",
    "data:;base64,AAAA",
    "data:audio/wav;base64,AAAA",
    " data:image/png;base64,AAAA",
    "",
    7,
    ["https://pictures.example/a"],
]


def check(
    kind: Kind, payload: dict[str, Any], allowed: Media = ALLOWED, salt: str = "salt"
) -> dict[str, Any]:
    """Check a body as the gateway does: only where it has met objects."""
    call = bodies.parse(kind, orjson.dumps(payload))
    if call.size.has_parts or "previous_input_messages" in call.payload:
        media.check(call.payload, call.endpoint, allowed, salt=salt)
    return call.payload


def test_all_endpoints_are_tried_whose_content_may_hold_media() -> None:
    assert PLACES.keys() == set(bodies.CONTROL) - {Kind.COMPLETION, Kind.DETOKENIZE}


@pytest.mark.parametrize(("kind", "place"), ALL)
def test_no_engine_fetches_what_its_model_does_not_allow(kind: Kind, place: Any) -> None:
    for url in WRONG:
        for allowed in (ALLOWED, Media()):
            with pytest.raises(InvalidRequest) as caught:
                check(kind, place(url), allowed)
            assert caught.value.code in ("media_not_allowed", "invalid_value", "invalid_type"), url


@pytest.mark.parametrize(("kind", "place"), ALL)
def test_a_host_that_is_allowed_is_asked_by_https(kind: Kind, place: Any) -> None:
    for url in (OWN, OWN.upper().replace("HTTPS", "https"), OWN.replace("/a", ":443/a", 1)):
        check(kind, place(url))
        with pytest.raises(InvalidRequest):
            check(kind, place(url), Media())


@pytest.mark.parametrize(("kind", "place"), [each for each in ALL if not str(each.id).endswith("file")])
def test_a_data_url_needs_no_permission_but_has_a_bound(kind: Kind, place: Any) -> None:
    check(kind, place(DATA), Media())
    check(kind, place("DATA:Image/SVG+xml;charset=utf-8;base64,AAAA"), Media())
    with pytest.raises(OverLimit):
        check(kind, place(DATA + "A" * (2**20 * 4 // 3)))


@pytest.mark.parametrize(("kind", "place"), ALL)
def test_only_so_many_media_go_into_a_request(kind: Kind, place: Any) -> None:
    with pytest.raises(OverLimit):
        check(kind, place(OWN), Media(hosts=ALLOWED.hosts, per_request=0))


@pytest.mark.parametrize("field", ["audio_url", "video_url"])
def test_each_kind_of_medium_is_what_it_is_called(field: str) -> None:
    kind = field.partition("_")[0]
    for told, right in ((kind, True), ("image", False)):
        payload = {"messages": said([{"type": field, field: {"url": f"data:{told}/x;base64,AAAA"}}])}
        if right:
            check(Kind.CHAT, payload)
        else:
            with pytest.raises(InvalidRequest):
                check(Kind.CHAT, payload)


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({"data": "AAAA", "format": "wav"}, None),
        ({"data": "A" * 2**21, "format": "wav"}, "request_over_limit"),
        ({"data": "AAAA", "format": "wav;base64,BBBB"}, "invalid_value"),
        ({"data": "AAAA", "format": 7}, "invalid_value"),
        ("https://other.example/a", "media_not_allowed"),
    ],
)
def test_recordings_within_a_body(given: Any, code: str | None) -> None:
    payload = {"messages": said([{"type": "input_audio", "input_audio": given}])}
    if code is None:
        check(Kind.CHAT, payload)
    else:
        with pytest.raises(InvalidRequest) as caught:
            check(Kind.CHAT, payload)
        assert caught.value.code == code


@pytest.mark.parametrize("kind", ["image/png", "image/jpeg"])
def test_anthropics_base64_has_the_same_bounds(kind: str) -> None:
    def of(data: str, media_type: str) -> dict[str, Any]:
        part = {"type": "image", "source": {"type": "base64", "media_type": media_type, "data": data}}
        return {"max_tokens": 1, "messages": said([part])}

    check(Kind.MESSAGES, of("AAAA", kind))
    for wrong in (of("A" * 2**21, kind), of("AAAA", "text/html"), of("AAAA", "image/png,x")):
        with pytest.raises(InvalidRequest):
            check(Kind.MESSAGES, wrong)


@pytest.mark.parametrize("field", ["image_embeds", "audio_embeds", "video_embeds"])
def test_made_up_embeddings_are_bounded_too(field: str) -> None:
    large = base64.b64encode(bytes(2**21)).decode()
    for value in (large, {"a": large}):
        with pytest.raises(OverLimit):
            check(Kind.CHAT, {"messages": said([{"type": field, field: value}])})


@pytest.mark.parametrize("name", ["u", "", 7, ["u"], {"u": 1}, True])
def test_the_name_under_which_an_engine_keeps_a_medium_is_its_tenants_own(name: Any) -> None:
    """Else one tenant could ask about another's picture by its name, or slip one under it."""
    payload = {"messages": said([{"type": "image_url", "image_url": None, "uuid": name}])}
    seen = {}
    for salt in ("one", "two"):
        for time in range(2):
            part = check(Kind.CHAT, copy.deepcopy(payload), salt=salt)["messages"][0]["content"][0]
            assert part["uuid"] not in (name, str(name)) and len(part["uuid"]) == 32
            seen[salt, time] = part["uuid"]
    assert seen["one", 0] == seen["one", 1] != seen["two", 0]


def test_what_a_tool_was_called_with_is_no_medium() -> None:
    used = {"type": "tool_use", "id": "x", "name": "fetch", "input": {"image_url": "http://10.0.0.1/a"}}
    check(Kind.MESSAGES, {"max_tokens": 1, "messages": [{"role": "assistant", "content": [used]}]})
    call = {
        "id": "x",
        "type": "function",
        "function": {"name": "f", "arguments": '{"image_url": "http://a"}'},
    }
    check(Kind.CHAT, {"messages": [{"role": "assistant", "content": None, "tool_calls": [call]}]})


def test_a_text_about_an_address_is_a_text() -> None:
    check(Kind.CHAT, {"messages": said([{"type": "text", "text": "see http://10.0.0.1/a.png"}])})
    check(Kind.CHAT, {"messages": said("http://10.0.0.1/a.png")})
