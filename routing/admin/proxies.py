"""Users whom a proxy in front of the gateway has signed in: who are they, and is the proxy to be believed?

A proxy such as oauth2-proxy names the user in a header. The header counts only if

1. the connection's other end, as the socket has it, is one of the listed addresses: `x-forwarded-for`, and
   what a server makes of it, is anybody's to write;
2. there is no API key in the request, which would say more;
3. the request comes from the console's own page. The proxy's cookie goes with whatever a browser sends, also
   from pages elsewhere; those cannot set the header that is asked for here, and browsers name their origin.
"""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Callable, Iterable
from urllib.parse import urlsplit

from fleet.current import CurrentFleet
from fleet.types import Fleet, TrustedProxies
from routing.admin.access import Authenticate
from routing.asgi import CONNECTION, Connection, Scope
from routing.catalog.declared import Identity
from routing.catalog.entries import KeyRole
from routing.errors import Forbidden

OPEN_TO_USERS = "/admin/v1/"  # nothing below /v1, where programs send keys
OWN_PAGE = b"x-tenantry-console"  # sent by the console; with CORS no page elsewhere may send it unasked
GROUP = "group:"
log = logging.getLogger("tenantry.admin")

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def authentication(identify: Callable[[str], Identity | None], fleet: CurrentFleet) -> Authenticate:
    """Tell callers by their keys and, without one, by what a proxy of the fleet's says."""

    def of(now: Fleet) -> ProxySignIn | None:
        settings = now.gateway.trusted_proxies
        return None if settings is None else ProxySignIn(settings)

    proxies = fleet.derive(of)

    def authenticate(key: str | None, scope: Scope) -> Identity | None:
        if key is not None:
            return identify(key)
        if proxies.now is None or not scope["path"].startswith(OPEN_TO_USERS):
            return None
        return proxies.now.identify(scope)

    return authenticate


class ProxySignIn:
    """Finds the user of a request that came through a believed proxy."""

    def __init__(self, settings: TrustedProxies) -> None:
        self._networks: list[Network] = [ipaddress.ip_network(text) for text in settings.addresses]
        self._user_header = settings.user_header.encode()
        self._groups_header = settings.groups_header.encode() if settings.groups_header else None
        operator = Identity(KeyRole.OPERATOR, None)
        self._identities = dict.fromkeys(settings.operators, operator)  # by user, and by `group:name`
        for tenant, names in settings.tenants.items():
            self._identities |= dict.fromkeys(names, Identity(KeyRole.ADAPTERS, tenant))
        self.is_suspicious = False  # whether somebody else has sent the header; it is logged once

    def identify(self, scope: Scope) -> Identity | None:
        """Return who is signed in; None: no believed proxy says so. Raises `Forbidden`."""
        users = _values(scope, self._user_header)
        connection: Connection | None = scope.get(CONNECTION)
        if not users or connection is None or not self._is_believed(connection.peer):
            if users:
                self._warn(connection)
            return None
        connection.show_key()  # a proxy is no stranger
        _require_own_page(scope)
        return self._identity_of(users, _values(scope, self._groups_header))

    def _is_believed(self, peer: str | None) -> bool:
        try:
            address = ipaddress.ip_address(peer or "")
        except ValueError:  # a socket of this machine has no address
            return False
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped  # how a socket for both shows a peer of IPv4
        return any(address in network for network in self._networks)

    def _warn(self, connection: Connection | None) -> None:
        if not self.is_suspicious:
            self.is_suspicious = True
            peer = connection.peer if connection is not None else None
            log.warning(
                "%s sent %s, and is none of gateway.trusted_proxies.addresses; the header is ignored, from "
                "others too, without another line like this",
                peer or "a client without an address",
                self._user_header.decode(),
            )

    def _identity_of(self, users: list[str], lists: list[str]) -> Identity:
        """Return the role of a user. Raises `Forbidden`."""
        if len(users) != 1 or "," in users[0]:
            raise Forbidden("The proxy names several users, or none.", code="unknown_user")
        (user,) = users
        found = self._identities.get(user) if not user.startswith(GROUP) else None
        if found is None:
            found = self._identity_of_groups(group.strip() for groups in lists for group in groups.split(","))
        if found is None:
            raise Forbidden(
                f"You are signed in as `{user[:100]}`, who has no rights here; an operator gives them in "
                "gateway.trusted_proxies.",
                code="unknown_user",
            )
        return Identity(found.role, found.tenant, user)

    def _identity_of_groups(self, groups: Iterable[str]) -> Identity | None:
        found = {self._identities[GROUP + group] for group in groups if GROUP + group in self._identities}
        operators = [identity for identity in found if identity.role is KeyRole.OPERATOR]
        if not operators and len(found) > 1:
            raise Forbidden("Your groups are those of several tenants; one is needed.", code="unknown_user")
        return next(iter(operators or found), None)


def _values(scope: Scope, header: bytes | None) -> list[str]:
    """Return what the headers of a name say; what is no text is empty, and so nobody's name."""
    found = (value for name, value in scope["headers"] if name == header)
    return [value.decode(errors="ignore").strip() if value.strip() else "" for value in found]


def _require_own_page(scope: Scope) -> None:
    """Raise `Forbidden` for a request that a browser may have been made to send by a page elsewhere."""
    headers = dict(scope["headers"])
    site, origin = headers.get(b"sec-fetch-site"), headers.get(b"origin")
    if headers.get(OWN_PAGE) != b"1" or site not in (None, b"same-origin"):
        raise Forbidden(
            "Without an API key this is for the console's own page; programs send a key.", code="console_only"
        )
    if site is None and origin is not None:  # a browser says no more to a gateway without TLS
        hosts = {headers.get(b"host"), headers.get(b"x-forwarded-host")}
        if urlsplit(origin.decode("latin-1")).netloc.encode("latin-1") not in hosts:
            raise Forbidden("The request comes from another origin.", code="console_only")
