"""Which models does a caller have? OpenAI's list of them, and each one by name."""

from __future__ import annotations

import time

import orjson

from fleet.current import CurrentFleet
from fleet.types import Tenant
from routing.asgi import JSON, Exchange
from routing.catalog.directory import Directory
from routing.errors import InvalidRequest, ModelNotFound, RequestError
from routing.http.callers import Callers
from routing.openai import answers
from routing.openai.bodies import Payload
from routing.scheduling.dispatcher import Dispatcher
from routing.scheduling.state import longest_prompt
from routing.types import Target

MODELS_PATH = "/v1/models"


class Models:
    """Answers `GET /v1/models` and what is below it."""

    def __init__(
        self, fleet: CurrentFleet, directory: Directory, callers: Callers, dispatcher: Dispatcher
    ) -> None:
        self._fleet = fleet
        self._dispatcher = dispatcher
        self._directory = directory
        self._callers = callers
        self._created = int(time.time())  # OpenAI wants a model's creation time

    async def answer(self, exchange: Exchange, name: str) -> None:
        """Send the caller's models, or the one that is named. Raises `ModelNotFound`, `InvalidKey`."""
        exchange.require_method("GET")
        tenant, _ = self._callers.tenant(exchange)
        payload = self._describe(tenant, name)
        await exchange.respond(200, [JSON], orjson.dumps(payload))

    def _describe(self, tenant: Tenant, name: str) -> Payload:
        if not name:
            return {"object": "list", "data": [self._card(t) for t in self._directory.models(tenant)]}
        target = self._directory.find(tenant, name)
        if target is None:
            raise unknown_model(name)
        return self._card(target)

    def _card(self, target: Target) -> Payload:
        declared = self._fleet.now.base_models[target.base_model].max_model_len
        length = declared or longest_prompt(self._dispatcher.group_of(target).engines)[0]
        return answers.model_card(target, self._created, length or None)


def unknown_model(name: str | None) -> RequestError:
    """Say that the caller has no such model; the same whether somebody else has it or nobody."""
    if name is None:
        return InvalidRequest(
            "Name a model: this API key has no default model.",
            param="model",
            code="missing_required_parameter",
        )
    return ModelNotFound(f"The model `{name[:100]}` does not exist.", param="model")
