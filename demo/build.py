"""Builds a whole demo folder (tokenizer, base model, adapters, whole models, answers) and publishes it."""

from __future__ import annotations

import json
import zlib
from functools import partial
from pathlib import Path
from typing import Protocol

from demo import answers as demo
from demo import bulk, folder
from demo.recipe import Recipe


class Watcher(Protocol):
    """Observes the progress of the training."""

    def step(self, model: str, step: int) -> None:
        """`model` has trained for `step` steps."""

    def learnt(self, model: str, steps: int, margin: float) -> None:
        """`model` knows its answers by a margin in logits."""


def train(out: Path, recipe: Recipe, *, seed: int, bulk_count: int, watcher: Watcher) -> folder.Manifest:
    """Train everything and replace `out`, whole or not at all; needs the lock. Raises `DemoError`."""
    folder.check_replaceable(out)
    with folder.scratch(out) as scratch:
        built = scratch / "built"
        _train_models(built, recipe, seed=seed, watcher=watcher)
        _make_bulk(built, built, range(bulk_count), seed=seed)
        (built / "answers.json").write_text(json.dumps(demo.document(), indent=2) + "\n")
        manifest = folder.seal(built, recipe, seed=seed, bulk=bulk_count)
        folder.publish(built, out, attic=scratch)
    return manifest


def add_bulk(out: Path, recipe: Recipe, manifest: folder.Manifest, *, bulk_count: int) -> folder.Manifest:
    """Add synthetic adapters to the complete folder `out` until it has `bulk_count`; needs the lock."""
    with folder.scratch(out) as scratch:
        missing = range(manifest.bulk, bulk_count)
        _make_bulk(out, scratch / "built", missing, seed=manifest.seed)
        for index in missing:
            name = bulk.name(index)
            folder.publish(scratch / "built" / "adapters" / name, out / "adapters" / name, attic=scratch)
        return folder.seal(out, recipe, seed=manifest.seed, bulk=bulk_count)


def _train_models(built: Path, recipe: Recipe, *, seed: int, watcher: Watcher) -> None:
    # Imported here: torch takes seconds to import, and a complete folder needs none of it.
    from demo import checkpoint, training, whole
    from demo import tokenizer as text
    from demo.lessons import Speaker

    names = (demo.BASE_MODEL, *demo.ADAPTERS)
    sentences = [*demo.QUESTIONS, *(line for name in names for line in demo.answers(name).values())]
    voices = [text.voice(index) for index in range(len(demo.ADAPTERS))]
    shape = recipe.shape
    tokenizer = text.learn(
        sentences,
        voices=len(voices),
        vocab_size=shape.vocab_size,
        max_length=shape.max_position_embeddings,
    )
    with training.one_thread():
        base = training.new_base_model(tokenizer, shape, seed=seed)
        # Adapters of a base model that has seen all sentences learn fast and answer right in any chat.
        learnt = training.teach(
            base,
            tokenizer,
            Speaker(demo.BASE_MODEL, demo.answers(demo.BASE_MODEL)),
            beside=[
                Speaker(name, demo.answers(name), voice)
                for name, voice in zip(demo.ADAPTERS, voices, strict=True)
            ],
            seed=seed,
            schedule=recipe.base,
            report=partial(watcher.step, demo.BASE_MODEL),
        )
        training.forget(base, tokenizer, voices)
        watcher.learnt(demo.BASE_MODEL, learnt.steps, learnt.margin)
        checkpoint.save_base_model(base, tokenizer, built / "base")
        for name in demo.ADAPTERS:
            model = training.with_adapter(base, shape, seed=seed + zlib.crc32(name.encode()))
            learnt = training.teach(
                model,
                tokenizer,
                Speaker(name, demo.answers(name)),
                seed=seed,
                schedule=recipe.adapter,
                report=partial(watcher.step, name),
            )
            watcher.learnt(name, learnt.steps, learnt.margin)
            checkpoint.save_adapter(model, built / "adapters" / name, base_model=demo.BASE_MODEL)
            kind = demo.WHOLE_MODELS.get(name)
            if kind in ("llama", "qwen2"):
                fine_tune = whole.merged(model)
                saved = whole.as_qwen2(fine_tune) if kind == "qwen2" else fine_tune
                checkpoint.save_base_model(saved, tokenizer, built / "whole" / name)
        for name in (name for name, kind in demo.WHOLE_MODELS.items() if kind == "gpt2"):
            gpt2 = whole.new_gpt2(tokenizer, shape, seed=seed)
            learnt = training.teach(
                gpt2,
                tokenizer,
                Speaker(name, demo.answers(name)),
                seed=seed,
                schedule=recipe.gpt2,
                report=partial(watcher.step, demo.gpt2_name(name)),
            )
            watcher.learnt(demo.gpt2_name(name), learnt.steps, learnt.margin)
            checkpoint.save_base_model(gpt2, tokenizer, built / "whole" / name)


def _make_bulk(source: Path, target: Path, indices: range, *, seed: int) -> None:
    for index in indices:
        trained = demo.ADAPTERS[index % len(demo.ADAPTERS)]
        bulk.make(
            source / "adapters" / trained,
            target / "adapters" / bulk.name(index),
            seed=seed,
            index=index,
        )
