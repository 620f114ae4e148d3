"""The caller of the admin API: its role, and the adapters that it may name. Every route depends on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Annotated, Any, Protocol

from fastapi import Depends, Query, Request
from fastapi import Path as InPath
from fastapi.dependencies.utils import get_flat_dependant
from fastapi.routing import APIRoute

from fleet.fields import Name
from routing.admin.bodies import TenantQuery
from routing.admin.live_feed import LiveFeed
from routing.admin.uploads import Uploads
from routing.asgi import Scope
from routing.catalog.declared import Identity
from routing.catalog.entries import AdapterKey, KeyRole
from routing.errors import Forbidden, InvalidRequest, NotFound
from routing.lifecycle.ports import Management
from routing.usage.budget import Budgets
from routing.usage.query import UsageLine, UsageQuery
from routing.usage.query_limiter import QueryLimiter

_SHOWN_CHARS = 100  # of a name that the client chose
_NOTHING = (b"", b"{}", b"null")  # some clients send it with every order
IDENTITY = "tenantry.identity"  # where the gate leaves it in the ASGI scope
# The caller by the request's key; where it has none, by whatever else the scope says. None: nobody.
Authenticate = Callable[[str | None, Scope], Identity | None]


class UsageBook(Protocol):
    """The usage ledger, as it is read here."""

    budgets: Budgets
    key_budgets: Budgets

    async def sums(self, query: UsageQuery) -> list[UsageLine]:
        """Answer a query. Raises `StateUnavailable`."""


class BatchBook(Protocol):
    """Tenants' batches, as they are read here."""

    async def progress(self, account: str | None, limit: int) -> list[dict[str, Any]]:
        """Describe a tenant's batches, or all, as clients see them, each with its `tenant`.

        Raises `StateUnavailable`.
        """


@dataclass(frozen=True, slots=True)
class Books:
    """What is read of tenants' usage and batches."""

    ledger: UsageBook
    batches: BatchBook


@dataclass(frozen=True, slots=True)
class Services:
    """The parts of the gateway that the routes call."""

    management: Management
    tenants: Callable[[], Collection[str]]
    uploads: Uploads
    model_uploads: Uploads
    load_timeout_s: float
    live: LiveFeed
    ledger: UsageBook
    batches: BatchBook
    registering: set[AdapterKey] = field(default_factory=set)  # adapters that are being made now
    usage_queries: QueryLimiter = field(default_factory=QueryLimiter)  # of tenants


@dataclass(frozen=True, slots=True)
class Caller:
    """The owner of the request's key, and the names that it may use."""

    identity: Identity
    services: Services

    @property
    def is_operator(self) -> bool:
        """Whether everything is open to the caller."""
        return self.identity.role is KeyRole.OPERATOR

    def owner(self, named: str | None) -> str | None:
        """Return whose adapters are meant; None: those of fleet.yaml.

        A tenant that names another one hears the same `NotFound` whether that one exists or not.
        """
        if self.is_operator:
            return named
        if named not in (None, self.identity.tenant):
            raise _no_tenant(str(named))
        return self.identity.tenant

    def tenant_meant(self, named: str | None) -> str | None:
        """Return whose things are shown; None: everybody's, to an operator. Raises `NotFound`."""
        return self.known_tenant(named) if named is not None else self.identity.tenant

    def known_tenant(self, named: str) -> str:
        """Return the tenant. Raises `NotFound` where the fleet has none of that name for the caller."""
        owner = self.owner(named)
        if owner is None or owner not in self.services.tenants():
            raise _no_tenant(named)
        return owner

    def account_meant(self, named: str | None) -> tuple[str | None, bool]:
        """Return whose usage is shown, and whether that of others who had the name is shown too.

        An operator may name a tenant that was removed. Raises `NotFound`.
        """
        tenancy = self.services.management.tenancy
        if not self.is_operator:
            return tenancy.account(self.known_tenant(named or self.identity.tenant or "")), False
        if named is not None and named not in self.services.tenants():
            tenancy.show(named)
        return named, named is not None

    def key(self, name: str, tenant: str | None) -> AdapterKey:
        """Return whose adapter of that name is meant. Raises `NotFound`."""
        return AdapterKey(self.owner(tenant), name)

    def new_key(self, name: str, tenant: str | None) -> AdapterKey:
        """Return under which key a version may be registered. Raises `InvalidRequest` or `NotFound`."""
        owner = self.owner(tenant)
        if owner is None:
            raise InvalidRequest(
                "Name the tenant whose adapter it is; adapters of no tenant are declared in fleet.yaml.",
                param="tenant",
                code="missing_required_parameter",
            )
        return AdapterKey(self.known_tenant(owner), name)


def _no_tenant(named: str) -> NotFound:
    return NotFound(f"There is no tenant `{named}`.", param="tenant", code="tenant_not_found")


async def caller(request: Request) -> Caller:
    """Return the caller that the gate has identified."""
    return Caller(request.scope[IDENTITY], request.app.state.services)


async def known_parameters(request: Request) -> None:
    """Refuse a parameter that comes twice, and an order with one, or with a body, where its route knows none.

    Each may be meant to change what is done. Routes that know some refuse others themselves. Raises
    `InvalidRequest`.
    """
    route = request.scope.get("route")
    if not isinstance(route, APIRoute) or not route.path.startswith("/admin/"):
        return
    for name, times in Counter(name for name, _ in request.query_params.multi_items()).items():
        if times > 1:
            shown = name[:_SHOWN_CHARS]
            raise InvalidRequest(f"`{shown}` was given twice.", param=shown, code="invalid_value")
    if request.method == "GET":
        return
    known = get_flat_dependant(route.dependant)
    takes_body = known.body_params or "requestBody" in (route.openapi_extra or {})
    if not takes_body and (await request.body()).strip() not in _NOTHING:
        raise InvalidRequest(
            "This route takes no body; send none. What it takes stands in its URL.", code="unknown_parameter"
        )
    if request.query_params and not known.query_params:
        shown = next(iter(request.query_params))[:_SHOWN_CHARS]
        raise InvalidRequest(
            f"`{shown}`: this route takes no parameters; leave it out.", param=shown, code="unknown_parameter"
        )


CallerHere = Annotated[Caller, Depends(caller)]


async def operator(caller: CallerHere) -> Caller:
    """Return the caller if it is an operator. Raises `Forbidden`."""
    if not caller.is_operator:
        raise Forbidden("This needs an operator's key.")
    return caller


AdapterName = Annotated[Name, InPath(description="Name of the adapter.", examples=["support"])]
VersionNumber = Annotated[int, InPath(ge=1, le=2**31 - 1, description="Number of the version.", examples=[2])]


async def adapter_key(
    name: AdapterName, query: Annotated[TenantQuery, Query()], caller: CallerHere
) -> AdapterKey:
    """Return which adapter the path and `?tenant=` name. Raises `NotFound`."""
    return caller.key(name, query.tenant)


Operator = Annotated[Caller, Depends(operator)]
Adapter = Annotated[AdapterKey, Depends(adapter_key)]
