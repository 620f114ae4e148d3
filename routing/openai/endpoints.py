"""What does each endpoint of vLLM read, and what does it do? All that routing must know to tell them apart.

As vLLM 0.32 has them: `entrypoints/openai/*/protocol.py`, `entrypoints/pooling/*/protocol.py`,
`entrypoints/serve/tokenize/protocol.py`, `entrypoints/anthropic/protocol.py`,
`entrypoints/speech_to_text/*/protocol.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from engines.forms import FILE
from engines.protocol import Kind

# Of a body with a recording: vLLM takes 25 MiB of one (`VLLM_MAX_AUDIO_CLIP_FILESIZE_MB`), as OpenAI does.
RECORDING_BYTES = 26 * 2**20
TOKENIZED_BYTES = 2 * 2**20  # of a body that is only tokenized, which keeps an engine's HTTP process busy


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One endpoint."""

    content: tuple[tuple[str, ...], ...]  # required fields, one of these sets; the last holds what is read
    writes: bool = True  # the model generates; else it has no completion tokens
    streams: bool = True  # it may answer in events
    runs: bool = True  # the model runs; else only its tokenizer does, which nobody is charged for
    max_body_bytes: int | None = None  # beside the gateway's own bound
    anthropic: bool = False  # it has Anthropic's form, and so have its events and errors
    form: bool = False  # its body is a form with a recording, else JSON
    beside: tuple[str, ...] = ()  # fields with more text that the model reads, of this endpoint alone

    @property
    def usual(self) -> tuple[str, ...]:
        """The fields that a client sends, where there are several ways."""
        return self.content[0]


ENDPOINTS: Mapping[Kind, Endpoint] = {
    Kind.CHAT: Endpoint((("messages",),)),
    Kind.CHAT_BATCH: Endpoint((("messages",),), streams=False),
    Kind.COMPLETION: Endpoint((("prompt",),)),
    Kind.RESPONSE: Endpoint((("input",),)),
    Kind.EMBEDDING: Endpoint((("input",), ("messages",)), writes=False, streams=False),
    Kind.POOLING: Endpoint((("input",), ("messages",)), writes=False, streams=False),
    Kind.SCORE: Endpoint(
        (("queries", "documents"), ("queries", "items"), ("data_1", "data_2"), ("text_1", "text_2")),
        writes=False,
        streams=False,
    ),
    Kind.RERANK: Endpoint((("query", "documents"),), writes=False, streams=False),
    Kind.TOKENIZE: Endpoint(
        (("prompt",), ("messages",)), writes=False, streams=False, runs=False, max_body_bytes=TOKENIZED_BYTES
    ),
    Kind.MESSAGES: Endpoint((("max_tokens", "messages"),), anthropic=True),
    Kind.COUNT_TOKENS: Endpoint(
        (("messages",),),
        writes=False,
        streams=False,
        runs=False,
        max_body_bytes=TOKENIZED_BYTES,
        anthropic=True,
    ),
    Kind.DETOKENIZE: Endpoint(
        (("tokens",),), writes=False, streams=False, runs=False, max_body_bytes=TOKENIZED_BYTES
    ),
    **dict.fromkeys(
        (Kind.TRANSCRIPTION, Kind.TRANSLATION),
        Endpoint(((FILE,),), form=True, max_body_bytes=RECORDING_BYTES, beside=("prompt", "hotwords")),
    ),
}
