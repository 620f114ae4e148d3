"""How gateway and engine speak to each other beyond OpenAI's API: private headers and routes.

An engine answers nothing without the token. The gateway never passes a client's headers on, so that none of
these can come from outside.
"""

from __future__ import annotations

from enum import StrEnum


class Kind(StrEnum):
    """Which OpenAI endpoint is called; the value is its path, at the gateway and at an engine."""

    CHAT = "/v1/chat/completions"
    COMPLETION = "/v1/completions"
    EMBEDDING = "/v1/embeddings"
    RESPONSE = "/v1/responses"


TOKEN_HEADER = "x-tenantry-token"  # noqa: S105 - the header's name
ADAPTER_HEADER = "x-tenantry-adapter"  # request: id of the adapter to have loaded before the request is run
FAULT_HEADER = "x-tenantry-fault"  # response: the engine, not the request, is at fault; one of FAULT_*

FAULT_ENGINE = "engine"  # the engine is loading, draining or dead: another replica may answer
FAULT_DEATH = "death"  # the engine died with the request in it: it may be why
FAULT_ADAPTER = "adapter"  # the adapter cannot be loaded: another replica could not either

READY_PATH = "/internal/ready"  # EngineHealth; 200 once the engine has passed its self-test
METRICS_PATH = "/internal/metrics"  # vLLM's metrics of this replica alone
ADAPTERS_PATH = "/internal/adapters"  # GET: Residency. PUT: DesiredAdapters, answered with Residency
TRIAL_PATH = "/internal/adapters/trial"  # POST {"id": ...} of a desired adapter: TrialReport

# vLLM's routes that are served; everything else of its app (sleep, collective_rpc, LoRA by path) is not.
ENGINE_ROUTES = frozenset(Kind)
