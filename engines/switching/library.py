"""What is known of the whole models of one host. Each is read once, in a thread, ahead of its turn.

A switch never waits for it: reading all weights for their digest takes minutes for a large model. Until that
is done, a model comes by another way.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection

from engines.switching.digest import Digests, Identity, changed_since
from engines.switching.live import Model
from engines.switching.reading import ModelUnreadable, read_contents
from engines.switching.shape import Contents, why_other_shape

log = logging.getLogger("tenantry.engine")
NOT_HERE = "it is not in a folder of this machine"
NOT_READ = "its files have not been read yet"


class Library:
    """The contents and digests of models, by name."""

    def __init__(self) -> None:
        self._digests = Digests()
        self._known: dict[str, tuple[Identity, Contents]] = {}
        self._faults: dict[str, str] = {}
        self._wanted: dict[str, Model] = {}  # to be read, in this order
        self._read_once: dict[str, asyncio.Event] = {}
        self._reading: asyncio.Task[None] | None = None

    def study(self, models: Collection[Model]) -> None:
        """Begin to read those that are not known as their files are now; returns at once."""
        for model in models:
            if model.folder is not None and self.identity(model) is None:
                self._wanted.setdefault(model.name, model)
        if self._wanted and self._reading is None:
            self._reading = asyncio.create_task(self._read_all())

    async def studied(self, model: Model) -> Identity | None:
        """Wait until a model has been read, before all others; return what is known then."""
        if model.folder is not None and self.identity(model) is None:
            read = self._read_once.setdefault(model.name, asyncio.Event())
            self._wanted = {model.name: model, **self._wanted}
            self.study([model])
            await read.wait()
        return self.identity(model)

    async def close(self) -> None:
        """Read no more."""
        self._wanted.clear()
        self._digests.stop()
        if self._reading is not None:
            await asyncio.gather(self._reading, return_exceptions=True)

    def identity(self, model: Model) -> Identity | None:
        """Return the identity of a model if it is known, and its files are as they were: looks at them."""
        known = self._known.get(model.name)
        if known is None or known[0].folder != model.folder or changed_since(known[0]):
            return None
        return known[0]

    def contents(self, model: Model) -> Contents | None:
        """Return what an engine reads of a model beside its numbers, if that is known as it is now."""
        return self._known[model.name][1] if self.identity(model) is not None else None

    def why_not_alike(self, one: Model, other: Model) -> str:
        """Return why the weights of one cannot take the place of the other's, or ""."""
        for model in (one, other):
            if model.folder is None:
                return f"{model.name}: {NOT_HERE}"
            if self.identity(model) is None:
                return f"{model.name}: {self._faults.get(model.name, NOT_READ)}"
        return why_other_shape(self._known[one.name][1], self._known[other.name][1])

    async def _read_all(self) -> None:
        """Read one model after the other: several would only share the disk."""
        try:
            while self._wanted:
                name, model = next(iter(self._wanted.items()))
                del self._wanted[name]
                await self._study(model)
                if name not in self._wanted and name in self._read_once:
                    self._read_once.pop(name).set()
        finally:
            self._reading = None

    async def _study(self, model: Model) -> None:
        try:
            self._known[model.name] = await asyncio.to_thread(self._read, model)
            self._faults.pop(model.name, None)
        except ModelUnreadable as error:
            if self._faults.get(model.name) != str(error):
                log.warning("%s takes no turns in place: %s", model.name, error)
            self._faults[model.name] = str(error)

    def _read(self, model: Model) -> tuple[Identity, Contents]:
        if model.folder is None:
            raise ModelUnreadable(NOT_HERE)
        identity = self._digests.identify(model.folder)
        contents = read_contents(model.folder)
        if changed := changed_since(identity):
            raise ModelUnreadable(f"{changed} was changed while it was read")
        return identity, contents
