"""OpenAI's own client for Python."""

import asyncio

import openai
from checks import ADAPTER, HELLO, KEY, MODEL, URL, WEATHER, check, refused, run

client = openai.OpenAI(base_url=f"{URL}/v1", api_key=KEY, max_retries=0, timeout=60)
TOOL = {"type": "function", "function": {"name": "weather", "parameters": WEATHER}}


@check
def chat() -> None:
    answer = client.chat.completions.create(model=MODEL, messages=HELLO, max_tokens=8)
    assert answer.model == MODEL and answer.choices[0].message.content and answer.usage.total_tokens


@check
def chat_of_an_adapter() -> None:
    assert client.chat.completions.create(model=ADAPTER, messages=HELLO).choices[0].message.content


@check
def chat_stream() -> None:
    stream = client.chat.completions.create(
        model=MODEL, messages=HELLO, max_tokens=8, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert chunks[-1].usage.completion_tokens and any(
        c.choices and c.choices[0].delta.content for c in chunks
    )


@check
def chat_with_choices_and_logprobs() -> None:
    answer = client.chat.completions.create(
        model=MODEL, messages=HELLO, max_tokens=4, n=2, logprobs=True, top_logprobs=2, seed=1, temperature=0.9
    )
    assert len(answer.choices) == 2 and len(answer.choices[0].logprobs.content[0].top_logprobs) == 2


@check
def chat_with_a_tool() -> None:
    choice = {"type": "function", "function": {"name": "weather"}}
    answer = client.chat.completions.create(
        model=MODEL, messages=HELLO, tools=[TOOL], tool_choice=choice, max_tokens=64
    )
    assert answer.choices[0].message.tool_calls[0].function.name == "weather"


@check
def chat_stream_with_a_tool() -> None:
    with client.chat.completions.stream(
        model=MODEL, messages=HELLO, tools=[TOOL], tool_choice="required", max_tokens=64
    ) as stream:
        stream.until_done()
        assert stream.get_final_completion().choices[0].message.tool_calls


@check
def chat_with_a_schema() -> None:
    form = {"type": "json_schema", "json_schema": {"name": "w", "schema": WEATHER, "strict": True}}
    answer = client.chat.completions.create(model=MODEL, messages=HELLO, response_format=form, max_tokens=64)
    assert '"city"' in answer.choices[0].message.content


@check
def raw_answer_with_its_request_id() -> None:
    raw = client.chat.completions.with_raw_response.create(
        model=MODEL, messages=HELLO, max_tokens=2, extra_headers={"X-Request-Id": "mine-1"}
    )
    assert raw.parse().choices and raw.status_code == 200


@check
def completion() -> None:
    answer = client.completions.create(model=MODEL, prompt=["Hello", "Bye"], max_tokens=4, logprobs=1)
    assert len(answer.choices) == 2 and answer.choices[0].logprobs.tokens


@check
def completion_stream() -> None:
    assert "".join(
        c.choices[0].text for c in client.completions.create(model=MODEL, prompt="Hello", stream=True)
    )


@check
def completion_of_token_ids() -> None:
    assert client.completions.create(model=MODEL, prompt=[5, 6, 7], max_tokens=2).usage.prompt_tokens == 3


@check
def response() -> None:
    answer = client.responses.create(model=MODEL, input="Hello", max_output_tokens=8)
    assert answer.output_text and answer.model == MODEL


@check
def response_stream() -> None:
    events = [
        e.type for e in client.responses.create(model=MODEL, input="Hello", max_output_tokens=8, stream=True)
    ]
    assert events[0] == "response.created" and events[-1] in ("response.completed", "response.incomplete")


@check
def response_of_messages_with_instructions() -> None:
    parts = [{"role": "user", "content": [{"type": "input_text", "text": "Hello"}]}]
    assert client.responses.create(model=MODEL, input=parts, instructions="Be short.", max_output_tokens=8).id


@check
def response_with_a_schema() -> None:
    form = {"format": {"type": "json_schema", "name": "w", "schema": WEATHER, "strict": True}}
    answer = client.responses.create(model=MODEL, input="Hello", text=form, max_output_tokens=64)
    assert '"city"' in answer.output_text


@check
def embedding() -> None:
    assert client.embeddings.create(model=MODEL, input="Hello").data


@check
def models() -> None:
    assert MODEL in [m.id for m in client.models.list()]


@check
def model_by_its_name() -> None:
    assert client.models.retrieve(MODEL).id == MODEL


@check
def unknown_model_is_404() -> None:
    call = lambda: client.chat.completions.create(model="nobody", messages=HELLO)  # noqa: E731
    assert refused(openai.NotFoundError, call).status_code == 404


@check
def wrong_value_is_400() -> None:
    call = lambda: client.chat.completions.create(model=MODEL, messages=HELLO, temperature=-1)  # noqa: E731
    assert refused(openai.BadRequestError, call).body["message"]


@check
def too_long_a_prompt_is_400() -> None:
    call = lambda: client.completions.create(model=MODEL, prompt="word " * 4000)  # noqa: E731
    assert refused(openai.BadRequestError, call)


@check
async def many_at_once() -> None:
    async with openai.AsyncOpenAI(base_url=f"{URL}/v1", api_key=KEY, max_retries=0, timeout=60) as own:
        calls = (own.chat.completions.create(model=MODEL, messages=HELLO, max_tokens=4) for _ in range(16))
        assert len(await asyncio.gather(*calls)) == 16


@check
def a_stream_that_is_left() -> None:
    with client.chat.completions.create(model=MODEL, messages=HELLO, max_tokens=200, stream=True) as stream:
        next(iter(stream))
    assert client.chat.completions.create(model=MODEL, messages=HELLO, max_tokens=2).id


run()
