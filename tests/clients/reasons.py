"""Why does something pass on plain vLLM and not through the gateway? Reasons by patterns of check names."""

from __future__ import annotations

from fnmatch import fnmatchcase

_PROMPT_LOGPROBS = "log-probabilities of the prompt crash an engine with adapters (vllm-project/vllm#16668)"
_OWN_WORDS = "the gateway refuses it as well, before an engine, and in its own words"
# By suite and pattern.
REASONS: dict[tuple[str, str], str] = {
    ("vllm-tests", "*test_chat_completion::test_kv_transfer_prompt_token_ids_*"): (
        "tenancy: no client hands KV blocks, or what stands for them, to an engine that others share"
    ),
    ("vllm-tests", "*::test_prompt_logprobs_*"): _PROMPT_LOGPROBS,
    ("vllm-tests", "*::test_echo_logprob_completion*"): _PROMPT_LOGPROBS,
    ("vllm-tests", "*::test_completion_return_tokens_as_token_ids_completion*"): (
        f"`echo` with log-probabilities: {_PROMPT_LOGPROBS}"
    ),
    ("vllm-tests", "*::test_chat_session_with_echo_and_continue_final_message*"): (
        f"a chat with `echo`: {_PROMPT_LOGPROBS}"
    ),
    ("vllm-tests", "*test_chat::test_structured_outputs_choice_chat*"): (
        "chance: a tiny model is asked to choose something else the second time"
    ),
    ("vllm-tests", "*test_chat::test_long_seed*"): (
        "an integer beyond 64 bits is refused as the number that JSON readers make of it, in other words"
    ),
    ("vllm-tests", "*test_chat::test_invocations*"): "`/invocations` is not served",
    ("vllm-tests", "*test_prompt_validation::test_empty_prompt"): _OWN_WORDS,
    ("vllm-tests", "*test_stateful::test_background_error"): _OWN_WORDS,
    ("vllm-tests", "*test_basic::test_show_version"): "`/version` is this service's",
}


def reason_of(suite: str, check: str) -> str | None:
    """Return the reason for which a check need not pass here; None: there is none."""
    fitting = (why for (of, name), why in REASONS.items() if of == suite and fnmatchcase(check, name))
    return next(fitting, None)
