"""An API server with EndpointSlices: ours, which lists, watches and fails as told, or that of `KUBECONFIG`.

What a test needs of both: `cluster`, `put` and `remove` of a slice. The real one gets a namespace, a service
account and the Role that the manifests give a gateway; the namespace is deleted at the end.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ipaddress
import json
import secrets
import ssl
from collections import deque
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

import aiohttp
import yaml
from aiohttp import web
from aiohttp.test_utils import TestServer
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from routing.replicas.endpoint_slices import SERVICE_LABEL
from routing.replicas.kubernetes import Cluster

Object = dict[str, Any]
GROUP = "/apis/discovery.k8s.io/v1"
TOO_OLD = {"kind": "Status", "status": "Failure", "reason": "Expired", "code": 410, "message": "too old"}


def endpoint(hostname: str | None, address: str, **conditions: bool) -> Object:
    """Say one endpoint, ready and not terminating unless told otherwise."""
    made: Object = {"addresses": [address], "conditions": {"ready": True, **conditions}}
    return made if hostname is None else {**made, "hostname": hostname}


def endpoint_slice(
    name: str, service: str, *endpoints: Object, port: int | None = 3410, family: str = "IPv4"
) -> Object:
    """Say one slice of a Service."""
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": name, "labels": {SERVICE_LABEL: service}},
        "addressType": family,
        "endpoints": list(endpoints),
        "ports": [] if port is None else [{"name": "engine", "port": port, "protocol": "TCP"}],
    }


class Api(Protocol):
    """What tests need of an API server."""

    cluster: Cluster

    async def put(self, one: Object) -> None:
        """Make a slice, or put another in its place."""

    async def remove(self, name: str) -> None:
        """Delete a slice."""


class FakeApi:
    """Ours: one namespace, with every fault of a real one at a test's word."""

    def __init__(self, folder: Path) -> None:
        """The service account's files are put into `folder`."""
        self.folder = folder
        self.token = "first-token"
        (folder / "token").write_text(self.token + "\n")
        self.slices: dict[str, Object] = {}
        self.history: list[
            tuple[int, str, Object, Object | None]
        ] = []  # version, type, object, the one before
        self.version = 100
        self.oldest = 100  # what is older was compacted away
        self.seen: list[tuple[str, dict[str, str]]] = []  # (list | watch, query)
        self.statuses: deque[int] = deque()  # the next answers have these
        self.raw: deque[bytes] = deque()  # the next watches say this first
        self.bodies: deque[bytes] = deque()  # the next lists are these
        self.deaf = False  # watches begun now are never heard of
        self.told = 0  # version of the last event that a watch was sent
        self.watches: set[web.StreamResponse] = set()
        self._changed = asyncio.Event()
        self._ends = asyncio.Event()  # of all watches that run
        self.cluster = Cluster("", "tenantry", folder / "token", None)

    async def put(self, one: Object) -> None:
        """Make a slice, or put another in its place."""
        name = one["metadata"]["name"]
        before = self.slices.get(name)
        self._record("ADDED" if before is None else "MODIFIED", one, before)
        self.slices[name] = self.history[-1][2]

    async def remove(self, name: str) -> None:
        """Delete a slice."""
        one = self.slices.pop(name)
        self._record("DELETED", one, one)

    def compact(self) -> None:
        """Forget what has been."""
        self.version += 1
        self.oldest = self.version

    def rotate(self) -> None:
        """Take another token than before, and give it to the service account."""
        self.token = f"token-{secrets.token_hex(4)}"
        (self.folder / "token").write_text(self.token + "\n")

    def end_watches(self) -> None:
        """End all watches as their time being over does."""
        self._ends.set()
        self._ends = asyncio.Event()

    def cut_watches(self) -> None:
        """Close the connections of all watches in the middle of a chunk."""
        for answer in list(self.watches):
            request = answer._req
            assert request is not None and request.transport is not None
            request.transport.close()

    def bookmark(self) -> None:
        """Tell watches the version, as about every minute."""
        self.version += 1
        bookmark = {"metadata": {"resourceVersion": str(self.version)}}
        self.history.append((self.version, "BOOKMARK", bookmark, None))
        self._wake()

    def calls(self, kind: str) -> int:
        """How often it was asked for a list, or a watch."""
        return sum(one == kind for one, _ in self.seen)

    def _record(self, kind: str, one: Object, before: Object | None) -> None:
        self.version += 1
        made = {**one, "metadata": {**one["metadata"], "resourceVersion": str(self.version)}}
        self.history.append((self.version, kind, made, before))
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer a list or a watch."""
        query = dict(request.query)
        watches = query.get("watch") == "1"
        self.seen.append(("watch" if watches else "list", query))
        if request.headers.get("authorization") != f"Bearer {self.token}":
            return web.json_response({"kind": "Status", "code": 401}, status=401)
        if self.statuses:
            status = self.statuses.popleft()
            return web.json_response({**TOO_OLD, "code": status}, status=status)
        if watches:
            return await self._watch(request, int(query["resourceVersion"]))
        if self.bodies:
            return web.Response(body=self.bodies.popleft(), content_type="application/json")
        items = [one for one in self.slices.values() if _chosen(one, query["labelSelector"])]
        return web.json_response({"metadata": {"resourceVersion": str(self.version)}, "items": items or None})

    async def _watch(self, request: web.Request, version: int) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"content-type": "application/json"})
        ends, selector = self._ends, request.query["labelSelector"]
        await answer.prepare(request)
        self.watches.add(answer)
        try:
            if version < self.oldest:
                await answer.write(_line("ERROR", TOO_OLD))
                return answer
            if self.raw:
                await answer.write(self.raw.popleft())
            while self.deaf and not ends.is_set():
                await ends.wait()
            while not ends.is_set():
                changed = self._changed
                for at, kind, one, before in [entry for entry in self.history if entry[0] > version]:
                    version = at
                    if kind == "BOOKMARK" or _chosen(one, selector):
                        await answer.write(_line(kind, one))
                    elif before is not None and _chosen(before, selector):  # it was, and no longer is
                        await answer.write(_line("DELETED", one))
                    self.told = at
                waits = [asyncio.ensure_future(event.wait()) for event in (changed, ends)]
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
                for wait in waits:
                    wait.cancel()
            return answer
        finally:
            self.watches.discard(answer)

    @contextlib.asynccontextmanager
    async def serving(self, tls: ssl.SSLContext | None = None) -> AsyncIterator[FakeApi]:
        """Serve on a port of this machine, where `tls` is given with what `certificate` has made."""
        app = web.Application()
        app.router.add_get(f"{GROUP}/namespaces/tenantry/endpointslices", self.answer)
        async with contextlib.AsyncExitStack() as stack:
            server = TestServer(app, scheme="https" if tls else "http")
            await server.start_server(ssl=tls, shutdown_timeout=0.1)
            stack.push_async_callback(server.close)
            origin = str(server.make_url("")).rstrip("/")
            ca_file = self.folder / "ca.crt" if tls else None
            self.cluster = Cluster(origin, "tenantry", self.folder / "token", ca_file)
            try:
                yield self
            finally:
                self.end_watches()


def certificate(folder: Path) -> ssl.SSLContext:
    """Make a certificate of this machine, which vouches for itself, as `ca.crt` of a service account."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "API server")])
    here = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(here, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "ca.crt").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "server.key").write_bytes(private)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "ca.crt", folder / "server.key")
    return context


def _line(kind: str, one: Object) -> bytes:
    return json.dumps({"type": kind, "object": one}).encode() + b"\n"


def _chosen(one: Object, selector: str) -> bool:
    """Whether a slice has one of the values of `label in (a,b)`."""
    label, _, values = selector.partition(" in ")
    return one["metadata"].get("labels", {}).get(label) in values.strip("()").split(",")


class RealApi:
    """That of `KUBECONFIG`, whose user may make namespaces, Roles and tokens; by certificate or token."""

    def __init__(self, session: aiohttp.ClientSession, url: str, cluster: Cluster) -> None:
        """`session` is let in as who may do all that; `cluster` as a gateway."""
        self._session = session
        self._url = url
        self.cluster = cluster

    async def put(self, one: Object) -> None:
        """Make a slice, or put another in its place."""
        slices, name = self._slices, one["metadata"]["name"]
        async with self._session.get(f"{slices}/{name}") as answer:
            exists = answer.status == 200
        method, path = ("PUT", f"{slices}/{name}") if exists else ("POST", slices)
        await _call(self._session, method, path, one)

    async def remove(self, name: str) -> None:
        """Delete a slice."""
        await _call(self._session, "DELETE", f"{self._slices}/{name}")

    @property
    def _slices(self) -> str:
        return f"{self._url}{GROUP}/namespaces/{self.cluster.namespace}/endpointslices"

    @classmethod
    @contextlib.asynccontextmanager
    async def serving(cls, config: Path, folder: Path) -> AsyncIterator[RealApi]:
        """Use the API server of a kubeconfig, in a namespace of its own."""
        written = await asyncio.to_thread(config.read_text)
        url, tls, headers, ca_file = _access(yaml.safe_load(written), folder)
        namespace = f"tenantry-test-{secrets.token_hex(4)}"
        own, rbac = (
            f"{url}/api/v1/namespaces/{namespace}",
            f"{url}/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}",
        )
        rules = [
            {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]}
        ]
        role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "gateway"}
        subject = {"kind": "ServiceAccount", "name": "gateway", "namespace": namespace}
        named = {"metadata": {"name": "gateway"}}
        connector = aiohttp.TCPConnector(ssl=tls)
        async with aiohttp.ClientSession(connector=connector, headers=headers) as session:
            await _call(session, "POST", f"{url}/api/v1/namespaces", {"metadata": {"name": namespace}})
            try:
                await _call(session, "POST", f"{own}/serviceaccounts", named)
                await _call(session, "POST", f"{rbac}/roles", {**named, "rules": rules})
                binding = {**named, "roleRef": role, "subjects": [subject]}
                await _call(session, "POST", f"{rbac}/rolebindings", binding)
                made = await _call(session, "POST", f"{own}/serviceaccounts/gateway/token", {"spec": {}})
                (folder / "token").write_text(made["status"]["token"])
                yield cls(session, url, Cluster(url, namespace, folder / "token", ca_file))
            finally:
                await _call(session, "DELETE", f"{url}/api/v1/namespaces/{namespace}")


async def _call(session: aiohttp.ClientSession, method: str, url: str, body: Object | None = None) -> Object:
    async with session.request(method, url, json=body) as answer:
        said: Object = await answer.json()
        assert answer.status < 300, f"{method} {url}: {said}"
        return said


def _access(config: Object, folder: Path) -> tuple[str, ssl.SSLContext | bool, dict[str, str], Path | None]:
    """Return URL, TLS, headers and the file of the server's certificate of a kubeconfig's present context."""
    contexts, clusters, users = (
        {one["name"]: one[kind] for one in config[f"{kind}s"]} for kind in ("context", "cluster", "user")
    )
    context = contexts[config["current-context"]]
    cluster, user = clusters[context["cluster"]], users[context["user"]]
    ca_file = _file(cluster, "certificate-authority", folder)
    headers = {"authorization": f"Bearer {user['token']}"} if "token" in user else {}
    tls: ssl.SSLContext | bool = True
    if cluster["server"].startswith("https"):
        tls = ssl.create_default_context(cafile=str(ca_file) if ca_file else None)
        certificate, key = (_file(user, f"client-{kind}", folder) for kind in ("certificate", "key"))
        if certificate is not None:
            tls.load_cert_chain(certificate, key)
    return cluster["server"].rstrip("/"), tls, headers, ca_file


def _file(entry: Object, name: str, folder: Path) -> Path | None:
    """Return the file that an entry names, or one with what it holds itself."""
    if name in entry:
        return Path(entry[name])
    if f"{name}-data" not in entry:
        return None
    path = folder / name
    path.write_bytes(base64.b64decode(entry[f"{name}-data"]))
    return path
