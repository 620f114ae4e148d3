"""Frameworks on top of OpenAI's client: LlamaIndex, pydantic-ai, instructor."""

import asyncio
from typing import Literal

import instructor
import openai
from checks import HELLO, KEY, MODEL, URL, check, run
from llama_index.core.llms import ChatMessage
from llama_index.llms.openai_like import OpenAILike
from pydantic import BaseModel
from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider


def llama() -> OpenAILike:
    """Return a client, whose connections belong to one event loop."""
    return OpenAILike(
        model=MODEL,
        api_base=f"{URL}/v1",
        api_key=KEY,
        is_chat_model=True,
        max_tokens=8,
        context_window=512,
        max_retries=0,
    )


provider = OpenAIProvider(base_url=f"{URL}/v1", api_key=KEY)
FEW = {"max_tokens": 64}


class Weather(BaseModel):
    """The weather of a city."""

    city: Literal["Rome", "Oslo"]


@check
def llama_index_chat() -> None:
    assert llama().chat([ChatMessage(role="user", content="Hello")]).message.content


@check
def llama_index_complete() -> None:
    assert llama().complete("Hello").text


@check
def llama_index_stream() -> None:
    assert "".join(
        part.delta or "" for part in llama().stream_chat([ChatMessage(role="user", content="Hello")])
    )


@check
async def llama_index_async() -> None:
    assert (await llama().achat([ChatMessage(role="user", content="Hello")])).message.content


@check
def pydantic_ai_chat() -> None:
    model = OpenAIChatModel(MODEL, provider=provider)
    assert Agent(model, model_settings={"max_tokens": 8}).run_sync("Hello").output


@check
async def pydantic_ai_stream() -> None:
    agent = Agent(OpenAIChatModel(MODEL, provider=provider), model_settings={"max_tokens": 8})
    async with agent.run_stream("Hello") as result:
        assert "".join([part async for part in result.stream_text(delta=True)])


@check
def pydantic_ai_structured() -> None:
    agent = Agent(
        OpenAIChatModel(MODEL, provider=provider), output_type=Weather, model_settings=FEW, retries=0
    )
    assert agent.run_sync("Hello").output.city


@check
def pydantic_ai_responses() -> None:
    model = OpenAIResponsesModel(MODEL, provider=provider)
    assert Agent(model, model_settings={"max_tokens": 16}).run_sync("Hello").output


def _instructed(mode: instructor.Mode) -> str:
    own = instructor.from_openai(openai.OpenAI(base_url=f"{URL}/v1", api_key=KEY), mode=mode)
    return own.chat.completions.create(
        model=MODEL, messages=HELLO, response_model=Weather, max_retries=0, **FEW
    ).city


@check
def instructor_tools() -> None:
    assert _instructed(instructor.Mode.TOOLS)


@check
def instructor_json_schema() -> None:
    assert _instructed(instructor.Mode.JSON_SCHEMA)


@check
async def llama_index_many_at_once() -> None:
    said = [ChatMessage(role="user", content="Hello")]
    own = llama()
    assert len(await asyncio.gather(*(own.achat(said) for _ in range(8)))) == 8


run()
