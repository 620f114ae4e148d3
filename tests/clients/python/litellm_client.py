"""LiteLLM as a client, in OpenAI's form, in vLLM's and in Anthropic's."""

import asyncio

import litellm
from checks import HELLO, KEY, MODEL, URL, check, refused, run

OPENAI = {"api_base": f"{URL}/v1", "api_key": KEY, "timeout": 60, "num_retries": 0}


@check
def chat() -> None:
    answer = litellm.completion(f"openai/{MODEL}", messages=HELLO, max_tokens=8, **OPENAI)
    assert answer.choices[0].message.content


@check
def chat_as_of_vllm() -> None:
    assert litellm.completion(f"hosted_vllm/{MODEL}", messages=HELLO, max_tokens=8, **OPENAI).choices


@check
def stream() -> None:
    parts = litellm.completion(f"openai/{MODEL}", messages=HELLO, max_tokens=8, stream=True, **OPENAI)
    assert "".join(part.choices[0].delta.content or "" for part in parts)


@check
def text_completion() -> None:
    call = litellm.text_completion(
        model=f"text-completion-openai/{MODEL}", prompt="Hello", max_tokens=4, **OPENAI
    )
    assert call.choices[0].text


@check
def responses() -> None:
    assert litellm.responses(input="Hello", model=f"openai/{MODEL}", max_output_tokens=8, **OPENAI).output


@check
def anthropic() -> None:
    own = OPENAI | {"api_base": URL}
    assert litellm.completion(f"anthropic/{MODEL}", messages=HELLO, max_tokens=8, **own).choices


@check
async def many_at_once() -> None:
    calls = (litellm.acompletion(f"openai/{MODEL}", messages=HELLO, max_tokens=4, **OPENAI) for _ in range(8))
    assert len(await asyncio.gather(*calls)) == 8


@check
def unknown_model() -> None:
    call = lambda: litellm.completion("openai/nobody", messages=HELLO, **OPENAI)  # noqa: E731
    assert refused(litellm.NotFoundError, call)


run()
