"""Anthropic's own client for Python, keyed both ways; and requests as Claude Code makes them."""

import anthropic
from checks import HELLO, KEY, MODEL, URL, WEATHER, check, refused, run

client = anthropic.Anthropic(base_url=URL, api_key=KEY, max_retries=0, timeout=60)
bearer = anthropic.Anthropic(base_url=URL, auth_token=KEY, max_retries=0, timeout=60)
TOOL = {"name": "weather", "description": "The weather of a city.", "input_schema": WEATHER}
CACHED = {"cache_control": {"type": "ephemeral"}}


@check
def message() -> None:
    answer = client.messages.create(model=MODEL, max_tokens=8, messages=HELLO)
    assert answer.content[0].text and answer.model == MODEL and answer.usage.output_tokens


@check
def message_with_a_bearer_key() -> None:
    assert bearer.messages.create(model=MODEL, max_tokens=8, messages=HELLO).content


@check
def message_stream() -> None:
    with client.messages.stream(model=MODEL, max_tokens=8, messages=HELLO) as stream:
        assert "".join(stream.text_stream) and stream.get_final_message().usage.output_tokens


@check
def message_with_a_tool() -> None:
    answer = client.messages.create(
        model=MODEL,
        max_tokens=64,
        messages=HELLO,
        tools=[TOOL],
        tool_choice={"type": "tool", "name": "weather"},
    )
    assert answer.content[-1].type == "tool_use" and answer.stop_reason == "tool_use"


@check
def message_with_a_tool_result() -> None:
    use = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Rome"}}
    result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": [{"type": "text", "text": "Sunny"}]}
    turns = [*HELLO, {"role": "assistant", "content": [use]}, {"role": "user", "content": [result]}]
    assert client.messages.create(model=MODEL, max_tokens=8, messages=turns, tools=[TOOL]).content is not None


@check
def count_tokens() -> None:
    assert client.messages.count_tokens(model=MODEL, messages=HELLO).input_tokens > 0


@check
def models() -> None:
    assert MODEL in [m.id for m in client.models.list()]


@check
def unknown_model_is_404() -> None:
    call = lambda: client.messages.create(model="nobody", max_tokens=8, messages=HELLO)  # noqa: E731
    assert refused(anthropic.NotFoundError, call)


def _claude_code(**more: object) -> dict[str, object]:
    """Return a request in the shape of Claude Code's: system blocks, tools and turns marked for a cache."""
    said = {"type": "text", "text": "<system-reminder>Be brief.</system-reminder>", **CACHED}
    return {
        "model": MODEL,
        "max_tokens": 64,
        "system": [
            {"type": "text", "text": "You are an agent."},
            {"type": "text", "text": "Rules.", **CACHED},
        ],
        "messages": [{"role": "user", "content": [said, {"type": "text", "text": "Hello", **CACHED}]}],
        "tools": [TOOL | CACHED],
        "metadata": {"user_id": "user_0123_account__session_0123"},
        "extra_headers": {
            "anthropic-beta": "claude-code-20250219,interleaved-thinking-2025-05-14",
            "x-app": "cli",
            "user-agent": "claude-cli/2.1.0 (external, cli)",
        },
        "extra_query": {"beta": "true"},
        "extra_body": {  # as 2.1.197 sends them
            "thinking": {"type": "adaptive"},
            "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
            "output_config": {"effort": "high"},
        },
        **more,
    }


@check
def claude_code_streams() -> None:
    events = [e.type for e in bearer.messages.create(**_claude_code(stream=True))]
    assert events[0] == "message_start" and events[-1] == "message_stop"


@check
def claude_code_through_the_beta_client() -> None:
    request = _claude_code(betas=["context-management-2025-06-27"])
    del request["extra_query"]
    assert bearer.beta.messages.create(**request).content is not None


@check
def claude_code_asks_for_a_title() -> None:
    request = _claude_code(tools=[], max_tokens=32)
    assert client.messages.create(**request).stop_reason


@check
def claude_code_counts_tokens() -> None:
    request = _claude_code()
    del request["max_tokens"], request["metadata"], request["extra_body"]
    assert client.messages.count_tokens(**request).input_tokens > 0


run()
