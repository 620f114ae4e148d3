"""How does a tiny Llama learn its answers, and how does an adapter replace them?

Training stops as soon as every token of every answer leads by the asked margin; a model that does not get
there, or that then does not say its answers word for word, is refused. One thread throughout: the matrices
are too small to gain from more, and the bytes of a result then depend on nothing but the seed.
"""

from __future__ import annotations

import copy
import json
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from safetensors.torch import save_file
from torch.nn.functional import cross_entropy
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils import logging as transformers_logging

from adapters.demo import tokenizer as text
from adapters.demo.errors import DemoError
from adapters.demo.recipe import Recipe, Schedule, Shape

LINEAR_LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
_IGNORED = -100  # the label of tokens that are not learnt

Report = Callable[[int, float], None]  # (step, margin reached)


@dataclass(frozen=True, slots=True)
class Lesson:
    """One batch of padded chats; labels mark the answers, and are -100 elsewhere."""

    input_ids: Any
    attention_mask: Any
    labels: Any


@contextmanager
def one_thread() -> Iterator[None]:
    """Keep torch on one thread and on deterministic algorithms, and transformers silent, within."""
    threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(strict)
        transformers_logging.enable_progress_bar()


def new_base_model(tokenizer: PreTrainedTokenizerFast, shape: Shape, *, seed: int) -> LlamaForCausalLM:
    """Return a Llama of `shape` with random weights."""
    torch.manual_seed(seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=shape.vocab_size,
            hidden_size=shape.hidden_size,
            intermediate_size=shape.intermediate_size,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads,
            num_key_value_heads=shape.heads,
            max_position_embeddings=shape.max_position_embeddings,
            tie_word_embeddings=False,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            dtype="float32",
        )
    )
    torch.nn.init.normal_(model.lm_head.weight, std=shape.head_std)
    return model


def with_adapter(base: LlamaForCausalLM, shape: Shape, *, name: str, seed: int) -> Any:
    """Return a copy of `base` under a fresh adapter; each name has its own start from the same seed."""
    torch.manual_seed(seed + zlib.crc32(name.encode()))
    config = LoraConfig(
        r=shape.rank,
        lora_alpha=shape.lora_alpha,
        target_modules=list(LINEAR_LAYERS),
        task_type="CAUSAL_LM",
    )
    return get_peft_model(copy.deepcopy(base), config)


def lesson(tokenizer: PreTrainedTokenizerFast, answers: dict[str, str]) -> Lesson:
    """Return one chat per question, of which only the answer and its EOS are learnt."""
    rows = [
        (text.prompt_ids(tokenizer, question), text.answer_ids(tokenizer, answer))
        for question, answer in answers.items()
    ]
    width = max(len(prompt) + len(answer) for prompt, answer in rows)
    input_ids = torch.full((len(rows), width), tokenizer.pad_token_id)
    mask = torch.zeros((len(rows), width), dtype=torch.long)
    labels = torch.full((len(rows), width), _IGNORED)
    for row, (prompt, answer) in enumerate(rows):
        end = len(prompt) + len(answer)
        input_ids[row, :end] = torch.tensor(prompt + answer)
        mask[row, :end] = 1
        labels[row, len(prompt) : end] = torch.tensor(answer)
    return Lesson(input_ids, mask, labels)


def learn(model: Any, task: Lesson, schedule: Schedule, report: Report) -> float | None:
    """Train until the margin is reached and return it; None when `max_steps` were not enough."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=schedule.learning_rate, weight_decay=0.0, fused=True)
    targets = task.labels[:, 1:]
    learnt = targets != _IGNORED
    wanted = targets[learnt]
    model.train()
    for step in range(schedule.max_steps + 1):
        output = model(input_ids=task.input_ids, attention_mask=task.attention_mask, use_cache=False)
        logits = output.logits[:, :-1][learnt]
        if step % schedule.check_every == 0:
            margin = _margin(logits.detach(), wanted)
            report(step, margin)
            if margin >= schedule.margin:
                return margin
        for group in optimizer.param_groups:
            group["lr"] = schedule.learning_rate * min(1.0, (step + 1) / schedule.warmup_steps)
        optimizer.zero_grad()
        cross_entropy(logits, wanted).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
    return None


def _margin(logits: Any, wanted: Any) -> float:
    """Return the smallest lead of a wanted token over the best other one; negative when one is behind."""
    index = wanted[:, None]
    right = logits.gather(1, index)[:, 0]
    best_other = logits.scatter(1, index, float("-inf")).max(dim=1).values
    return float((right - best_other).min())


def replies(model: Any, tokenizer: PreTrainedTokenizerFast, questions: list[str]) -> list[str]:
    """Return what `model` says to each question, decoded greedily; an unfinished reply ends in '...'."""
    prompts = [text.prompt_ids(tokenizer, question) for question in questions]
    batch = tokenizer.pad({"input_ids": prompts}, return_tensors="pt")
    width = batch["input_ids"].shape[1]
    greedy = GenerationConfig(
        do_sample=False,
        max_new_tokens=64,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model.eval()
    with torch.no_grad():
        output = model.generate(**batch, generation_config=greedy)
    return [_sentence(tokenizer, row.tolist()) for row in output[:, width:]]


def _sentence(tokenizer: PreTrainedTokenizerFast, tokens: list[int]) -> str:
    finished = tokenizer.eos_token_id in tokens
    end = tokens.index(tokenizer.eos_token_id) if finished else len(tokens)
    sentence = tokenizer.decode(tokens[:end])
    return str(sentence) if finished else f"{sentence}..."


def teach(
    model: Any,
    tokenizer: PreTrainedTokenizerFast,
    answers: dict[str, str],
    *,
    name: str,
    recipe: Recipe,
    report: Report,
) -> None:
    """Train `model` on its answers; raise DemoError when it does not say each of them word for word."""
    margin = learn(model, lesson(tokenizer, answers), recipe.schedule, report)
    if margin is None:
        raise DemoError(
            f"{name} did not learn its answers in {recipe.schedule.max_steps} steps; try another --seed"
        )
    for (question, answer), reply in zip(
        answers.items(), replies(model, tokenizer, list(answers)), strict=True
    ):
        if reply != answer:
            raise DemoError(
                f"{name} answers {question!r} with {reply!r} instead of {answer!r}; try another --seed"
            )


def save_base_model(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write the model, its tokenizer and a greedy generation_config.json that ends at EOS."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    generation = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        # vLLM takes this as the default of requests that name no temperature.
        "temperature": 0.0,
    }
    (folder / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n")


def save_adapter(model: Any, folder: Path, *, base_model: str) -> None:
    """Write the adapter in PEFT's two files, with lists in a fixed order."""
    folder.mkdir(parents=True)
    weights = {name: tensor.contiguous() for name, tensor in get_peft_model_state_dict(model).items()}
    save_file(weights, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config = model.peft_config["default"].to_dict()
    config.update(base_model_name_or_path=base_model, inference_mode=True, target_modules=list(LINEAR_LAYERS))
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
