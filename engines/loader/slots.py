"""How many adapters may run at once? Never more than the engine has slots, pinned ones included.

vLLM's scheduler runs up to `max_loras` adapters at once and does not know which are pinned. With one pinned
and `max_loras` others in a batch, its worker takes a slot from an adapter of that same batch, and the engine
dies of a KeyError (0.32, lora/punica_wrapper/utils.py). So an adapter waits here for a slot, not inside vLLM.
"""

from __future__ import annotations

import asyncio


class Slots:
    """Counted leases on a fixed number of slots, by adapter; any number of requests share their adapter's."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._held: dict[str, int] = {}
        self._waiting: list[tuple[str, asyncio.Future[None]]] = []

    def __contains__(self, name: str) -> bool:
        """Whether the adapter holds a slot."""
        return name in self._held

    def try_acquire(self, name: str) -> bool:
        """Take a lease if possible now."""
        if name not in self._held and len(self._held) >= self._count:
            return False
        self._held[name] = self._held.get(name, 0) + 1
        return True

    async def acquire(self, name: str) -> None:
        """Take a lease, waiting for a slot; first come, first served."""
        if self.try_acquire(name):
            return
        granted = asyncio.get_running_loop().create_future()
        entry = (name, granted)
        self._waiting.append(entry)
        try:
            await granted
        except asyncio.CancelledError:
            if entry in self._waiting:
                self._waiting.remove(entry)
            else:  # granted in the same moment
                self.release(name)
            raise

    def release(self, name: str) -> None:
        """Return one lease; after the adapter's last one its slot goes to the next that waits."""
        self._held[name] -= 1
        if self._held[name]:
            return
        del self._held[name]
        waiting, self._waiting = self._waiting, []
        for entry in waiting:
            if not entry[1].done() and self.try_acquire(entry[0]):
                entry[1].set_result(None)
            else:
                self._waiting.append(entry)
