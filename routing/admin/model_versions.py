"""The routes for whole models that the gateway fetches: added, shown, taken back, retired. For operators."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field

from adapters.states import VersionState
from fleet.fields import Name, Source
from routing.admin.access import Caller, Operator, VersionNumber
from routing.admin.answers import Progress, shown_source
from routing.admin.bodies import Body, PromoteBody, QueryPart, Sha256
from routing.admin.errors import json_body, refusals
from routing.admin.models import ModelAtHostAnswer, ModelName, hosts_of
from routing.admin.uploads import body_or_archive, is_upload, require_few_waiting
from routing.catalog.entries import without_folders
from routing.catalog.models import ModelEntry, ModelVersion
from routing.errors import Conflict, InvalidRequest
from routing.lifecycle.ports import ModelPlace, NewVersion

router = APIRouter(prefix="/admin/v1/models", tags=["models"])

MAX_WAITING_UPLOADS = 4  # whole models are large
_RETRY_AFTER_S = 30.0
PoolName = Annotated[
    Name | None,
    Field(
        description="Pool of strategy model-mesh or swap; may be left out where there is one.",
        examples=["mesh"],
    ),
]
Like = Annotated[
    Name | None,
    Field(
        description="A base model whose settings it gets; those that are given go before.",
        examples=["llama-3-8b"],
    ),
]
ModelSource = Annotated[
    Source,
    Field(
        description="Where its files are: hf://, s3://, gs://, an https:// archive, or a folder of the "
        "gateway's machine.",
        examples=["hf://example/support-8b@main"],
    ),
]


class NewModelVersionBody(Body):
    """A version whose files the gateway fetches."""

    source: ModelSource
    sha256: Sha256 | None = None


class NewModelBody(NewModelVersionBody):
    """A model and its first version."""

    name: Annotated[
        Name, Field(description="Name of the base model that it becomes.", examples=["support-8b"])
    ]
    pool: PoolName = None
    like: Like = None
    settings: dict[str, Any] = Field(
        {},
        description="Of its engines, as an entry of `base_models` in a fleet file has them.",
        examples=[{"max_model_len": 8192}],
    )


class ModelUploadQuery(QueryPart):
    """What goes with an upload; pool and settings only with a model's first version."""

    pool: PoolName = None
    like: Like = None
    sha256: Sha256 | None = None
    settings: str | None = Field(None, max_length=8192, description="As in a JSON body, as JSON.")

    @property
    def place(self) -> ModelPlace:
        """Where a new model is to serve. Raises `InvalidRequest`."""
        try:
            values = json.loads(self.settings or "{}")
        except (ValueError, RecursionError):
            values = None
        if not isinstance(values, dict):
            raise InvalidRequest("`settings` is no JSON object.", param="settings", code="invalid_value")
        return ModelPlace(self.pool, self.like, values)


class ModelVersionAnswer(BaseModel):
    """One version of a model."""

    number: int = Field(examples=[2])
    state: VersionState = Field(
        description="`registered`, `fetching`, `verifying`, `ready` (its files are here), `quarantined` "
        "(refused; verify it again once the cause is gone) or `retired`."
    )
    reason: str = Field(description="Why it is quarantined, or what the last attempt met.")
    live: bool = Field(description="Engines are started with it.")
    proven: bool = Field(description="An engine has come awake with it.")
    source: str = Field(description="A URL, or `upload`, or `folder`.", examples=["hf://example/support-8b"])
    sha256: str | None = Field(description="What was promised when it was added.")
    digest: str | None = Field(description="sha256 over its files, once they are here.")
    size_bytes: int
    created_at: int = Field(description="Unix time.")
    progress: Progress | None = Field(description="How far the fetch is, while there is one.")


class ModelDetail(BaseModel):
    """A model that the gateway fetches."""

    name: str = Field(examples=["support-8b"])
    pool: str | None = Field(description="null: it is declared in fleet.yaml.", examples=["mesh"])
    settings: dict[str, Any] = Field(description="As given; empty for one that is declared.")
    previous: int | None = Field(description="The version to which a rollback goes.")
    versions: list[ModelVersionAnswer]
    hosts: list[ModelAtHostAnswer] = Field(
        description="How it is at each host; empty until a version is ready."
    )


_VERSION_BODY = body_or_archive(
    NewModelVersionBody.model_json_schema(), {"source": "hf://example/support-8b"}
)


@router.post("", status_code=202, responses=refusals(404, 408, 409, 413, 415, 503))
async def add_model(body: NewModelBody, operator: Operator) -> ModelDetail:
    """Add a whole model to a pool whose models take turns; the gateway fetches and checks it. Operators only.

    Once its files are here it is a base model of the pool, asleep at each host; a request wakes it. Give it
    to tenants with `PATCH /admin/v1/tenants/{name}`. An upload goes to its versions.
    """
    whole = operator.services.management.whole
    if any(entry.name == body.name for entry in whole.entries()):
        raise Conflict(f"There is a model `{body.name}` already; post to its versions.", code="model_exists")
    place = ModelPlace(body.pool, body.like, body.settings)
    new = NewVersion(source=body.source, sha256=body.sha256, trusted=True)
    return _detail(operator, await whole.add(body.name, place, new))


@router.get("/{name}", responses=refusals(404))
async def show_model(name: ModelName, operator: Operator) -> ModelDetail:
    """Show a model that the gateway fetches: its versions, and how it is at each host. Operators only."""
    return _detail(operator, operator.services.management.whole.entry(name))


@router.delete("/{name}", status_code=202, responses=refusals(404, 409, 503))
async def retire_model(name: ModelName, operator: Operator) -> ModelDetail:
    """Retire a model that was added at run time. Operators only.

    409 `model_in_use` while tenants may call it. What runs on it ends there; then its engines end, and its
    files are deleted.
    """
    whole = operator.services.management.whole
    before = _detail(operator, whole.entry(name))
    await whole.retire(name, None)
    return before


@router.post(
    "/{name}/versions",
    status_code=202,
    responses=refusals(404, 408, 409, 413, 415, 429, 503),
    openapi_extra={"requestBody": _VERSION_BODY},
)
async def add_version(
    name: ModelName, query: Annotated[ModelUploadQuery, Query()], operator: Operator, request: Request
) -> ModelDetail:
    """Add a version, from a source (JSON) or uploaded (tar, tar.gz, zip); with an upload also a new model.

    Operators only. It becomes live once its files are here; where the model is awake, it comes again with
    them. If no engine starts with it, the version before it serves again.
    """
    whole = operator.services.management.whole
    if not is_upload(request.url.path, request.headers.get("content-type")):
        if query.model_fields_set:
            raise InvalidRequest("With a JSON body, everything stands in the body.", code="invalid_query")
        body = await json_body(request, NewModelVersionBody)
        whole.entry(name)
        new = NewVersion(source=body.source, sha256=body.sha256, trusted=True)
        return _detail(operator, await whole.add(name, ModelPlace(), new))
    place = query.place
    require_few_waiting(
        (version for entry in whole.entries() for version in entry.versions),
        coming=operator.services.model_uploads.running(None),
        most=MAX_WAITING_UPLOADS,
        whose="models",
        retry_after_s=_RETRY_AFTER_S,
    )
    async with operator.services.model_uploads.received(request, None) as path:
        new = NewVersion(upload=path, sha256=query.sha256, trusted=True)
        return _detail(operator, await whole.add(name, place, new))


@router.post("/{name}/versions/{number}/verify", status_code=202, responses=refusals(404, 409, 503))
async def verify_model_version(name: ModelName, number: VersionNumber, operator: Operator) -> ModelDetail:
    """Have a quarantined version fetched, checked and tried again. Operators only."""
    return _detail(operator, await operator.services.management.whole.retry(name, number))


@router.delete("/{name}/versions/{number}", responses=refusals(404, 409, 503))
async def retire_model_version(name: ModelName, number: VersionNumber, operator: Operator) -> ModelDetail:
    """Retire a version that does not serve; its files are deleted. Operators only."""
    whole = operator.services.management.whole
    await whole.retire(name, number)
    return _detail(operator, whole.entry(name))


@router.post("/{name}/promote", responses=refusals(404, 408, 409, 413, 415, 503))
async def promote_model(name: ModelName, operator: Operator, body: PromoteBody) -> ModelDetail:
    """Have engines start with a version from now on. Operators only."""
    if body.version is None:
        raise InvalidRequest("Name the version.", param="version", code="missing_required_parameter")
    return _detail(operator, await operator.services.management.whole.promote(name, body.version))


@router.post("/{name}/rollback", responses=refusals(404, 409, 503))
async def roll_back_model(name: ModelName, operator: Operator) -> ModelDetail:
    """Go back to the version before the live one. Operators only."""
    return _detail(operator, await operator.services.management.whole.rollback(name))


def _detail(caller: Caller, entry: ModelEntry) -> ModelDetail:
    progress = caller.services.management.whole.progress
    settings: Mapping[str, Any] = entry.values
    return ModelDetail(
        name=entry.name,
        pool=entry.pool,
        settings=dict(settings),
        previous=entry.previous,
        versions=[_version(entry, v, progress(entry.name, v.number)) for v in entry.versions],
        hosts=hosts_of(caller, entry.name),
    )


def _version(entry: ModelEntry, version: ModelVersion, progress: Any) -> ModelVersionAnswer:
    return ModelVersionAnswer(
        number=version.number,
        state=version.state,
        reason=without_folders(version.reason),
        live=version.number == entry.live,
        proven=version.proven,
        source=shown_source(version.source),
        sha256=version.sha256,
        digest=version.digest,
        size_bytes=version.size_bytes,
        created_at=int(version.created_s),
        progress=progress and Progress(done_bytes=progress.done_bytes, total_bytes=progress.total_bytes),
    )
