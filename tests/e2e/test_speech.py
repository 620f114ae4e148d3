"""Recordings through the real thing: an untrained Whisper on a real engine, beside a model without speech."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
import yaml

from tests.e2e.serving import DEMO, ONE_THREAD, ROOT, Service, key_of, serving, wait_until
from tests.speech_models import recording, whisper

pytestmark = pytest.mark.engine
FAST = {"dtype": "float32", "kv_cache_gib": 0.1, "vllm_args": ["--enforce-eager"]}
HOP_TOKENS = 100  # of a second of a recording, as vLLM counts them for a Whisper
PROMPT_TOKENS = 4  # of the decoder: begin, language, task, no time stamps


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("speech")
    fleet = yaml.safe_load((ROOT / "fleet.yaml").read_text())
    tenant = fleet["tenants"]["acme"] | {"models": {"ears": "whisper", "words": "text"}}
    declared = {
        "base_models": {
            "whisper": {"source": str(whisper(folder / "whisper")), **FAST},
            "text": {"source": str(DEMO / "base"), "max_model_len": 512, **FAST},
        },
        "tenants": {"acme": tenant | {"default_model": "ears"}},
        "pools": {
            "each": {
                "strategy": "replica-per-model",
                "base_models": ["whisper", "text"],
                "tenants": ["acme"],
            },
        },
        "gateway": fleet["gateway"],
    }
    path = folder / "fleet.yaml"
    path.write_text(yaml.safe_dump(declared))
    with serving("service:Gateway", folder, "--arg", f"fleet={path}", env=dict(ONE_THREAD)) as service:
        yield service


def post(
    service: Service, path: str, *, seconds: float = 1.0, rate: int = 16_000, **fields: Any
) -> httpx.Response:
    """A form as httpx writes it."""
    return httpx.post(
        f"{service.url}/v1/audio/{path}",
        data={"model": "ears", "language": "en", **fields},
        files={"file": ("../../secret.wav", recording(seconds, rate=rate), "audio/wav")},
        headers={"authorization": f"Bearer {key_of('acme')}"},
        timeout=120,
    )


def counted(service: Service, answer: httpx.Response) -> tuple[int, int, bool]:
    """Tokens of an answered request, as the request log has them, and whether they were estimated."""
    own = answer.headers["x-request-id"]

    def record() -> dict[str, Any] | None:
        return next((each for each in service.records() if each["request_id"] == own), None)

    wait_until(record, "the record", within_s=10)
    found = record() or {}
    return found["prompt_tokens"], found["completion_tokens"], found["estimated"]


@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")  # what OpenAI says of its translations
def test_the_official_client_is_answered(service: Service) -> None:
    audio = service.client("acme").audio
    file = ("a.wav", recording(), "audio/wav")
    heard = audio.transcriptions.create(model="ears", file=file, language="en")
    assert isinstance(heard.text, str)
    assert isinstance(audio.translations.create(model="ears", file=file).text, str)
    with pytest.raises(openai.BadRequestError, match="does not serve"):
        audio.transcriptions.create(model="words", file=file)
    with pytest.raises(openai.BadRequestError, match="does not serve"):
        service.client("acme").chat.completions.create(
            model="ears", messages=[{"role": "user", "content": "hi"}]
        )


@pytest.mark.parametrize("path", ["transcriptions", "translations"])
@pytest.mark.parametrize("seconds", [1.0, 5.0])
def test_a_whole_answer_is_metered_as_its_stream(service: Service, path: str, seconds: float) -> None:
    bound: dict[str, Any] = {"max_completion_tokens": "5"}
    whole = post(service, path, seconds=seconds, **bound)
    streamed = post(service, path, seconds=seconds, stream="true", stream_include_usage="true", **bound)
    events = [line[6:] for line in streamed.text.splitlines() if line.startswith("data: ")]
    assert whole.status_code == streamed.status_code == 200 and events[-1] == "[DONE]"
    usage = json.loads(events[-2])["usage"]
    told = usage["prompt_tokens"], usage["completion_tokens"], False
    assert told[0] == seconds * HOP_TOKENS + PROMPT_TOKENS
    assert counted(service, whole) == counted(service, streamed) == told


@pytest.mark.parametrize("asked", ["json", "text", "verbose_json"])
def test_every_format_of_vllm_is_answered(service: Service, asked: str) -> None:
    answer = post(service, "transcriptions", response_format=asked)
    assert answer.status_code == 200 and isinstance(answer.json()["text"], str)
    assert ("segments" in answer.json()) == (asked == "verbose_json")


@pytest.mark.parametrize("asked", ["srt", "vtt", "diarized_json", "poem"])
def test_no_other_format_is(service: Service, asked: str) -> None:
    answer = post(service, "transcriptions", response_format=asked)
    assert answer.status_code == 400 and "whisper" not in answer.text


@pytest.mark.parametrize("rate", [8_000, 44_100])
def test_a_recording_may_have_any_rate(service: Service, rate: int) -> None:
    assert post(service, "transcriptions", rate=rate).status_code == 200


def test_the_language_is_found_out_where_none_is_given(service: Service) -> None:
    assert post(service, "transcriptions", language="").status_code == 200


@pytest.mark.parametrize("data", [b"no recording", b"RIFF" + bytes(100)])
def test_what_is_no_recording_is_refused_and_blames_nobody(service: Service, data: bytes) -> None:
    answer = httpx.post(
        f"{service.url}/v1/audio/transcriptions",
        data={"model": "ears", "language": "en"},
        files={"file": ("a.wav", data)},
        headers={"authorization": f"Bearer {key_of('acme')}"},
        timeout=60,
    )
    assert answer.status_code == 400, answer.text
    assert post(service, "transcriptions").status_code == 200


def test_no_name_of_a_file_is_in_the_log(service: Service) -> None:
    assert post(service, "transcriptions").status_code == 200
    assert "secret.wav" not in service.log.read_text(errors="replace")
