"""What do BentoML's clients learn of the service? Its `/schema.json`: a method for each endpoint. Pure.

`bentoml.SyncHTTPClient(url, token=key).chat(messages=[...], model="support")` sends the named fields as a
JSON body and returns the answer. A client refuses fields that are not named here, so all are whose types are
known. Streams are left out: a method of these clients returns either always a stream or never.
"""

from __future__ import annotations

from typing import Any

from engines.protocol import Kind
from routing.openai.endpoints import ENDPOINTS
from routing.openai.vllm_fields import FIELDS

_OF_STREAMS = frozenset({"stream", "stream_options", "stream_interval"})


def document() -> dict[str, Any]:
    """Build the document."""
    return {"name": "gateway", "type": "service", "routes": [_route(kind) for kind in FIELDS]}


def _route(kind: Kind) -> dict[str, Any]:
    ways = ENDPOINTS[kind].content
    content = list(dict.fromkeys(name for names in ways for name in names))
    fields = (*content, "model", *sorted(FIELDS[kind].keys() - _OF_STREAMS - set(content)))
    return {
        "name": kind.name.lower(),
        "route": kind.value,
        "doc": f"POST {kind.value}",
        "batchable": False,
        "input": {
            "type": "object",
            "title": "Input",
            "properties": {name: {} for name in fields},
            "required": list(ways[0]) if len(ways) == 1 else [],
        },
        "output": {"type": "object", "title": "Output"},
    }
