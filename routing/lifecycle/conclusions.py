"""Counts what both sides of a rollout do, and ends the rollout as the verdict says."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

from routing.catalog.directory import Directory
from routing.catalog.entries import AdapterEntry, AdapterKey, Rollout
from routing.errors import RequestError
from routing.lifecycle.changes import Changes
from routing.lifecycle.registry import Registry, patiently
from routing.lifecycle.rollouts import Action, Verdict
from routing.lifecycle.split import Rollouts
from routing.types import Record


class Conclusions:
    """The ends of rollouts that nobody asked for: a candidate is promoted, or rolled back."""

    def __init__(
        self,
        registry: Registry,
        directory: Directory,
        changes: Changes,
        spawn: Callable[[Coroutine[Any, Any, None]], None],
        tell_engines: Callable[[], None],
    ) -> None:
        self._registry = registry
        self._directory = directory
        self._changes = changes
        self._spawn = spawn
        self._tell_engines = tell_engines
        self._rollouts = Rollouts()
        self._concluding: set[AdapterKey] = set()

    def begin(self, key: AdapterKey) -> None:
        """Count from the beginning: a rollout begins, perhaps of a candidate that was rolled back before."""
        self._rollouts.forget(key)

    def observe(self, record: Record) -> None:
        """Count a settled request of an adapter; it may end a rollout."""
        if not self._directory.rollouts:
            return
        entry = self._entry_of(record)
        if entry is None or entry.rollout is None or entry.key in self._concluding:
            return
        verdict = self._rollouts.observe(entry, record)
        if verdict.action is not Action.WAIT:
            self._concluding.add(entry.key)
            self._spawn(self._conclude(entry, entry.rollout, verdict))

    def _entry_of(self, record: Record) -> AdapterEntry | None:
        target = record.target
        is_own = "/" in (target.adapter_id or "")  # engines know a tenant's own as tenant/name@digest
        return self._directory.adapter(AdapterKey(target.tenant if is_own else None, target.adapter or ""))

    async def _conclude(self, entry: AdapterEntry, rollout: Rollout, verdict: Verdict) -> None:
        """End a rollout as the verdict says; a rollback takes effect even if the database is silent."""
        try:
            if verdict.action is Action.ROLL_BACK:
                self._directory.put(replace(self._directory.adapter(entry.key) or entry, rollout=None))
                ended = await patiently(lambda: self._end(entry, rollout, entry.live, entry.previous))
            else:
                ended = await patiently(lambda: self._end(entry, rollout, rollout.candidate, entry.live))
            if ended and verdict.action is Action.ROLL_BACK:
                await self._note(entry.key, rollout.candidate, f"rolled back: {verdict.reason}")
            if ended:
                text = f"version {rollout.candidate}: {verdict.action}: {verdict.reason}"
                await self._registry.record(str(entry.key), text, tenant=entry.key.tenant)
        finally:
            self._concluding.discard(entry.key)
            self._tell_engines()

    async def _note(self, key: AdapterKey, number: int, reason: str) -> None:
        """Let the reason stand at the version, where its tenant sees it."""
        entry = self._directory.adapter(key)
        version = None if entry is None else entry.ready(number)
        if version is not None:
            with contextlib.suppress(RequestError):  # it was retired meanwhile, or the database is silent
                await self._registry.note(version, reason)

    async def _end(
        self, entry: AdapterEntry, rollout: Rollout, live: int | None, previous: int | None
    ) -> bool:
        """End a rollout, unless somebody has changed it meanwhile; return whether it was ended."""
        async with self._changes.of(entry.key):
            now = self._directory.adapter(entry.key)
            if now is None or now.live != entry.live or now.rollout not in (None, rollout):
                return False
            await self._registry.route(entry.key, live=live, previous=previous, rollout=None)
            return True
