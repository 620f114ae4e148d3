"""What may this key call? The document of the inference API, with the caller's own models in it."""

from __future__ import annotations

import orjson

from routing.asgi import JSON, Exchange
from routing.catalog.directory import Directory
from routing.http.callers import Callers
from routing.http.docs import OPENAPI_PATH, openapi
from routing.site import Site

_PRIVATE = [JSON, (b"cache-control", b"no-store"), (b"vary", b"authorization, x-api-key")]


class OwnDocument:
    """Answers `GET /openapi.json` where a key comes with it; the site answers all else."""

    def __init__(self, callers: Callers, directory: Directory, site: Site) -> None:
        self._callers = callers
        self._directory = directory
        self._site = site

    async def respond(self, exchange: Exchange) -> None:
        """Send what the path names. Raises as `Site.respond`, and `InvalidKey`."""
        keyed = exchange.headers.authorization or exchange.headers.api_key
        if keyed and exchange.path == OPENAPI_PATH:
            await self._describe(exchange)
        else:
            await self._site.respond(exchange)

    async def _describe(self, exchange: Exchange) -> None:
        """Send the document; operators, who have no models, get it as everybody does."""
        exchange.require_method("GET")
        models: list[str] = []
        if not self._callers.is_operator(exchange):
            tenant, _ = self._callers.tenant(exchange)
            models = [target.answers_as for target in self._directory.models(tenant)]
            if tenant.default_model in models:  # it stands in the examples
                models.sort(key=lambda name: name != tenant.default_model)
        await exchange.respond(200, _PRIVATE, orjson.dumps(openapi.document(models)))
