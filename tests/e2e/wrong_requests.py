"""What is wrong with a request, and what vLLM 0.32 makes of it: a table.

`test_vllm_errors.py` holds it against plain vLLM, so that a new version shows what it does otherwise;
`test_hostile.py` asks for the same through the gateway, which answers each with a 400.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

CHAT, COMPLETION, RESPONSE = "/v1/chat/completions", "/v1/completions", "/v1/responses"
CONTENT: dict[str, dict[str, Any]] = {
    CHAT: {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 4},
    COMPLETION: {"prompt": "hello", "max_tokens": 4},
    RESPONSE: {"input": "hello", "max_output_tokens": 16},
}
BAD_SCHEMA = {"type": "object", "properties": {"a": {"type": "nonsense"}}}
BAD_FORMAT = {"type": "json_schema", "json_schema": {"name": "x", "schema": BAD_SCHEMA}}
BAD_TEXT = {"format": {"type": "json_schema", "name": "x", "schema": BAD_SCHEMA}}
PICTURE = {"type": "image_url", "image_url": {"url": "x"}}

REFUSED = "400"
BREAKS = "500"  # its handler does
IN_STREAM = "200, then 400"  # in the first event of the stream
CUT_OFF = "200, then nothing"  # the connection ends in the stream


@dataclass(frozen=True)
class Case:
    """One wrong request, and how plain vLLM answers it."""

    route: str
    fields: dict[str, Any]
    whole: str = REFUSED
    streamed: str = REFUSED

    def __str__(self) -> str:
        return f"{self.route.rpartition('/')[2]}-{str(self.fields)[:50]}"

    def body(self, stream: bool) -> dict[str, Any]:
        """What is sent."""
        return {"model": "support", **CONTENT[self.route], "stream": stream, **self.fields}


def _sampled(fields: dict[str, Any]) -> list[Case]:
    """What vLLM finds wrong once it has begun with a stream."""
    return [Case(route, fields, streamed=IN_STREAM) for route in (CHAT, COMPLETION)]


CASES = [
    Case(CHAT, {"logprobs": True, "top_logprobs": 50}, streamed=IN_STREAM),
    Case(COMPLETION, {"logprobs": 50}, streamed=IN_STREAM),
    *_sampled({"structured_outputs": {"regex": "[a-"}}),
    Case(RESPONSE, {"structured_outputs": {"regex": "[a-"}}, streamed=CUT_OFF),
    *_sampled({"structured_outputs": {"json": BAD_SCHEMA}}),
    Case(RESPONSE, {"structured_outputs": {"json": BAD_SCHEMA}}, streamed=CUT_OFF),
    *_sampled({"structured_outputs": {"grammar": "root ::= nothing"}}),
    *(Case(route, {"structured_outputs": 1}, BREAKS, BREAKS) for route in (CHAT, COMPLETION)),
    Case(RESPONSE, {"structured_outputs": 1}),
    *_sampled({"structured_outputs": {"choice": []}}),
    Case(CHAT, {"response_format": BAD_FORMAT}, streamed=IN_STREAM),
    Case(RESPONSE, {"text": BAD_TEXT}, streamed=CUT_OFF),
    Case(RESPONSE, {"tools": 1}),
    *(Case(route, {"temperature": -1}) for route in (CHAT, COMPLETION, RESPONSE)),
    *_sampled({"logit_bias": {"99999999": 1}}),
    Case(CHAT, {"messages": [{"role": "user", "content": "hello " * 5000}]}),
    Case(COMPLETION, {"prompt": [1] * 5000}),
    Case(COMPLETION, {"prompt": [10**9]}, streamed=IN_STREAM),
    Case(CHAT, {"messages": [{"role": "user", "content": [PICTURE]}]}),
]
