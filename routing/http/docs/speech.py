"""How are the routes for recordings called? Their part of the OpenAPI document, as plain data. Pure."""

from __future__ import annotations

from typing import Any

from engines.protocol import Kind
from routing.openai import speech

Part = dict[str, Any]

RECORDING: Part = {
    "type": "string",
    "format": "binary",
    "description": "The recording: WAV, FLAC or OGG, and what else the engine's audio libraries read.",
}
FORM = "multipart/form-data"
_FORMATS = "`json`, `text` and `verbose_json`, and what else the model does; of vLLM 0.32 no `srt`, no `vtt`."
ENDPOINTS: dict[Kind, tuple[str, list[Part], list[Any], str]] = {
    Kind.TRANSCRIPTION: (
        "Write down a recording",
        [RECORDING],
        ["recording.wav"],
        "OpenAI's, where the model does speech.",
    ),
    Kind.TRANSLATION: (
        "Translate a recording into English",
        [RECORDING],
        ["recording.wav"],
        "OpenAI's, where the model does speech.",
    ),
}


def properties() -> Part:
    """Describe the fields of the form beside the recording, the model and the user."""
    kinds = {"string": speech.TEXTS, "boolean": speech.BOOLEANS, "integer": speech.INTEGERS}
    fields: Part = {
        name: {"type": kind} for kind, names in {**kinds, "number": speech.NUMBERS}.items() for name in names
    }
    fields["response_format"] = {"type": "string", "default": "json", "description": _FORMATS}
    fields[speech.GRANULARITIES] = {"type": "array", "items": {"enum": ["word", "segment"]}}
    return fields
