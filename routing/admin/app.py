"""The admin API's application: its routes, the parts that they call, its errors and its document.

The gateway hands over every request below `ADMIN_PREFIX`, and those to `ADMIN_ROUTES`; `x-request-id` is the
gateway's, on these answers as on all others.
"""

from __future__ import annotations

from fastapi import Depends, FastAPI, Security
from fastapi.security import HTTPBearer

from routing.admin import (
    adapters,
    aliases,
    batches,
    events,
    export,
    fleet,
    keys,
    live,
    model_versions,
    models,
    plan,
    pools,
    replicas,
    scheduler,
    tenants,
    usage,
    vllm_compatible,
    whoami,
)
from routing.admin.access import Authenticate, Books, Services, known_parameters
from routing.admin.errors import COMMON, install_handlers
from routing.admin.gate import Gate
from routing.admin.live_feed import LiveFeed
from routing.admin.uploads import Uploads
from routing.lifecycle.ports import Management

ADMIN_PREFIX = "/admin/v1/"
LOAD_TIMEOUT_S = 300.0  # `POST /v1/load_lora_adapter` waits so long for the adapter to be ready
ADMIN_ROUTES = frozenset({vllm_compatible.LOAD_PATH, vllm_compatible.UNLOAD_PATH})


def is_admin_path(path: str) -> bool:
    """Whether a path is the admin API's."""
    return path.removesuffix("/") in ADMIN_ROUTES or path.startswith(ADMIN_PREFIX)


_ROUTES = (
    *(
        adapters,
        aliases,
        models,
        model_versions,
        replicas,
        pools,
        plan,
        scheduler,
        live,
        tenants,
        fleet,
        export,
        usage,
        batches,
        keys,
    ),
    events,
    whoami,
    vllm_compatible,
)
_DESCRIPTION = """
Replace the fleet by another fleet file. Admit tenants, change, suspend and remove them, and give them
aliases. Register adapters, roll out new versions, take them back, see what is resident where, and make API
keys. See how every model fares, who used how much, what the scheduler does and why; drain
replicas, and restart their engines; have whole models wake and sleep, add them and retire them; keep what was
planned.

Send an admin key as `Authorization: Bearer <key>`. A key of role `adapters` manages its own tenant's
adapters and aliases, and reads its tenant's models, caps, usage, keys and events; for it nothing else
exists. A key of role `operator` manages everything and names the tenant with `?tenant=...`; without that, an
adapter declared in fleet.yaml is meant. Keys that call models open nothing here. `/admin/v1/whoami` says
whose key it is.

Errors have OpenAI's shape, `{"error": {"message", "type", "param", "code"}}`.
"""


def admin_app(
    management: Management,
    authenticate: Authenticate,
    *,
    uploads: Uploads,
    model_uploads: Uploads,
    live_feed: LiveFeed,
    books: Books,
    read_timeout_s: float = 30.0,
) -> FastAPI:
    """Build the admin API. A client has `read_timeout_s` for its JSON."""
    app = FastAPI(
        title="Tenantry admin API",
        version="1",
        description=_DESCRIPTION,
        openapi_url=f"{ADMIN_PREFIX}openapi.json",
        docs_url=None,  # both pages would load scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
        strict_content_type=False,  # the gate has looked; without a content type it is JSON
        responses=COMMON,
        dependencies=[
            Security(HTTPBearer(auto_error=False, description="An admin key.")),
            Depends(known_parameters),
        ],
    )

    def known_tenants() -> list[str]:
        return [tenant.name for tenant in management.tenants()]

    app.state.services = Services(
        management,
        known_tenants,
        uploads,
        model_uploads,
        LOAD_TIMEOUT_S,
        live_feed,
        books.ledger,
        books.batches,
    )
    app.add_middleware(
        Gate,
        authenticate=authenticate,
        is_suspended=lambda tenant: app.state.services.management.tenancy.is_suspended(tenant),
        read_timeout_s=read_timeout_s,
    )
    install_handlers(app)
    for module in _ROUTES:
        app.include_router(module.router)
    return app
