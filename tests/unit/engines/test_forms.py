"""Forms for vLLM: nothing that a client sends ends a field early."""

from __future__ import annotations

import io
import wave

import pytest

from engines.forms import BOUNDARY, CONTENT_TYPE, silence, written
from routing.http.forms import Form


def test_what_is_written_is_read_again_as_it_was() -> None:
    recording = bytes(range(256)) * 3 + b"\r\n--\r\n--tenantry"
    content = bytearray()
    form = Form(CONTENT_TYPE, content.extend)
    form.feed(written([("model", "a/b"), ("prompt", "\r\n--x\u00e9"), ("k[]", "1"), ("k[]", "2")], recording))
    form.finish()
    assert form.fields == {"model": "a/b", "prompt": "\r\n--x\u00e9"} and form.lists == {"k[]": ["1", "2"]}
    assert (bytes(content), form.filename) == (recording, "recording")


@pytest.mark.parametrize("at", ["field", "recording"])
def test_what_has_the_boundary_inside_is_not_written(at: str) -> None:
    evil = b"x\r\n--" + BOUNDARY + b'\r\nContent-Disposition: form-data; name="model"\r\n\r\nother'
    with pytest.raises(ValueError, match="boundary"):
        written([("prompt", evil.decode() if at == "field" else "")], b"" if at == "field" else evil)


def test_silence_is_a_wav_file_of_its_length() -> None:
    with wave.open(io.BytesIO(silence(0.5))) as file:
        assert (file.getnchannels(), file.getframerate(), file.getnframes()) == (1, 16_000, 8000)
        assert not any(file.readframes(8000))
