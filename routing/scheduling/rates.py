"""Has this tenant used up its requests or tokens of the last minute, and when will there be room again?

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

from limits.storage import MemoryStorage

from fleet.types import Caps
from routing.scheduling.admission import Cap, Rejection

_WINDOW_S = 60
_MEMORY_S = 2 * _WINDOW_S  # a window weighs nothing once the next one has passed too
_MARGIN_S = 0.001  # the library wants more than the limit to be free, not as much


class RateLimits:
    """Requests and tokens per minute of all tenants. Reads the wall clock, as the library does."""

    def __init__(self, caps: Mapping[str, Caps]) -> None:
        self._storage = _storage_without_thread()
        self._requests: dict[str, _Window] = {}
        self._tokens: dict[str, _TokenWindow] = {}
        self._sweep_at_s = 0.0
        self.take(caps)

    def take(self, caps: Mapping[str, Caps]) -> None:
        """Let other limits count. What a window has counted, and what is owed, stays where a limit stays."""
        requests = {tenant: c.requests_per_minute for tenant, c in caps.items() if c.requests_per_minute}
        tokens = {tenant: c.tokens_per_minute for tenant, c in caps.items() if c.tokens_per_minute}
        self._requests = {
            tenant: self._requests.get(tenant) or _Window(self._storage, Cap.REQUESTS_PER_MINUTE, tenant)
            for tenant in requests
        }
        self._tokens = {
            tenant: self._tokens.get(tenant) or _TokenWindow(self._storage, Cap.TOKENS_PER_MINUTE, tenant)
            for tenant in tokens
        }
        for tenant, limit in requests.items():
            self._requests[tenant].limit = limit
        for tenant, limit in tokens.items():
            self._tokens[tenant].limit = limit
        self._limited = self._requests.keys() | self._tokens.keys()

    def book(self, tenant: str, prompt_tokens: int) -> Rejection | None:
        """Book one request and its prompt; or book nothing, and say which cap has room last, and when.

        The time holds where the tenant sends nothing else until then. It is None where the request alone is
        larger than the limit.
        """
        if tenant not in self._limited:
            return None
        self._sweep()
        requests, tokens = self._requests.get(tenant), self._tokens.get(tenant)
        rejections = [
            requests.rejection(1) if requests else None,
            tokens.rejection(prompt_tokens) if tokens else None,
        ]
        if rejection := max(filter(None, rejections), key=_wait_s, default=None):
            return rejection
        if requests:
            requests.book(1)
        if tokens:
            tokens.book(prompt_tokens)
        return None

    def correct(self, tenant: str, tokens: int) -> None:
        """Book what an ended request used beyond its estimate, now or as room comes.

        Where it used less, the difference is given back: first of what the tenant owes, then of what the
        window counts, never below zero.
        """
        window = self._tokens.get(tenant)
        if window is None:
            return
        if tokens >= 0:
            window.owe(tokens)
        else:
            window.give_back(-tokens)

    def _sweep(self) -> None:
        """Drop counts of minutes long past, once a minute, as the library's thread would."""
        now_s = time.time()
        if now_s < self._sweep_at_s:
            return
        self._sweep_at_s = now_s + _WINDOW_S
        expiry_s = self._storage.expirations  # all live equally long, so the oldest come first
        for key in list(itertools.takewhile(lambda key: expiry_s[key] <= now_s, expiry_s)):
            self._storage.get(key)  # drops what has expired


class _Window:
    """What one tenant has used under one cap."""

    limit = 0

    def __init__(self, storage: MemoryStorage, cap: Cap, tenant: str) -> None:
        self._storage = storage
        self._key = f"{cap}/{tenant}"  # without the limit, so that another one finds what was counted
        self._cap = cap

    def rejection(self, amount: int) -> Rejection | None:
        """Say why an amount cannot be booked now; None where it can."""
        wait_s = self._wait_s(amount)
        return None if wait_s == 0 else Rejection(self._cap, self.limit, wait_s)

    def book(self, amount: int) -> None:
        """Count an amount; the caller has seen that there is room."""
        if amount:
            self._storage.acquire_sliding_window_entry(self._key, self.limit, _WINDOW_S, amount)

    def _wait_s(self, amount: int) -> float | None:
        """Seconds until there is room for an amount; 0: now; None: never."""
        if amount > self.limit:
            return None
        previous, previous_left_s, current, current_left_s = self._storage.get_sliding_window(
            self._key, _WINDOW_S
        )
        bound = self.limit - amount + 1  # the weighted count must be below it
        if previous * previous_left_s / _WINDOW_S + current < bound:
            return 0.0
        if current < bound:  # there will be room before this minute ends
            return previous_left_s - (bound - current) * _WINDOW_S / previous + _MARGIN_S
        left_s = current_left_s - _WINDOW_S
        return left_s + _WINDOW_S * (1 - bound / current) + _MARGIN_S

    def _room(self) -> int:
        previous, left_s, current, _ = self._storage.get_sliding_window(self._key, _WINDOW_S)
        return self.limit - math.floor(previous * left_s / _WINDOW_S + current)


class _TokenWindow(_Window):
    """A window that may be overdrawn: what finds no room is owed."""

    _owed = 0
    _paid_at_s = 0.0  # when a part of it was booked last

    def rejection(self, amount: int) -> Rejection | None:
        """Say why an amount cannot be booked now, after what is owed; None where it can."""
        self._pay()
        if not self._owed or amount > self.limit:
            return super().rejection(amount)
        return Rejection(self._cap, self.limit, self._wait_for_debt_s(amount))

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
        booked = min(self._owed, max(0, self._room()))
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
