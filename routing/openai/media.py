"""May this picture, recording or film go to an engine? As a `data:` URL, or from an allowed host. Pure.

An engine fetches what an address names, from inside the operator's network. So only https addresses of the
hosts go on that the base model lists, written so plainly that no two parsers read them differently; the
engine itself is started with the same list and follows no redirect.

vLLM keeps media by a name that a part may give (`uuid`), for all callers of an engine: a part with the name
alone stands for what somebody sent under it. So each tenant's names are made its own.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from fleet.content import Media
from routing.errors import InvalidRequest, OverLimit
from routing.openai.endpoints import Endpoint

NOT_ALLOWED = "media_not_allowed"
# Fields of a part (vLLM's renderers/chat_utils.py, entrypoints/anthropic/serving.py) -> what they hold.
_FIELDS: Mapping[str, str] = {
    "image_url": "image",
    "audio_url": "audio",
    "video_url": "video",
    "file_url": "file",
    "input_audio": "audio",
    "source": "image",  # Anthropic's
    "image_pil": "object",
    "image_embeds": "tensor",
    "audio_embeds": "tensor",
    "video_embeds": "tensor",
}
_INSIDE = ("content", "output")  # of a message, a result or an item: where its parts are
_BESIDE = ("system", "previous_input_messages")  # beside an endpoint's own content
_SHOWN_CHARS = 80
# A query or a path may hold what is printable, but no backslash, which some parsers take for a slash.
_ADDRESS = re.compile(r"https://([A-Za-z0-9.-]{1,253})(?::443)?(?:/[!-\[\]-~]*)?", re.ASCII)
_DATA = re.compile(
    r"data:([a-z]+)/[a-z0-9.+-]{1,60}(?:;[a-z0-9.+-]{1,40}=[a-z0-9.+-]{1,40}){0,4};base64,", re.I
)
_FORMAT = re.compile(r"[A-Za-z0-9.+-]{1,20}", re.ASCII)

Part = dict[str, Any]


def check(payload: Mapping[str, Any], endpoint: Endpoint, media: Media, *, salt: str) -> None:
    """Check the media in a body, and give their names the tenant's salt in place.

    Raises `InvalidRequest` for one that may not be used, `OverLimit` for too many or too large ones.
    """
    names = (*dict.fromkeys(name for way in endpoint.content for name in way), *_BESIDE)
    count = 0
    for name in names:
        for part in _parts(payload.get(name)):
            for field in part.keys() & _FIELDS.keys():
                if part[field] is not None:
                    count += 1
                    _check_field(f"{name}…{field}", _FIELDS[field], part[field], media)
            if part.get("uuid") is not None:
                part["uuid"] = _own_name(part["uuid"], salt)
    if count > media.per_request:
        raise OverLimit(f"The request has {count} media; the most that is taken is {media.per_request}.")


def _parts(value: Any) -> Iterator[Part]:
    """Yield every object in which a part may stand: messages, items, their contents and results."""
    waiting = [value]
    while waiting:
        found = waiting.pop()
        if type(found) is list:
            waiting += found
        elif type(found) is dict:
            yield found
            waiting += (found[name] for name in _INSIDE if name in found)


def _own_name(name: object, salt: str) -> str:
    return hashlib.blake2b(f"{salt}:{name}".encode(), digest_size=16).hexdigest()


def _check_field(name: str, holds: str, value: Any, media: Media) -> None:
    """Check one medium, in whichever form it is given; vLLM refuses other forms."""
    if holds == "object":
        raise InvalidRequest(f"`{name}` is no JSON.", param=name, code=NOT_ALLOWED)
    if holds == "tensor":
        _check_size(name, _texts(value), media)
    elif type(value) is str:
        _check_url(name, holds, value, media)
    elif type(value) is dict:
        if value.get("url") is not None:
            _check_url(name, holds, value["url"], media)
        if value.get("data") is not None:
            _check_encoded(name, holds, value, media)
    else:
        raise InvalidRequest(f"`{name}` must be a URL.", param=name, code="invalid_type")


def _check_encoded(name: str, holds: str, value: Part, media: Media) -> None:
    """Check what is given as base64 beside its format or media type."""
    told = value.get("format") or value.get("media_type") or f"{holds}/"
    kind = told.partition("/")[0].lower() if type(told) is str and "/" in told else holds
    if kind != holds or not (type(told) is str and _FORMAT.fullmatch(told.rpartition("/")[2] or "x")):
        raise _wrong_kind(name, holds)
    _check_size(name, [value["data"]], media)


def _check_url(name: str, holds: str, url: Any, media: Media) -> None:
    if type(url) is not str:
        raise InvalidRequest(f"`{name}` must be a URL.", param=name, code="invalid_type")
    if url[:5].lower() == "data:":
        data = _DATA.match(url)
        if data is None or data[1].lower() != holds:
            raise _wrong_kind(name, holds)
        return _check_size(name, [url[data.end() :]], media)
    address = _ADDRESS.fullmatch(url)
    if address is None or address[1].lower() not in media.hosts:
        allowed = f"https://{' and https://'.join(media.hosts)}" if media.hosts else "no address"
        raise InvalidRequest(
            f"`{name}` may be a `data:` URL, or an address of a host that this model allows: {allowed}. "
            f"It is `{url[:_SHOWN_CHARS]}`.",
            param=name,
            code=NOT_ALLOWED,
        )
    return None


def _check_size(name: str, encoded: Iterable[Any], media: Media) -> None:
    """Raise `OverLimit` for base64 that stands for more than is allowed."""
    size = sum(len(each) * 3 // 4 for each in encoded if type(each) is str)
    if size > media.max_bytes:
        raise OverLimit(
            f"`{name}` has {size} bytes; the most that is taken is {media.max_bytes}.", param=name
        )


def _texts(value: Any) -> Iterable[Any]:
    return value.values() if type(value) is dict else [value]


def _wrong_kind(name: str, holds: str) -> InvalidRequest:
    how = f"`data:{holds}/<type>;base64,<data>`" if holds != "file" else "no `data:` URL"
    return InvalidRequest(f"`{name}` must be {how}.", param=name, code="invalid_value")
