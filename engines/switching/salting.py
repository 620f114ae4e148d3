"""Adds the model's digest to the cache salt of every request that goes into an engine's core.

The salt that comes with a request parts tenants; it does not say which of its models the engine has now. An
engine that takes turns in place would answer for one model from the KV cache of another. So the digest is
added here, at the last step before the core, by the one who knows which model is there: each model finds its
own prefixes again when its turn comes, and no request, not even a check of our own, finds another's.
"""

from __future__ import annotations

from typing import Any


class Salting:
    """The salt of one engine; `model` is the digest of the model that it has now."""

    def __init__(self, core: Any, model: str) -> None:
        """Take the `engine_core` of vLLM's `AsyncLLM` (0.32: each request passes `add_request_async`)."""
        self.model = model
        self._send = core.add_request_async
        core.add_request_async = self._add

    async def _add(self, request: Any) -> None:
        request.cache_salt = salt_of(self.model, request.cache_salt)
        await self._send(request)


def salt_of(model: str, salt: str | None) -> str:
    """Return the salt of a request for a model; the same where it is asked for twice."""
    begin = f"{model}:"
    return salt if salt is not None and salt.startswith(begin) else f"{begin}{salt or ''}"
