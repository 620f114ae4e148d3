"""Requests as some source tells them, and what is wrong with such: sorted, sifted, said. Pure.

A source is believed as far as it can be: what no engine can have served is left out and counted, a clock that
jumps is cut where it jumped, and each of that is said in a sentence that goes with the demand.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from planning.values import DAY_S
from planning.words import counted, span

MAX_TOKENS = 10_000_000  # of one prompt or answer: ten times the longest context that is sold
MAX_MODELS = 10_000
JUMP_S = 30 * DAY_S  # nobody asked for anything for so long: the clock, or two recordings in one file
LEFT_OUT_PART = 0.5  # of more than these nothing is believed

Floats = NDArray[np.float64]


class DemandError(Exception):
    """A source tells no demand; the message says why and what would help, in one or two sentences."""


@dataclass(slots=True)
class Requests:
    """Columns of equal length, in any order, as they were read."""

    time_s: list[float] = field(default_factory=list)  # of arrival; Unix, or from any other begin
    model: list[str] = field(default_factory=list)
    prompt: list[float] = field(default_factory=list)  # tokens, cached ones included; 0: not known
    completion: list[float] = field(default_factory=list)  # tokens; 0: not known
    cached: list[float] = field(default_factory=list)  # prompt tokens
    tenant: list[str] = field(default_factory=list)  # "": not known
    took_s: list[float] = field(default_factory=list)  # from arrival to the end; NaN: not known

    def add(
        self,
        time_s: float,
        model: str,
        prompt: float,
        completion: float,
        *,
        cached: float = 0.0,
        tenant: str = "",
        took_s: float = float("nan"),
    ) -> None:
        """Add one request."""
        self.time_s.append(time_s)
        self.model.append(model)
        self.prompt.append(prompt)
        self.completion.append(completion)
        self.cached.append(cached)
        self.tenant.append(tenant)
        self.took_s.append(took_s)

    def __len__(self) -> int:
        return len(self.time_s)


@dataclass(frozen=True, slots=True, eq=False)
class Sifted:
    """What is believed of some requests, in the order of their arrival."""

    models: tuple[str, ...]  # by name
    tenants: tuple[str, ...]
    time_s: Floats  # from the first arrival
    model: NDArray[np.int32]  # index in `models`
    tenant: NDArray[np.int32]  # index in `tenants`
    prompt: NDArray[np.int32]
    completion: NDArray[np.int32]
    cached: NDArray[np.int32]
    took_s: Floats
    begins_s: float  # of the first arrival, as the source counts
    notes: tuple[str, ...]


def sifted(found: Requests) -> Sifted:
    """Sort requests and leave out what cannot be. Raises `DemandError` where too little is left."""
    if not found:
        raise DemandError("there is no request in it")
    notes: list[str] = []
    times, prompt, completion, cached = (
        np.asarray(column, dtype=np.float64)
        for column in (found.time_s, found.prompt, found.completion, found.cached)
    )
    good = np.isfinite(times)
    for tokens in (prompt, completion, cached):
        good &= np.isfinite(tokens) & (tokens >= 0) & (tokens <= MAX_TOKENS)
    good &= np.asarray([bool(name) for name in found.model])
    _tell_left_out(len(found), int(good.sum()), notes)
    _tell_order(times[good], notes)
    places = np.flatnonzero(good)
    places = places[np.argsort(times[places], kind="stable")]
    places = _largest_stretch(places, times[places], notes)
    models, model = _coded(found.model, places)
    tenants, tenant = _coded(found.tenant, places)
    if len(models) > MAX_MODELS:
        raise DemandError(
            f"it names {len(models)} models, more than {MAX_MODELS}: is its column of models right?"
        )
    prompts, whole = prompt[places].astype(np.int32), cached[places].astype(np.int32)
    return Sifted(
        models=models,
        tenants=tenants,
        time_s=times[places] - times[places[0]],
        model=model,
        tenant=tenant,
        prompt=prompts,
        completion=completion[places].astype(np.int32),
        cached=np.minimum(whole, prompts),
        took_s=np.asarray(found.took_s, dtype=np.float64)[places],
        begins_s=float(times[places[0]]),
        notes=tuple(notes),
    )


def _tell_left_out(count: int, good: int, notes: list[str]) -> None:
    bad = count - good
    if not bad:
        return
    what = "a time, a model or token counts that cannot be (negative, missing, or absurdly large)"
    if bad > LEFT_OUT_PART * count:
        raise DemandError(f"{bad} of its {count} requests have {what}: nothing can be made of it")
    notes.append(f"{bad} of {count} requests have {what}; they are left out.")


def _tell_order(times: Floats, notes: list[str]) -> None:
    """Say where later lines have earlier times; files of ended requests are a little out of order always."""
    back = -np.diff(times)
    back = back[back > 0]
    if len(back):
        notes.append(
            f"Sorted: {counted(len(back), 'request')} earlier than the line above, by up to "
            f"{span(float(back.max()))}."
        )


def _largest_stretch(places: NDArray[np.intp], times: Floats, notes: list[str]) -> NDArray[np.intp]:
    """Keep the part between two jumps of the clock that has the most requests."""
    jumps = np.flatnonzero(np.diff(times) > JUMP_S)
    if not len(jumps):
        return places
    parts = np.split(places, jumps + 1)
    kept = max(parts, key=len)
    lost = len(places) - len(kept)
    if lost > LEFT_OUT_PART * len(places):
        raise DemandError(
            f"its clock jumps {len(jumps)} times by more than {span(JUMP_S)}, and no part between has half "
            "of the requests: give one part alone"
        )
    notes.append(
        f"The clock jumps by more than {span(JUMP_S)}; the {len(kept)} requests of the largest part count "
        f"and {lost} others do not."
    )
    return kept


def _coded(names: Sequence[str], places: Iterable[int]) -> tuple[tuple[str, ...], NDArray[np.int32]]:
    """Return the names that occur, sorted, and each place's index in them."""
    chosen = [names[place] for place in places]
    known = sorted(set(chosen))
    index = {name: number for number, name in enumerate(known)}
    return tuple(known), np.fromiter((index[name] for name in chosen), dtype=np.int32, count=len(chosen))
