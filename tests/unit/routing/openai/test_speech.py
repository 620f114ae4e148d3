"""Forms with a recording: only what vLLM knows goes on, each value of its type."""

from __future__ import annotations

from typing import Any

import pytest

from engines.forms import BOUNDARY, CONTENT_TYPE
from engines.protocol import Kind
from fleet.content import Media
from routing.errors import InvalidRequest, OverLimit
from routing.openai import bodies, speech, texts
from routing.openai.endpoints import ENDPOINTS
from routing.types import Target
from tests.forms import RECORDING, read_form

KINDS = [Kind.TRANSCRIPTION, Kind.TRANSLATION]
TARGET = Target("a", "support", None, "base", "shared")


def call(kind: Kind = Kind.TRANSCRIPTION, /, **fields: str) -> bodies.Call:
    return speech.parse(kind, fields, {}, RECORDING)


def for_engine(made: bodies.Call) -> dict[str, Any]:
    body = bodies.for_engine(made, TARGET, cache_salt="s", priority=1)
    return read_form(body, {"content-type": CONTENT_TYPE})


@pytest.mark.parametrize("kind", KINDS)
def test_known_fields_go_on_and_all_others_do_not(kind: Kind) -> None:
    sent = {
        "model": "support",
        "language": "de",
        "prompt": "two\r\nlines",
        "temperature": "0.50",
        "seed": "-7",
        "watermarking": "No",
        "top_k": "",
        "user": "u",
        "vllm_xargs": "{}",
        "request_id": "mine",
        "cache_salt": "mine",
        "priority": "-9",
        "chunking_strategy": "auto",
    }
    assert for_engine(call(kind, **sent)) == {
        "model": TARGET.engine_model,
        "language": "de",
        "prompt": "two\r\nlines",
        "temperature": "0.5",
        "seed": "-7",
        "watermarking": "false",
        "file": ("recording", RECORDING),
    }


def test_granularities_may_be_several() -> None:
    made = speech.parse(
        Kind.TRANSCRIPTION, {}, {speech.GRANULARITIES: ["word", "segment"], "other[]": ["x"]}, RECORDING
    )
    sent = for_engine(made)
    assert sent[speech.GRANULARITIES] == ["word", "segment"] and "other[]" not in sent


@pytest.mark.parametrize(
    ("fields", "wants", "running"),
    [
        ({}, False, False),
        ({"stream_include_usage": "true"}, True, False),
        ({"stream_include_usage": "1", "stream_continuous_usage_stats": "on"}, True, True),
        ({"stream_continuous_usage_stats": "true"}, False, False),
    ],
)
def test_a_stream_always_counts_and_shows_it_to_whom_asks(
    fields: dict[str, str], wants: bool, running: bool
) -> None:
    made = call(stream="true", **fields)
    assert (made.stream, made.wants_usage, made.wants_running_usage) == (True, wants, running)
    sent = for_engine(made)
    assert {sent[name] for name in sent if name.startswith("stream")} == {"true"}
    assert len([name for name in sent if name.startswith("stream")]) == 3


def test_an_answer_that_is_no_stream_has_none_of_its_options() -> None:
    assert not [name for name in for_engine(call(stream_include_usage="true")) if name.startswith("stream")]


WRONG = {
    "stream": ["maybe", "2"],
    "use_beam_search": ["maybe"],
    "n": ["0", "-1", "1.5", "x", "9" * 30],
    "max_completion_tokens": ["0", "many"],
    "seed": ["0x10", str(2**64), str(-(2**63) - 1), "\u0663"],
    "temperature": ["hot", "nan", "inf", "-Infinity"],
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, each) for name, values in WRONG.items() for each in values]
)
def test_a_value_of_the_wrong_type_is_refused_by_its_name(name: str, value: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        call(**{name: value})
    assert raised.value.param == name


@pytest.mark.parametrize("recording", [None, b""])
def test_a_recording_is_needed(recording: bytes | None) -> None:
    with pytest.raises(InvalidRequest) as raised:
        speech.parse(Kind.TRANSCRIPTION, {"model": "support"}, {}, recording)
    assert raised.value.param == "file"


def test_nothing_that_holds_the_boundary_goes_on() -> None:
    for made in (call(prompt=f"x--{BOUNDARY.decode()}"), speech.parse(KINDS[0], {}, {}, b"--" + BOUNDARY)):
        with pytest.raises(InvalidRequest):
            for_engine(made)


def test_a_recording_is_no_larger_than_the_models_media() -> None:
    speech.check_size(b"x" * 2**20, Media(max_mib=1))
    with pytest.raises(OverLimit) as raised:
        speech.check_size(b"x" * (2**20 + 1), Media(max_mib=1))
    assert raised.value.param == "file"


def test_beams_count_as_sequences_where_they_are_searched() -> None:
    assert call(n="3").sequences == 1
    assert call(n="3", use_beam_search="true").sequences == 3


def test_it_is_estimated_by_its_recording_and_its_texts_and_never_too_long() -> None:
    made = call(prompt="four" * 100, hotwords="four" * 10)
    assert (made.size.audios, made.size.text_bytes) == (1, 440)
    bodies.refuse_too_long(made, 1, 1)


@pytest.mark.parametrize("kind", KINDS)
def test_guards_see_the_texts_that_lead_the_model(kind: Kind) -> None:
    made = call(kind, prompt="first", hotwords="second", language="en")
    assert texts.of_prompt(made.payload, ENDPOINTS[kind]) == ["first", "second"]


def test_the_user_is_whom_other_bodies_name() -> None:
    assert (call(user="u").user, call(user="u", safety_identifier="s").sticky) == ("u", "s")


@pytest.mark.parametrize("kind", KINDS)
def test_the_fields_are_vllms(kind: Kind) -> None:
    """A release of vLLM with other fields, or with other types of them, is noticed here."""
    protocol = pytest.importorskip("vllm.entrypoints.speech_to_text.transcription.protocol")
    model = protocol.TranscriptionRequest
    if kind is Kind.TRANSLATION:
        from vllm.entrypoints.speech_to_text.translation.protocol import TranslationRequest

        model = TranslationRequest
    known = {field.alias or name for name, field in model.model_fields.items()}
    ours = {*speech.TEXTS, *speech.BOOLEANS, *speech.INTEGERS, *speech.NUMBERS, speech.GRANULARITIES}
    of_transcriptions = {speech.GRANULARITIES} if kind is Kind.TRANSLATION else set()
    assert known == ours - of_transcriptions | {"file", "model", "vllm_xargs"}
    hints = {name: str(field.annotation) for name, field in model.model_fields.items()}
    for kind_of, names in (("bool", speech.BOOLEANS), ("int", speech.INTEGERS), ("float", speech.NUMBERS)):
        assert all(kind_of in hints[name] for name in names)
