"""The options that set a tenant's values, and the body that they make. Names are those of fleet.yaml."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, get_type_hints

import typer

from tenantry.client import Answer

CAPS = (
    *("max_concurrency", "max_concurrency_per_model", "max_queued", "max_queued_tokens"),
    *("requests_per_minute", "tokens_per_minute", "queue_timeout_s"),
)
_PLAIN = ("default_model", "priority", "weight", "isolation")


def _number(text: str) -> Any:
    return typer.Option(help=text, show_default="as it is")


class Values:
    """The values that a command of this kind can set: an option for each."""

    alias: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=MODEL", help="Its name for an adapter or base model of the fleet. Can be repeated."
        ),
    ] = None
    default_model: Annotated[str | None, _number("Alias used when a request names no model.")] = None
    priority: Annotated[
        str | None,
        typer.Option("--priority", "--band", help="Band: high, standard or low.", show_default="as it is"),
    ] = None
    weight: Annotated[float | None, _number("Share within the band.")] = None
    isolation: Annotated[str | None, _number("shared, or dedicated: alone on its pools.")] = None
    pools: Annotated[
        list[str] | None,
        typer.Option("--pool", help="Pool that serves it; all of them if given. Can be repeated."),
    ] = None
    adapter_sources: Annotated[
        list[str] | None,
        typer.Option(
            "--adapter-source",
            metavar="PREFIX",
            help="Where its own keys may fetch adapters. Can be repeated.",
        ),
    ] = None
    max_concurrency: Annotated[int | None, _number("Sequences at once.")] = None
    max_concurrency_per_model: Annotated[int | None, _number("Sequences at once of one model.")] = None
    max_queued: Annotated[int | None, _number("Requests that wait.")] = None
    max_queued_tokens: Annotated[int | None, _number("Prompt tokens of those.")] = None
    requests_per_minute: Annotated[int | None, _number("Requests in any minute.")] = None
    tokens_per_minute: Annotated[int | None, _number("Tokens in any minute.")] = None
    queue_timeout_s: Annotated[
        float | None, typer.Option("--queue-timeout-s", help="Longest wait, in seconds.")
    ] = None
    monthly_tokens: Annotated[int | None, _number("Budget of a month.")] = None
    soft: Annotated[float | None, _number("Fraction of the budget at which warnings begin.")] = None


RemoveAlias = Annotated[
    list[str] | None, typer.Option(metavar="NAME", help="Remove such a name. Can be repeated.")
]
NoCap = Annotated[
    list[str] | None,
    typer.Option(metavar="CAP", help="Take a cap away, such as requests_per_minute. Can be repeated."),
]
NoBudget = Annotated[bool, typer.Option("--no-budget", help="Take the budget away.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would change, and change nothing.")]


def takes_values(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of `Values`, before its `dry_run`; it finds them in its context."""
    own = inspect.signature(command, eval_str=True)
    before = list(own.parameters).index("dry_run")
    added = {
        name: inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=getattr(Values, name), annotation=annotation
        )
        for name, annotation in get_type_hints(Values, include_extras=True).items()
    }

    def taking(**given: Any) -> None:
        command(**{name: value for name, value in given.items() if name not in added})

    parameters = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in own.parameters.values()]
    parameters[before:before] = added.values()
    taking.__name__, taking.__doc__ = command.__name__, command.__doc__
    taking.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
    taking.__annotations__ = {each.name: each.annotation for each in parameters}
    return taking


def body_of(options: Mapping[str, Any]) -> Answer:
    """Return the body that the options ask for. Raises `typer.BadParameter`."""
    parts = {
        "models": _models(options),
        "caps": _given(options, CAPS) | {_cap(name): None for name in options.get("no_cap") or ()},
        "budget": _given(options, ("monthly_tokens", "soft")),
    }
    body = _given(options, _PLAIN) | {key: value for key, value in parts.items() if value}
    if options.get("no_budget"):
        body["budget"] = None
    return body | {key: list(options[key]) for key in ("pools", "adapter_sources") if options.get(key)}


def _given(options: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    return {name: options[name] for name in names if options.get(name) is not None}


def _cap(text: str) -> str:
    name = text.replace("-", "_")
    if name not in CAPS:
        raise typer.BadParameter(f"{text!r} is no cap; there are {', '.join(CAPS)}", param_hint="--no-cap")
    return name


def _models(options: Mapping[str, Any]) -> dict[str, str | None]:
    models: dict[str, str | None] = dict.fromkeys(options.get("remove_alias") or ())
    return models | dict(_pairs(options.get("alias") or ()))


def _pairs(texts: Iterable[str]) -> Iterable[tuple[str, str]]:
    for text in texts:
        name, sign, model = text.rpartition("=")
        if not (name and sign and model):
            raise typer.BadParameter(f"{text!r} is no NAME=MODEL", param_hint="--alias")
        yield name, model
