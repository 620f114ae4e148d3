"""Has a tenant, or a key of it, used up the last minute's requests or tokens, and when will there be room?

A request takes its part of the tenant's and of the key's caps together, or of none.

Counted by the library `limits` as a sliding window counter: one count for this minute of the clock, one for
the minute before, which weighs less the more of this minute has passed. Two numbers per tenant and cap,
however many tokens a request has.

A request takes its prompt, estimated, when it enters. What it used beyond that is known only when it has
ended, and may be more than there is room for. The window holds nothing past its limit and forgets after two
minutes, so the rest is owed: it is booked as room comes, before anything else, and a tenant that owes gets
nothing new. Over time no tenant gets more than its limit.
"""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass

from limits.storage import MemoryStorage

from fleet.types import Caps, KeyLimits
from routing.scheduling.admission import Cap, Rejection

_OF_TENANT = Cap.REQUESTS_PER_MINUTE, Cap.TOKENS_PER_MINUTE
_OF_KEY = Cap.KEY_REQUESTS_PER_MINUTE, Cap.KEY_TOKENS_PER_MINUTE
_WINDOW_S = 60
_MEMORY_S = 2 * _WINDOW_S  # a window weighs nothing once the next one has passed too
_Counts = tuple[int, float, int, float]  # of the minute before, its seconds left; of this minute, the same
_MARGIN_S = 0.001  # the library wants more than the limit to be free, not as much


@dataclass(frozen=True, slots=True)
class Allowance:
    """What is left of one limit per minute."""

    counts_tokens: bool  # else requests
    limit: int
    remaining: int
    reset_s: float  # until all of the limit is free, if nothing else comes


class RateLimits:
    """Requests and tokens per minute of all tenants. Reads the wall clock, as the library does."""

    def __init__(self, caps: Mapping[str, Caps]) -> None:
        self._storage = _storage_without_thread()
        self._tenants: dict[str, _Owner] = {}  # that have such caps
        self._keys: dict[str, _Owner] = {}  # that have such limits, and counts
        self._swept_at_s = 0.0
        self.take(caps)

    def take(self, caps: Mapping[str, Caps]) -> None:
        """Let other caps of tenants count. What was counted, and what is owed, stays where a cap stays."""
        self._tenants = {
            tenant: self._tenants.get(tenant) or _Owner(self._storage, tenant, _OF_TENANT)
            for tenant, own in caps.items()
            if _has_rate(own)
        }
        for tenant, owner in self._tenants.items():
            owner.take(caps[tenant])

    def book(
        self, tenant: str, prompt_tokens: int, key: str = "", limits: KeyLimits | None = None
    ) -> Rejection | None:
        """Book one request and its prompt; or book nothing, and say which cap has room last, and when.

        `limits` are those of the key. The time holds where the tenant sends nothing else until then. It is
        None where the request alone is larger than the limit.
        """
        if limits is not None and not _has_rate(limits):
            limits = None
        if limits is None and tenant not in self._tenants:
            return None
        self._sweep()
        windows = self._tenants[tenant].windows if tenant in self._tenants else ()
        if limits is not None:
            windows += self._of_key(key, limits).windows
        rejections = [window.rejection(prompt_tokens if window.counts_tokens else 1) for window in windows]
        if rejection := max(filter(None, rejections), key=_wait_s, default=None):
            return rejection
        for window in windows:
            window.book(prompt_tokens if window.counts_tokens else 1)
        return None

    def left(self, tenant: str, key: str = "", limits: KeyLimits | None = None) -> list[Allowance]:
        """Say what is left of the requests and of the tokens, of each where there is a limit.

        Where the tenant and its key have one, it is that of which less is left.
        """
        if tenant not in self._tenants and limits is None:
            return []
        windows = self._tenants[tenant].windows if tenant in self._tenants else ()
        if limits is not None and _has_rate(limits):
            windows += self._of_key(key, limits).windows
        tightest: dict[bool, Allowance] = {}
        for allowance in (window.left() for window in windows):
            known = tightest.get(allowance.counts_tokens)
            if known is None or allowance.remaining < known.remaining:
                tightest[allowance.counts_tokens] = allowance
        return list(tightest.values())

    def correct(self, tenant: str, tokens: int, key: str = "", limits: KeyLimits | None = None) -> None:
        """Book what an ended request used beyond its estimate, now or as room comes.

        Where it used less, the difference is given back: first of what is owed, then of what the window
        counts, never below zero. `limits` are those that its key had when it came.
        """
        if limits is None and tenant not in self._tenants:
            return
        owners = [self._tenants[tenant]] if tenant in self._tenants else []
        if limits is not None and _has_rate(limits):
            owners.append(self._keys.get(key) or self._of_key(key, limits))
        for window in itertools.chain.from_iterable(owner.windows for owner in owners):
            if isinstance(window, _TokenWindow):
                window.correct(tokens)

    def _of_key(self, key: str, limits: KeyLimits) -> _Owner:
        """Return a key's windows, with its limits as they are now."""
        owner = self._keys.get(key)
        if owner is None:
            owner = self._keys[key] = _Owner(self._storage, key, _OF_KEY)
        owner.take(limits)
        return owner

    def _sweep(self) -> None:
        """Drop counts of minutes long past, once a minute, as the library's thread would.

        A clock that was ahead and was set back leaves counts of minutes to come.
        """
        now_s = time.time()
        if self._swept_at_s <= now_s < self._swept_at_s + _WINDOW_S:
            return
        self._swept_at_s = now_s
        latest_s = now_s + _MEMORY_S + _WINDOW_S
        for key, expiry_s in list(self._storage.expirations.items()):
            if not now_s < expiry_s <= latest_s:
                self._storage.clear(key)
        for key, owner in list(self._keys.items()):
            if not any(window.has_counts for window in owner.windows):
                del self._keys[key]


class _Window:
    """What one tenant, or one key, has used under one cap."""

    counts_tokens = False

    limit = 0

    def __init__(self, storage: MemoryStorage, cap: Cap, owner: str) -> None:
        self._storage = storage
        self._key = f"{cap}/{owner}"  # without the limit, so that another one finds what was counted
        self._cap = cap

    def rejection(self, amount: int) -> Rejection | None:
        """Say why an amount cannot be booked now; None where it can."""
        wait_s = self._wait_s(amount)
        return None if wait_s == 0 else Rejection(self._cap, self.limit, wait_s)

    def book(self, amount: int) -> None:
        """Count an amount; the caller has seen that there is room."""
        if amount:
            self._storage.acquire_sliding_window_entry(self._key, self.limit, _WINDOW_S, amount)

    def left(self) -> Allowance:
        """Say what can be booked now, and when all of the limit can."""
        counts = self._counts()
        return Allowance(
            self.counts_tokens, self.limit, max(0, self._room(counts)), self._until_s(self.limit, counts)
        )

    @property
    def has_counts(self) -> bool:
        """Whether it remembers anything."""
        previous, _, current, _ = self._counts()
        return bool(previous or current)

    def _wait_s(self, amount: int) -> float | None:
        """Seconds until there is room for an amount; 0: now; None: never."""
        return None if amount > self.limit else self._until_s(amount, self._counts())

    def _counts(self) -> _Counts:
        return self._storage.get_sliding_window(self._key, _WINDOW_S)

    def _until_s(self, amount: int, counts: _Counts) -> float:
        previous, previous_left_s, current, current_left_s = counts
        bound = self.limit - amount + 1  # the weighted count must be below it
        if previous * previous_left_s / _WINDOW_S + current < bound:
            return 0.0
        if current < bound:  # there will be room before this minute ends
            return previous_left_s - (bound - current) * _WINDOW_S / previous + _MARGIN_S
        left_s = current_left_s - _WINDOW_S
        return left_s + _WINDOW_S * (1 - bound / current) + _MARGIN_S

    def _room(self, counts: _Counts) -> int:
        previous, left_s, current, _ = counts
        return self.limit - math.floor(previous * left_s / _WINDOW_S + current)


class _TokenWindow(_Window):
    """A window that may be overdrawn: what finds no room is owed."""

    counts_tokens = True
    _owed = 0
    _paid_at_s = 0.0  # when a part of it was booked last

    @property
    def has_counts(self) -> bool:
        """Whether it remembers anything, or something is owed."""
        return bool(self._owed) or super().has_counts

    def rejection(self, amount: int) -> Rejection | None:
        """Say why an amount cannot be booked now, after what is owed; None where it can."""
        self._pay()
        if not self._owed or amount > self.limit:
            return super().rejection(amount)
        return Rejection(self._cap, self.limit, self._wait_for_debt_s(amount))

    def left(self) -> Allowance:
        """Say what can be booked now, after what is owed, and when all of the limit can."""
        self._pay()
        if not self._owed:
            return super().left()
        return Allowance(True, self.limit, 0, self._wait_for_debt_s(self.limit) or 0.0)

    def correct(self, amount: int) -> None:
        """Book what was used beyond what was booked; a negative amount is given back."""
        if amount >= 0:
            self.owe(amount)
        else:
            self.give_back(-amount)

    def owe(self, amount: int) -> None:
        """Count an amount as far as there is room, and remember the rest."""
        if not self._owed:
            self._paid_at_s = time.time()
        self._owed += amount
        self._pay()

    def give_back(self, amount: int) -> None:
        """Take an amount off what is owed, then off the count of this minute and of the one before."""
        forgiven = min(amount, self._owed)
        self._owed -= forgiven
        amount -= forgiven
        for key in reversed(self._storage.sliding_window_keys(self._key, _WINDOW_S, time.time())):
            returned = min(amount, self._storage.get(key))
            if returned:
                self._storage.decr(key, returned)
                amount -= returned

    def _pay(self) -> None:
        """Book what is owed as far as there is room.

        The window shows two minutes. Time before those, in which the tenant could book nothing else, pays at
        the rate of the limit, so that a debt of many minutes ends on time, however seldom requests come.
        """
        if not self._owed:
            return
        now_s = time.time()
        unseen_s = max(0.0, now_s - self._paid_at_s - _MEMORY_S)
        self._owed -= min(self._owed, math.floor(unseen_s * self.limit / _WINDOW_S))
        booked = min(self._owed, max(0, self._room(self._counts())))
        self.book(booked)
        self._owed -= booked
        if booked:
            self._paid_at_s = now_s

    def _wait_for_debt_s(self, amount: int) -> float | None:
        """Seconds until there is room for what is owed and for the amount, at one time."""
        wanted = self._owed + amount
        if wanted <= self.limit:
            return self._wait_s(wanted)
        minutes = (wanted - self.limit) / self.limit
        since_s = time.time() - self._paid_at_s
        return max(0.0, _MEMORY_S - since_s + minutes * _WINDOW_S) + _MARGIN_S


class _Owner:
    """What one tenant, or one key, has used: a window for each cap that it has now."""

    def __init__(self, storage: MemoryStorage, name: str, caps: tuple[Cap, Cap]) -> None:
        self._requests = _Window(storage, caps[0], name)
        self._tokens = _TokenWindow(storage, caps[1], name)
        self._taken: Caps | KeyLimits | None = None
        self.windows: tuple[_Window, ...] = ()

    def take(self, caps: Caps | KeyLimits) -> None:
        """Let other caps count; what was counted stays."""
        if caps is self._taken:
            return
        self._taken = caps
        limits = (self._requests, caps.requests_per_minute), (self._tokens, caps.tokens_per_minute)
        self.windows = tuple(window for window, limit in limits if limit is not None)
        for window, limit in limits:
            window.limit = limit or 0


def _has_rate(caps: Caps | KeyLimits) -> bool:
    return caps.requests_per_minute is not None or caps.tokens_per_minute is not None


def _wait_s(rejection: Rejection) -> float:
    return math.inf if rejection.retry_after_s is None else rejection.retry_after_s


class _NeverDue(threading.Timer):
    """A timer that claims to run already, so that it is never started."""

    def is_alive(self) -> bool:
        """Say yes; `MemoryStorage` starts its timer wherever it finds none alive."""
        return True


def _storage_without_thread() -> MemoryStorage:
    """Make a storage that sweeps nothing by itself.

    The library starts a thread at every hit that finds none alive (limits 5.8, `MemoryStorage.incr`): some
    seventy a second under load, and each goes through all keys. Here `RateLimits` sweeps.
    """
    storage = MemoryStorage()
    storage.timer.cancel()
    storage.timer.join()
    storage.timer = _NeverDue(0, lambda: None)
    return storage
