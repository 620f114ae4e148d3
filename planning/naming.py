"""Names that a fleet file takes, for models and tenants that are called anything. Pure.

A name that a fleet takes stays. Of another one the letters and digits stay, and no two become the same.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from fleet.names import is_alias, is_name
from fleet.types import Fleet, Pool, Tenant

_LONGEST = 50  # with room for a number


def unique(wished: Sequence[str], taken: Collection[str] = (), *, mark: str = "-") -> list[str]:
    """Return a name for each that is wished; those that are wished more than once are numbered."""
    counts, used = Counter(wished), {*taken, *wished}
    found: list[str] = []
    numbers: Counter[str] = Counter()
    for name in wished:
        if counts[name] == 1 and name not in taken:
            found.append(name)
            continue
        numbered = name
        while numbered in used:
            numbers[name] += 1
            numbered = f"{name}{mark}{numbers[name]}"
        used.add(numbered)
        found.append(numbered)
    return found


def clean(text: str, *, fallback: str) -> str:
    """Return the letters and digits of a text as a name that a fleet takes."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "-", plain.lower()).strip("-")[:_LONGEST].strip("-") or fallback


def names_for(texts: Iterable[str], *, fallback: str) -> dict[str, str]:
    """Return the name in a fleet of each text; `fallback` is for those without a letter or digit."""
    every = sorted(set(texts))
    good = [text for text in every if is_name(text)]
    others = [text for text in every if not is_name(text)]
    made = unique([clean(text, fallback=fallback) for text in others], frozenset(good))
    return {text: text for text in good} | dict(zip(others, made, strict=True))


def renamed(fleet: Fleet, models: Mapping[str, str], tenants: Mapping[str, str]) -> Fleet:
    """Return a fleet under other names; a tenant's own name for a model stays where it may."""
    return replace(
        fleet,
        base_models={
            models[name]: replace(one, name=models[name]) for name, one in fleet.base_models.items()
        },
        adapters={
            models[name]: replace(one, name=models[name], base_model=models[one.base_model])
            for name, one in fleet.adapters.items()
        },
        tenants={tenants[name]: _tenant(one, models, tenants[name]) for name, one in fleet.tenants.items()},
        pools={name: _pool(one, models, tenants) for name, one in fleet.pools.items()},
    )


def _tenant(one: Tenant, models: Mapping[str, str], name: str) -> Tenant:
    aliases = {}
    for alias, model in one.models.items():
        now = models.get(model, model)
        aliases[alias if is_alias(alias) else now] = now
    return replace(one, name=name, models=aliases)


def _pool(one: Pool, models: Mapping[str, str], tenants: Mapping[str, str]) -> Pool:
    residency = replace(
        one.residency,
        preload=tuple(models[name] for name in one.residency.preload),
        pinned=tuple(models[name] for name in one.residency.pinned),
    )
    return replace(
        one,
        base_models=tuple(sorted(models[name] for name in one.base_models)),
        tenants=tuple(tenants[name] for name in one.tenants),
        residency=residency,
    )
