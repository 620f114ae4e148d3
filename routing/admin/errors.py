"""Errors of the admin API: every one is OpenAI's error object, and documented as that."""

from __future__ import annotations

from collections.abc import Mapping
from json import JSONDecodeError
from typing import Any, TypeVar

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.exceptions import HTTPException

from routing.errors import InvalidRequest, RequestError, RouteNotFound

Body = TypeVar("Body", bound=BaseModel)
_SHOWN_FINDINGS = 5
_SHOWN_CHARS = 100  # of a field's name, which the client chose
_CODES = {
    "missing": "missing_required_parameter",
    "extra_forbidden": "unknown_parameter",
    "json_invalid": "invalid_json",
}


class ErrorDetail(BaseModel):
    """What went wrong, as OpenAI's clients read it."""

    message: str = Field(description="For people: what is wrong, and what to do.")
    type: str = Field(description="Kind of error.", examples=["invalid_request_error"])
    param: str | None = Field(description="The field or parameter that is wrong.")
    code: str | None = Field(description="For programs; stays the same.", examples=["adapter_not_found"])


class ErrorAnswer(BaseModel):
    """The body of every answer that is no success."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "error": {
                    "message": "There is no adapter `support`.",
                    "type": "invalid_request_error",
                    "param": None,
                    "code": "adapter_not_found",
                }
            }
        }
    )

    error: ErrorDetail


_MEANINGS = {
    400: "The request is wrong; `param` names the field.",
    401: "No key, or nobody's.",
    403: "The key is not meant for this.",
    404: "There is no such thing, or not for this caller.",
    408: "The body came too slowly.",
    409: "The state of things does not allow it.",
    413: "The body is too large.",
    415: "The body is of a kind that is not taken here.",
    429: "Too much at once; `Retry-After` says when to come again.",
    503: "The state database does not answer; serving goes on. `Retry-After` says when to come again.",
    504: "It takes longer than this call waits; the work goes on.",
}


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Document these statuses of a route; those that every route has come by themselves."""
    return {status: {"model": ErrorAnswer, "description": _MEANINGS[status]} for status in statuses}


COMMON: dict[int | str, dict[str, Any]] = {
    **refusals(400, 401, 403),
    "default": {"model": ErrorAnswer, "description": "Anything else that went wrong."},
}


def install_handlers(app: FastAPI) -> None:
    """Have every kind of error rendered."""
    app.add_exception_handler(RequestError, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)


def as_invalid_request(error: RequestValidationError | ValidationError) -> InvalidRequest:
    """Say which fields are wrong, without their values."""
    findings = error.errors()
    texts = [_text(finding) for finding in findings[:_SHOWN_FINDINGS]]
    if len(findings) > _SHOWN_FINDINGS:
        texts.append(f"and {len(findings) - _SHOWN_FINDINGS} more")
    first = findings[0]
    kind = str(first["type"])
    code = _CODES.get(kind, "invalid_type" if kind.endswith("_type") else "invalid_value")
    return InvalidRequest("; ".join(texts), param=_param(first), code=code)


def _param(finding: Mapping[str, Any]) -> str | None:
    """Name the field: `rollout.weight`; None where the whole body is meant."""
    if finding["type"] == "json_invalid":
        return None
    parts = [str(part) for part in finding["loc"] if part not in ("body", "query", "path")]
    return ".".join(parts)[:_SHOWN_CHARS] or None


def _text(finding: Mapping[str, Any]) -> str:
    if finding["type"] == "json_invalid":
        return "The body is not valid JSON."
    message = str(finding["msg"]).removeprefix("Value error, ")
    param = _param(finding)
    return f"`{param}`: {message}" if param else message


def _response(error: RequestError, request: Request) -> Response:
    headers = {name.decode(): value.decode() for name, value in error.headers_for(str(request.client))}
    return Response(error.body(), error.status, headers, "application/json")


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError)  # noqa: S101  # registered for it; tells the type checker
    return _response(error, request)


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101
    return _response(as_invalid_request(error), request)


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101
    if error.status_code == RouteNotFound.status:
        return _response(RouteNotFound("There is no such route."), request)
    return _response(InvalidRequest("The body cannot be read.", code="invalid_json"), request)


async def json_body(request: Request, kind: type[Body]) -> Body:
    """Read a JSON body that a route takes beside others. Raises `InvalidRequest`."""
    try:
        return kind.model_validate(await request.json())
    except ValidationError as error:
        raise as_invalid_request(error) from None
    except (JSONDecodeError, UnicodeDecodeError, RecursionError):
        raise InvalidRequest("The body is not valid JSON.", code="invalid_json") from None
