"""Paths and headers between gateway and engine: OpenAI's endpoints, and private ones.

An engine answers nothing without the token. The gateway never passes a client's headers on, so no client can
set these.
"""

from __future__ import annotations

from enum import StrEnum


class Kind(StrEnum):
    """An endpoint of vLLM's that is served; the value is its path, at the gateway and at an engine."""

    CHAT = "/v1/chat/completions"
    CHAT_BATCH = "/v1/chat/completions/batch"
    COMPLETION = "/v1/completions"
    RESPONSE = "/v1/responses"
    EMBEDDING = "/v1/embeddings"
    POOLING = "/pooling"
    SCORE = "/score"
    RERANK = "/rerank"
    TOKENIZE = "/tokenize"
    DETOKENIZE = "/detokenize"
    MESSAGES = "/v1/messages"  # Anthropic's
    COUNT_TOKENS = "/v1/messages/count_tokens"
    TRANSCRIPTION = "/v1/audio/transcriptions"
    TRANSLATION = "/v1/audio/translations"


FORMS = frozenset({Kind.TRANSCRIPTION, Kind.TRANSLATION})  # whose bodies are forms with a recording


class EngineOrder(StrEnum):
    """What the gateway tells an engine's host to do with its engine. Each returns at once."""

    RESTART = "restart"  # end it and start another
    STOP = "stop"  # end it, so that its memory is free, until it is told to start
    LEAVE = "leave"  # of a shared host: stop it, and forget its model, which is a base model here no more
    PREPARE = "prepare"  # its turn is next: read its weights ahead
    START = "start"  # with `instead_of`, the model that goes for it: the cheapest way from that one to this


TOKEN_HEADER = "x-tenantry-token"  # noqa: S105 - the header's name
MODEL_HEADER = "x-tenantry-model"  # request: the base model that is meant, where a host has several
ADAPTER_HEADER = "x-tenantry-adapter"  # request: id of the adapter that the request needs
# Request: what vLLM's own form of it cannot say; the priority of `Kind.MESSAGES` and both of `FORMS`.
PRIORITY_HEADER = "x-tenantry-priority"
SALT_HEADER = "x-tenantry-salt"
USAGE_HEADER = "x-tenantry-usage"  # response: the tokens of a whole answer to one of `FORMS`, as JSON
FAULT_HEADER = "x-tenantry-fault"  # response: the engine, not the request, is at fault; one of FAULT_*

FAULT_ENGINE = "engine"  # the engine is loading, draining or dead: another replica may answer
FAULT_DEATH = "death"  # the engine died while it ran the request, perhaps because of it
FAULT_ADAPTER = "adapter"  # the adapter cannot be loaded, on any replica

READY_PATH = "/internal/ready"  # EngineHealth; 200 once the engine has passed its self-test
METRICS_PATH = "/internal/metrics"  # vLLM's metrics of this replica alone
ADAPTERS_PATH = "/internal/adapters"  # GET: Residency. PUT: DesiredAdapters, answered with Residency
# POST {"order": ..., "instead_of": ..., "settings": ...}: EngineHealth; 409: why not. The settings are those
# of a base model in a fleet file, with which the next engine starts; without them it has the last one's. At a
# shared host {"source": ..., "revision": ...} go with a start and say where its files are: models come, and
# get other versions. Without them they are where the host's own fleet file says. {"files_at": URL} is the
# gateway's own address, as itself knows it: it gives the files to hosts that have not that folder.
ENGINE_PATH = "/internal/engine"
TRIAL_PATH = "/internal/adapters/trial"  # POST {"id": ...} of a desired adapter: TrialReport
FILES_PATH = "/internal/adapters/"  # at the gateway, then DIGEST/FILE: GET, with a range or whole
MODEL_FILES_PATH = "/internal/models/"  # as FILES_PATH; DIGEST alone: {FILE: bytes}
CONTROL_PATHS = frozenset({ADAPTERS_PATH, TRIAL_PATH, ENGINE_PATH})

# vLLM's routes that are served; everything else of its app (sleep, collective_rpc, LoRA by path) is not.
ENGINE_ROUTES = frozenset(Kind)
