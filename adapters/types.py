"""What a base model and an adapter are, as plain values. Knows no file, no engine and no tenant."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class MediaTokens:
    """What a picture, a recording and a film in a prompt are taken for, in tokens, until the engine says."""

    image: int = 1024  # one megapixel where a token covers 32 x 32 pixels, as with Qwen's models
    audio: int = 750  # half a minute at 25 tokens a second
    video: int = 8192


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """The most that one request may ask an engine for; more of it would keep the engine from others."""

    messages: int = 4096  # and parts of them
    tools: int = 256
    choices: int = 128  # of each prompt
    beam_width: int = 0  # 0: no beam search
    logprobs: int = 20  # of each token
    list_entries: int = 1024  # of token ids and the like
    constraint_entries: int = 2000  # choices; properties, values and alternatives of a schema
    constraint_kib: int = 64  # text of choices, a grammar or a schema

    @property
    def constraint_bytes(self) -> int:
        """The last one in bytes."""
        return self.constraint_kib * 1024


@dataclass(frozen=True, slots=True)
class BaseModel:
    """Weights that adapters modify, and the vLLM settings of every engine that holds them.

    Fields left `None` are left to vLLM's own default. Names follow vLLM's flags (`vllm serve --help`).
    """

    name: str
    source: str  # absolute folder, or a hub id such as "meta-llama/Llama-3.1-8B-Instruct"
    revision: str | None = None  # hub revision; only with a hub id
    dtype: str = "auto"
    max_model_len: int | None = None  # tokens, prompt and completion together
    max_num_seqs: int = 256  # sequences one engine runs at once
    max_loras: int = 0  # slots per engine; 0 serves the base model alone
    max_lora_rank: int = 16
    max_cpu_loras: int = 0  # adapters kept in host memory per engine; >= max_loras
    tensor_parallel_size: int = 1
    gpu_memory_utilization: float | None = None  # 0..1
    kv_cache_bytes: int | None = None  # None: vLLM profiles the GPU; on CPU 1 GiB
    media_tokens: MediaTokens = MediaTokens()
    request_limits: RequestLimits = RequestLimits()
    vllm_args: tuple[str, ...] = ()  # further flags, passed as they are

    @property
    def serves_adapters(self) -> bool:
        """Whether engines of this base model are built with LoRA support."""
        return self.max_loras > 0


@dataclass(frozen=True, slots=True)
class Adapter:
    """A LoRA adapter as declared: where its files are, and the one base model it fits."""

    name: str
    source: str  # absolute folder, or a URL that `adapters.sources` knows
    base_model: str  # name of a BaseModel
    max_concurrency: int | None = None  # sequences of all tenants and versions together; None: no such cap
