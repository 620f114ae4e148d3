"""Which reader does a file or an address need? Returns the demand that it tells, joined with the fleet."""

from __future__ import annotations

import csv
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import httpx

from fleet.types import Fleet
from planning.fleets import model_name, with_wishes
from planning.measuring import measured
from planning.reading import hand_table, metrics_page, prometheus, request_log, trace_file
from planning.reading.ledger import naming_of, read_added, read_ledger, read_switches
from planning.requests import DemandError, sifted
from planning.served import Added, Came, Served
from planning.values import Demand

SNIFFED_BYTES = 65_536
KINDS = (
    "a trace (CSV: time, model, prompt, completion), a table (CSV or YAML: model, requests/day, in, out), a "
    "request log (one JSON object a line), or a page of metrics"
)
_FETCH_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Found:
    """What a source tells."""

    demand: Demand
    served: Served | None = None  # what engines did with the requests; of a ledger or this gateway's log
    came: tuple[Came, ...] = ()  # how models came that take turns; of a ledger
    added: tuple[Added, ...] = ()  # adapters that were added at run time; of a ledger


def read_demand(
    where: str | None, fleet: Fleet | None, *, now_s: float, over_s: float | None = None
) -> Found:
    """Return the demand that a file, a page, a Prometheus server or, without `where`, a fleet's ledger tells.

    `over_s` is for how long: back from now for a ledger and Prometheus, and since when a page has counted.
    With a fleet its objectives and isolation are part of it. Raises `DemandError` that names the source.
    """
    naming = request_log.plain_name if fleet is None else partial(model_name, fleet)
    try:
        found = _read(where, fleet, naming, now_s, over_s)
    except DemandError as error:
        raise DemandError(f"{where or 'the ledger'}: {error}") from None
    except OSError as error:
        raise DemandError(f"{where}: {error.strerror or error}") from None
    return found if fleet is None else replace(found, demand=with_wishes(found.demand, fleet))


def _read(
    where: str | None, fleet: Fleet | None, naming: request_log.Naming, now_s: float, over_s: float | None
) -> Found:
    if where is None:
        if fleet is None:
            raise DemandError(f"name a fleet file, whose ledger is read, or with --from {KINDS}")
        return _of_ledger(fleet, naming, now_s, over_s)
    if where.startswith(("http://", "https://")):
        return Found(_of_address(where, naming, now_s, over_s))
    return _of_file(Path(where), naming, now_s, over_s)


def _of_ledger(fleet: Fleet, naming: request_log.Naming, now_s: float, over_s: float | None) -> Found:
    since_s = 0.0 if over_s is None else now_s - over_s
    url = fleet.state.database_url
    asked, served = read_ledger(url, naming_of(url, naming), since_s=since_s)
    return Found(
        measured(sifted(asked), "the ledger"), served, tuple(read_switches(url)), tuple(read_added(url))
    )


def _of_address(where: str, naming: request_log.Naming, now_s: float, over_s: float | None) -> Demand:
    with httpx.Client(follow_redirects=True, timeout=_FETCH_TIMEOUT_S) as client:
        if httpx.URL(where).path.rstrip("/").endswith("/metrics"):
            try:
                answer = client.get(where)
                answer.raise_for_status()
            except httpx.HTTPStatusError as error:
                raise DemandError(f"it answers with status {error.response.status_code}") from None
            except httpx.HTTPError as error:
                raise DemandError(f"it does not answer: {str(error) or type(error).__name__}") from None
            return metrics_page.read_page(
                answer.text, httpx.URL(where).host, now_s=now_s, over_s=over_s, naming=naming
            )
        window_s = prometheus.WINDOW_S if over_s is None else over_s
        return prometheus.read_prometheus(where, client, now_s=now_s, over_s=window_s, naming=naming)


def _of_file(path: Path, naming: request_log.Naming, now_s: float, over_s: float | None) -> Found:
    with path.open("rb") as file:
        first = file.read(SNIFFED_BYTES)
    text = first.decode("utf-8-sig", errors="replace")
    lines = text.splitlines()
    number = next((number for number, line in enumerate(lines) if line.strip()), 0)
    header = next(csv.reader(lines[number : number + 1]), [])
    if path.suffix.lower() in (".yaml", ".yml") or hand_table.is_table(header):
        return Found(hand_table.read_table(path))
    if trace_file.is_trace(header):
        asked, unix = trace_file.read_trace(path)
        return Found(measured(sifted(asked), f"trace {path.name}", unix=unix))
    if request_log.is_log(first):
        served = Served()
        asked = request_log.read_log(path, naming, served)
        return Found(measured(sifted(asked), f"request log {path.name}"), served)
    if metrics_page.is_page(text):
        return Found(_of_page(path, naming, now_s, over_s))
    raise DemandError(_why_none(header, text, number + 1))


def _why_none(header: list[str], text: str, line: int) -> str:
    """Say what is wrong with a file that is nothing of what can be read."""
    if not text.strip():
        return "it is empty"
    separator = next((each for each in ("\t", ";") if len(header) == 1 and each in header[0]), "")
    columns = header[0].split(separator) if separator else header
    near = []
    for what, needed, missing in (
        ("table", hand_table.NEEDED, hand_table.missing(columns)),
        ("trace", trace_file.NEEDED, trace_file.missing(columns)),
    ):
        if len(missing) <= len(needed) - 2:
            near.append((len(missing), what, needed, missing))
    if not near:
        return f"it is none of what can be read: {KINDS}"
    _, what, needed, missing = min(near)
    if separator:
        return f"line {line}: columns are separated by {separator!a}; separate them by commas"
    named = " and ".join(f"`{name}`" for name in missing)
    return f"line {line}: there is no column {named}; a {what} has {', '.join(needed)}"


def _of_page(path: Path, naming: request_log.Naming, now_s: float, over_s: float | None) -> Demand:
    if path.stat().st_size > metrics_page.MAX_BYTES:
        raise DemandError(f"it is larger than {metrics_page.MAX_BYTES // 2**20} MiB")
    # A page that was saved counts until it was saved.
    text, saved_s = path.read_text(errors="replace"), min(now_s, path.stat().st_mtime)
    return metrics_page.read_page(text, path.name, now_s=saved_s, over_s=over_s, naming=naming)
