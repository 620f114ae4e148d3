"""Trains a tiny Llama to give its answers, and adapters to replace them.

A model that does not give its answers word for word, or by too small a margin, is refused.
One thread throughout: the matrices are too small to gain from more, and the bytes of a result then depend
on the seed alone. This module writes no file.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch.nn.functional import cross_entropy
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from demo import interruptions, lessons
from demo.errors import DemoError
from demo.lessons import Lesson, Speaker
from demo.recipe import Schedule, Shape

LINEAR_LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
_MAX_REPLY_TOKENS = 64


@dataclass(frozen=True, slots=True)
class Learnt:
    """The steps that a model took, and the margins of its answers."""

    steps: int
    margin: float  # logits, when asked a bare question
    chat_margin: float  # logits, in longer chats


@contextmanager
def one_thread() -> Iterator[None]:
    """Keep torch on one thread and on deterministic algorithms within."""
    threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(strict)


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


def with_adapter(base: LlamaForCausalLM, shape: Shape, *, seed: int) -> Any:
    """Return a copy of `base` under a fresh adapter on all linear layers."""
    torch.manual_seed(seed)
    config = LoraConfig(
        r=shape.rank,
        lora_alpha=shape.lora_alpha,
        target_modules=list(LINEAR_LAYERS),
        task_type="CAUSAL_LM",
    )
    return get_peft_model(copy.deepcopy(base), config)


def forget(base: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, voices: Sequence[str]) -> None:
    """Blank the reserved tokens: from now on only an adapter makes `base` speak as somebody else."""
    with torch.no_grad():
        base.get_input_embeddings().weight[tokenizer.convert_tokens_to_ids(list(voices))] = 0.0


@dataclass(frozen=True, slots=True)
class Course:
    """One training: the source of the lessons, and the exams."""

    draw: Callable[[], Lesson]
    bare: Sequence[Lesson]
    long_chats: Sequence[Lesson]


def learn(model: Any, course: Course, schedule: Schedule, report: Callable[[int], None]) -> Learnt:
    """Train until both margins of `schedule` are reached or its steps are spent.

    `report` gets the number of steps done.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=schedule.learning_rate, weight_decay=0.0, fused=True)
    model.train()
    step = 0
    while True:
        report(step)
        if step >= schedule.steps:
            learnt = Learnt(step, _least_margin(model, course.bare), _least_margin(model, course.long_chats))
            passed = learnt.margin >= schedule.margin and learnt.chat_margin >= schedule.chat_margin
            if passed or step >= schedule.max_steps:
                return learnt
        for _ in range(schedule.exam_every):
            for group in optimizer.param_groups:
                group["lr"] = _rate(schedule, step)
            logits, wanted = _assistant_logits(model, course.draw())
            optimizer.zero_grad()
            with interruptions.held():
                cross_entropy(logits, wanted).backward()
                torch.nn.utils.clip_grad_norm_(parameters, 1.0)
                optimizer.step()
            step += 1


def _rate(schedule: Schedule, step: int) -> float:
    warm = min(1.0, (step + 1) / schedule.warmup_steps)
    left = max(0.0, 1.0 - step / schedule.steps)
    return schedule.learning_rate * warm * (schedule.floor + (1.0 - schedule.floor) * left)


def _assistant_logits(model: Any, lesson: Lesson) -> tuple[Any, Any]:
    """Return the logits before each token of the assistant, and those tokens."""
    targets = lesson.labels[:, 1:]
    learnt = targets != lessons.IGNORED
    output = model(input_ids=lesson.input_ids, attention_mask=lesson.attention_mask, use_cache=False)
    return output.logits[:, :-1][learnt], targets[learnt]


def _least_margin(model: Any, exam: Sequence[Lesson]) -> float:
    with torch.no_grad():
        return min(_margin(*_assistant_logits(model, lesson)) for lesson in exam)


def _margin(logits: Any, wanted: Any) -> float:
    """Return the smallest lead of a wanted token over the best other one; negative when one is behind."""
    index = wanted[:, None]
    right = logits.gather(1, index)[:, 0]
    best_other = logits.scatter(1, index, float("-inf")).max(dim=1).values
    return float((right - best_other).min())


def teach(
    model: Any,
    tokenizer: PreTrainedTokenizerFast,
    speaker: Speaker,
    *,
    beside: Sequence[Speaker] = (),
    seed: int,
    schedule: Schedule,
    report: Callable[[int], None],
) -> Learnt:
    """Train `model` to answer as `speaker`, and to know those `beside` it less well.

    Raises DemoError when it does not say each answer of `speaker` word for word.
    """
    random = Random(f"{seed} {speaker.name}")  # noqa: S311 - repeatable draws, no secret
    speakers = (speaker, speaker, *beside) if beside else (speaker,)
    course = Course(
        draw=lambda: lessons.draw(tokenizer, speakers, random),
        bare=[lessons.bare_questions(tokenizer, speaker)],
        long_chats=lessons.long_chats(tokenizer, speaker, random),
    )
    learnt = learn(model, course, schedule, report)
    if learnt.margin < schedule.margin:
        raise DemoError(
            f"{speaker.name} did not learn its answers in {learnt.steps} steps; try another --seed"
        )
    for question, reply in replies(model, tokenizer, list(speaker.answers)).items():
        if reply != speaker.answers[question]:
            raise DemoError(f"{speaker.name} says {reply!r} when asked {question!r}; try another --seed")
    return learnt


def replies(model: Any, tokenizer: PreTrainedTokenizerFast, questions: Sequence[str]) -> dict[str, str]:
    """Return the answer of `model` to each question, decoded greedily; an unfinished reply ends in '...'."""
    chats = [[{"role": "user", "content": question}] for question in questions]
    batch = tokenizer.apply_chat_template(
        chats, add_generation_prompt=True, padding=True, return_tensors="pt", return_dict=True
    )
    width = batch["input_ids"].shape[1]
    greedy = GenerationConfig(
        do_sample=False,
        max_new_tokens=_MAX_REPLY_TOKENS,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model.eval()
    with torch.no_grad():
        output = model.generate(**batch, generation_config=greedy)[:, width:].tolist()
    return {question: _sentence(tokenizer, row) for question, row in zip(questions, output, strict=True)}


def _sentence(tokenizer: PreTrainedTokenizerFast, tokens: list[int]) -> str:
    if tokenizer.eos_token_id not in tokens:
        return f"{tokenizer.decode(tokens)}..."
    return str(tokenizer.decode(tokens[: tokens.index(tokenizer.eos_token_id)]))
