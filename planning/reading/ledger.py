"""Reads the usage records of the state database: every request that ended in the last weeks.

Changes nothing: a database that another release has written is refused, not brought up to date.
"""

from __future__ import annotations

import contextlib
import math
import sqlite3
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from fleet.types import tenant_of_account
from planning.reading.request_log import Naming
from planning.reading.trace_file import MAX_READ
from planning.requests import DemandError, Requests
from planning.served import Added, Came, ModelSeen, Observed, PoolSeen, Served
from planning.values import HOUR_S

_COLUMNS = (
    "at_s, tenant, model, adapter, replica, prompt_tokens, completion_tokens, cached_tokens, queue_s, run_s, "
    "engine_s, outcome, first_s"
)
_WANTED = (  # all words are ours
    f"SELECT {_COLUMNS} FROM usage_records WHERE at_s >= %s ORDER BY id LIMIT {MAX_READ + 1}"  # noqa: S608
)
_CHUNK = 10_000  # rows at a time
_MEASURED = (
    "at_s, tenant, model, adapter, pool, prompt_tokens, completion_tokens, engine_s, switch_s, first_s, "
    "outcome"
)
_OBSERVED = (  # all words are ours
    f"SELECT {_MEASURED} FROM usage_records WHERE at_s >= %s ORDER BY id LIMIT {MAX_READ}"  # noqa: S608
)
_BEGIN = "SELECT MIN(at_s) FROM usage_records"
_CAME = "SELECT model, way, seconds FROM switch_costs"
_ADDED = (
    "SELECT adapters.tenant, adapters.name, adapters.base_model, versions.rank, versions.size_bytes "
    "FROM adapters JOIN versions ON versions.adapter_id = adapters.id AND versions.number = adapters.live "
    "WHERE NOT adapters.declared"
)
_ALIASES = "SELECT tenant, alias, model FROM aliases"
_COMPLETED, _EXPIRED = "completed", "expired"


def read_ledger(url: str, naming: Naming, *, since_s: float = 0.0) -> tuple[Requests, Served]:
    """Return the requests that ended since a Unix time, and of completed ones what their engines did.

    `url` is SQLAlchemy's. Requests that ran no model, as `/tokenize`, are left out. Raises `DemandError`.
    """
    asked, served = Requests(), Served()
    with _answers(url, _WANTED, since_s) as rows:
        for row in rows:
            if len(asked) >= MAX_READ:
                raise DemandError(f"it has more than {MAX_READ} requests: ask for less time with --over")
            _add(asked, served, row, naming)
    if not asked:
        raise DemandError("it has no request yet: serve for some days, or give a table or a trace")
    return asked, served


def read_switches(url: str) -> list[Came]:
    """Return how models came that take turns, as the gateway has kept it. Raises `DemandError`."""
    with _answers(url, _CAME) as rows:
        return [Came(model, way, seconds) for model, way, seconds in rows]


def read_added(url: str) -> list[Added]:
    """Return the adapters that were added at run time and answer. Raises `DemandError`."""
    with _answers(url, _ADDED) as rows:
        return [Added(*row) for row in rows]


def naming_of(url: str, naming: Naming) -> Naming:
    """Return a naming that knows the names too that tenants were given at run time. Raises `DemandError`."""
    with _answers(url, _ALIASES) as rows:
        aliases = {(tenant, alias): model for tenant, alias, model in rows}

    def named(account: str, alias: str, adapter: str) -> str:
        model = aliases.get((tenant_of_account(account), alias))
        return naming(account, alias, adapter) if adapter or model is None else model

    return named


def read_observed(
    url: str, naming: Naming, hosts: Mapping[str, int], *, since_s: float, now_s: float
) -> Observed:
    """Return what was measured from one Unix time to another; `hosts` are those of each pool.

    A ledger that begins later counts from its first record on. Raises `DemandError`.
    """
    models: dict[str, ModelSeen] = defaultdict(ModelSeen)
    pools = {name: PoolSeen(count) for name, count in hosts.items()}
    with _answers(url, _OBSERVED, since_s) as rows:
        for at_s, tenant, model, adapter, pool, *did in rows:
            _observe(models, (tenant, model, adapter), pools.get(pool), at_s, did, naming)
    with _answers(url, _BEGIN) as rows:
        begins_s = next((at_s for (at_s,) in rows), None)
    return Observed(max(since_s, now_s if begins_s is None else begins_s), now_s, models, pools)


def _observe(
    models: dict[str, ModelSeen],
    names: tuple[str, str, str],
    pool: PoolSeen | None,
    at_s: float,
    did: Sequence[Any],
    naming: Naming,
) -> None:
    prompt, completion, engine_s, switch_s, first_s, outcome = did
    if outcome == _COMPLETED and not (prompt or completion or engine_s):
        return  # it ran no model
    seen = models[naming(*names)]
    seen.requests += 1
    if first_s is not None or outcome == _EXPIRED:
        seen.first_s.append(math.inf if first_s is None else first_s)
    if pool is not None:
        hour = int(at_s // HOUR_S)
        pool.engine_s[hour] += engine_s
        pool.switch_s[hour] += switch_s or 0.0


def _add(asked: Requests, served: Served, row: Sequence[Any], naming: Naming) -> None:
    at_s, tenant, model, adapter, replica, prompt, completion, cached, *rest = row
    queue_s, run_s, engine_s, outcome, first_s = rest
    if outcome == _COMPLETED and not (prompt or completion or engine_s):
        return  # it ran no model
    took_s = queue_s + run_s
    name = naming(tenant, model, adapter)
    asked.add(
        at_s - took_s, name, prompt, completion, cached=cached, tenant=tenant.partition("#")[0], took_s=took_s
    )
    if outcome == _COMPLETED and replica:
        fresh = max(0, prompt - cached)
        served.add(
            replica,
            name,
            name if adapter else "",
            granted_s=at_s - run_s,
            run_s=run_s,
            tokens=(fresh, completion),
            first_s=math.nan if first_s is None else first_s - queue_s,
        )


@contextlib.contextmanager
def _answers(url: str, asked: str, *values: float) -> Iterator[Iterator[Sequence[Any]]]:
    if urlsplit(url).scheme.startswith("sqlite"):
        with closing(_sqlite(url)) as connection, _told():
            yield _fetched(connection.execute(asked.replace("%s", "?"), values))
        return
    with _postgresql(url) as connection, closing(connection.exec_driver_sql(asked, values)) as cursor:
        yield _fetched(cursor)


def _fetched(cursor: Any) -> Iterator[Sequence[Any]]:
    while rows := cursor.fetchmany(_CHUNK):
        yield from rows


def _sqlite(url: str) -> sqlite3.Connection:
    path = unquote(url.partition("///")[2])
    try:
        # Writable, since a journal cannot be read otherwise; `query_only` keeps it as it is.
        connection = sqlite3.connect(f"file:{quote(path)}?mode=rw", uri=True, timeout=10.0)
        connection.execute("PRAGMA query_only=ON").close()
    except sqlite3.Error:
        raise DemandError(
            "it cannot be opened: has the fleet served on this machine, as this user? A table or a "
            "trace does as well"
        ) from None
    return connection


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Turn failures of SQLite into `DemandError`; its messages name no files."""
    try:
        yield
    except sqlite3.Error as error:
        raise DemandError(
            f"it cannot be read ({error}): a database of another release, or a damaged one"
        ) from None


@contextlib.contextmanager
def _postgresql(url: str) -> Iterator[Any]:
    try:
        from sqlalchemy import make_url
        from sqlalchemy.exc import SQLAlchemyError

        from routing.state.database import connect, reading
    except ImportError:
        raise DemandError(
            "reading PostgreSQL needs the packages of a whole installation (`make setup`)"
        ) from None
    try:
        engine = connect(make_url(url), wait_s=60.0)
        try:
            with reading(engine).connect() as connection:
                yield connection
        finally:
            engine.dispose()
    except SQLAlchemyError as error:
        reason = type(getattr(error, "orig", error)).__name__  # messages may show hosts and users
        raise DemandError(f"PostgreSQL does not answer ({reason})") from None
