"""How is a whole demo folder made? Tokenizer, base model, adapters, answers; then it is published."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from adapters.demo import answers as demo
from adapters.demo import bulk, folder
from adapters.demo.recipe import Recipe

Progress = Callable[[str, int, float], None]  # (model, step, margin reached)


def train(out: Path, recipe: Recipe, *, seed: int, bulk_count: int, progress: Progress) -> folder.Manifest:
    """Train everything and put it in place of `out`; needs the lock, raises DemoError, leaves no half."""
    folder.check_replaceable(out)
    with folder.scratch(out) as scratch:
        built = scratch / "built"
        _train_models(built, recipe, seed=seed, progress=progress)
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


def _train_models(built: Path, recipe: Recipe, *, seed: int, progress: Progress) -> None:
    # Imported here: torch takes seconds to import, and a complete folder needs none of it.
    from adapters.demo import tokenizer as text
    from adapters.demo import training

    def report(name: str) -> training.Report:
        return lambda step, margin: progress(name, step, margin)

    with training.one_thread():
        names = (demo.BASE_MODEL, *demo.ADAPTERS)
        sentences = [*demo.QUESTIONS, *(line for name in names for line in demo.answers(name).values())]
        tokenizer = text.learn(
            sentences, vocab_size=recipe.shape.vocab_size, max_length=recipe.shape.max_position_embeddings
        )
        base = training.new_base_model(tokenizer, recipe.shape, seed=seed)
        training.teach(
            base,
            tokenizer,
            demo.answers(demo.BASE_MODEL),
            name=demo.BASE_MODEL,
            recipe=recipe,
            report=report(demo.BASE_MODEL),
        )
        training.save_base_model(base, tokenizer, built / "base")
        for name in demo.ADAPTERS:
            model = training.with_adapter(base, recipe.shape, name=name, seed=seed)
            training.teach(
                model, tokenizer, demo.answers(name), name=name, recipe=recipe, report=report(name)
            )
            training.save_adapter(model, built / "adapters" / name, base_model=demo.BASE_MODEL)


def _make_bulk(source: Path, target: Path, indices: range, *, seed: int) -> None:
    for index in indices:
        trained = demo.ADAPTERS[index % len(demo.ADAPTERS)]
        bulk.make(
            source / "adapters" / trained,
            target / "adapters" / bulk.name(index),
            seed=seed,
            index=index,
        )
