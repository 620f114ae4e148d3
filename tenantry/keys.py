"""The commands of `tenantry keys`: make, list and revoke API keys while the gateway runs."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import typer
from rich.console import Console

from tenantry import display
from tenantry.client import Answer, Gateway, in_path
from tenantry.running import URL, AsJson, Tenant, Url, ask, duration_s, printable

app = typer.Typer(
    no_args_is_help=True,
    help="Make, list and revoke API keys at run time. Keys declared in fleet.yaml are changed there.",
)

NONE = "none"


class Role(StrEnum):
    """The rights of a key."""

    INFERENCE = "inference"
    ADAPTERS = "adapters"
    OPERATOR = "operator"


def limit(text: str) -> int | str:
    """Read a limit: a number, or `none`. Raises `typer.BadParameter`."""
    if text == NONE:
        return NONE
    if not text.isascii() or not text.isdigit() or len(text) > 15:
        raise typer.BadParameter(f"{text!r} is no number, and not `none`")
    return int(text)


def _limit(name: str, text: str) -> Any:
    return typer.Option(name, parser=limit, metavar="N", help=text, show_default=False)


MaxConcurrency = Annotated[Any, _limit("--max-concurrency", "Sequences in the gateway at once.")]
MaxQueued = Annotated[Any, _limit("--max-queued", "Requests that wait.")]
RequestsPerMinute = Annotated[Any, _limit("--requests-per-minute", "Requests in any minute.")]
TokensPerMinute = Annotated[Any, _limit("--tokens-per-minute", "Tokens in any minute.")]
MonthlyTokens = Annotated[Any, _limit("--monthly-tokens", "Tokens in a calendar month, UTC.")]


def _given(**limits: int | str | None) -> dict[str, int | None]:
    """Return the limits that were given; `none` takes one away."""
    given = {name: value for name, value in limits.items() if value is not None}
    return {name: None if value == NONE else int(value) for name, value in given.items()}


@app.command()
def create(  # noqa: PLR0913  # an argument for each option, as typer wants it
    ctx: typer.Context,
    role: Annotated[
        Role,
        typer.Option(
            help="inference calls the tenant's models, adapters manages its adapters, operator everything."
        ),
    ],
    tenant: Annotated[
        str | None, typer.Option(help="Owner of the key.", show_default="nobody's: an operator's")
    ] = None,
    note: Annotated[str, typer.Option(help="Purpose of the key.")] = "",
    expires: Annotated[
        float | None,
        typer.Option(parser=duration_s, metavar="30d", help="Time until it expires.", show_default="never"),
    ] = None,
    max_concurrency: MaxConcurrency = None,
    max_queued: MaxQueued = None,
    requests_per_minute: RequestsPerMinute = None,
    tokens_per_minute: TokensPerMinute = None,
    monthly_tokens: MonthlyTokens = None,
    url: Url = URL,
    as_json: AsJson = False,
) -> None:
    """Make a key. It is shown this once, and is valid at once. Its limits are beside its tenant's."""
    if (role is Role.OPERATOR) != (tenant is None):
        raise typer.BadParameter(
            "an operator's key has no tenant, every other key needs one", param_hint="--tenant"
        )
    limits = _given(
        max_concurrency=max_concurrency,
        max_queued=max_queued,
        requests_per_minute=requests_per_minute,
        tokens_per_minute=tokens_per_minute,
        monthly_tokens=monthly_tokens,
    )
    body = {
        "role": role.value,
        "tenant": tenant,
        "note": note,
        "expires_in_s": expires,
        "limits": limits or None,
    }
    given = {field: value for field, value in body.items() if value is not None}

    async def work(gateway: Gateway) -> Answer:
        return await gateway.call("POST", "/keys", body=given)

    ask(ctx, url, as_json, work, _show_new)


@app.command("list")
def list_(ctx: typer.Context, tenant: Tenant = None, url: Url = URL, as_json: AsJson = False) -> None:
    """List keys by their first characters; revoked and expired ones too, and those of fleet.yaml."""

    async def work(gateway: Gateway) -> list[Answer]:
        answer = await gateway.call("GET", "/keys", params={"tenant": tenant})
        return [*answer["data"], *answer.get("declared", ())]

    ask(ctx, url, as_json, work, display.key_list)


@app.command("limit")
def limit_(  # noqa: PLR0913  # an argument for each option, as typer wants it
    ctx: typer.Context,
    key_id: Annotated[
        str, typer.Argument(metavar="ID", help="Id of the key, from `list`.", show_default=False)
    ],
    max_concurrency: MaxConcurrency = None,
    max_queued: MaxQueued = None,
    requests_per_minute: RequestsPerMinute = None,
    tokens_per_minute: TokensPerMinute = None,
    monthly_tokens: MonthlyTokens = None,
    url: Url = URL,
    as_json: AsJson = False,
) -> None:
    """Change limits of a key that calls models; `none` takes one away. They hold from the next request on."""
    limits = _given(
        max_concurrency=max_concurrency,
        max_queued=max_queued,
        requests_per_minute=requests_per_minute,
        tokens_per_minute=tokens_per_minute,
        monthly_tokens=monthly_tokens,
    )
    if not limits:
        raise typer.BadParameter("name a limit to change, such as --max-concurrency 4")

    async def work(gateway: Gateway) -> Answer:
        return await gateway.call("PATCH", f"/keys/{in_path(key_id)}", body={"limits": limits})

    ask(ctx, url, as_json, work, _show_limits)


@app.command()
def revoke(
    ctx: typer.Context,
    key_id: Annotated[
        str, typer.Argument(metavar="ID", help="Id of the key, from `list`.", show_default=False)
    ],
    url: Url = URL,
    as_json: AsJson = False,
) -> None:
    """Revoke a key at once."""

    async def work(gateway: Gateway) -> Answer:
        return await gateway.call("DELETE", f"/keys/{in_path(key_id)}")

    ask(ctx, url, as_json, work, _show_revoked)


def _show_new(console: Console, key: Answer) -> None:
    console.print(f"key (shown once):  {printable(key['key'])}")
    owner = f" of {key['tenant']}" if key["tenant"] else ""
    expires = f", until {display.moment(key['expires_at'])} UTC" if key["expires_at"] else ""
    console.print(printable(f"id {key['id']}, role {key['role']}{owner}{expires}"))


def _show_limits(console: Console, key: Answer) -> None:
    console.print(printable(f"The key {key['id']} ({key['prefix']}...): {display.limits(key)}"))


def _show_revoked(console: Console, key: Answer) -> None:
    console.print(printable(f"The key {key['id']} ({key['prefix']}...) opens nothing any more."))
