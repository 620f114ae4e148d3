"""Who calls? A key's tenant or operator; a request without a valid key is refused."""

from __future__ import annotations

import time

from fleet.types import Tenant
from routing.asgi import Connection, Exchange
from routing.catalog.declared import Identity
from routing.catalog.directory import Directory
from routing.catalog.entries import KeyRole
from routing.errors import AccountSuspended, Forbidden, InvalidKey


class Callers:
    """Finds the caller of a request by its key."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory

    @property
    def local_only(self) -> bool:
        """Whether there are keys that count on this machine alone."""
        return self._directory.local_only

    def identify(self, key: str) -> Identity | None:
        """Return whose key it is now; None: nobody's."""
        return self._directory.identify(key, time.time())

    def tenant(self, exchange: Exchange) -> tuple[Tenant, Identity]:
        """Return the tenant whose models may be called, and the key's identity.

        Raises `InvalidKey`, `AccountSuspended`.
        """
        key = exchange.key()
        found = self._directory.authenticate(key, time.time()) if key else None
        if found is None:
            raise _wrong_key(key)
        if found[0].suspended:
            raise AccountSuspended
        return found

    def account(self, exchange: Exchange) -> str | None:
        """Return the account whose usage the caller may see; None: an operator's. Raises as `tenant` does."""
        identity = self.identity(exchange)
        tenant = None if identity.tenant is None else self._directory.tenant(identity.tenant)
        if tenant is None:
            return None
        if tenant.suspended and identity.role is KeyRole.INFERENCE:
            raise AccountSuspended
        return tenant.account

    def identity(self, exchange: Exchange) -> Identity:
        """Return who calls, tenant or operator. Raises `InvalidKey`."""
        identity = self._known(exchange)
        if identity is None:
            raise _wrong_key(exchange.key())
        return identity

    def is_operator(self, exchange: Exchange) -> bool:
        """Whether an operator calls."""
        identity = self._known(exchange)
        return identity is not None and identity.role is KeyRole.OPERATOR

    def refuse_local_only(self, exchange: Exchange) -> None:
        """Raise `Forbidden` where a request from elsewhere has a key that everybody knows."""
        key = exchange.key()
        if key is not None and self._directory.is_local_only(key):
            raise Forbidden(
                "This is a demo key: it works from this machine only, over localhost. Where TENANTRY_DEMO=1 "
                "is set for the gateway, it works from everywhere.",
                code="demo_key",
            )

    def show_key(self, exchange: Exchange, connection: Connection) -> None:
        """Tell the server where a connection's first request comes with a valid key, of whatever role."""
        if self._known(exchange) is not None:
            connection.show_key()

    def _known(self, exchange: Exchange) -> Identity | None:
        key = exchange.key()
        return self.identify(key) if key else None


def _wrong_key(key: str | None) -> InvalidKey:
    how = "Send your API key as `Authorization: Bearer <key>`, or as `x-api-key: <key>`."
    return InvalidKey("The API key is not valid." if key else how)
