"""Every error that a client can get, in the form that OpenAI clients read.

    RequestError
    |-- InvalidRequest        400  the request is wrong; sending it again cannot help
    |   |-- EngineRefused     4xx  an engine's refusal
    |   |-- BreaksEngine           this request alone breaks engines
    |   |-- ContentFlagged         the tenant's guard refused a text
    |   `-- OverLimit              a field exceeds the limit of one request
    |-- InvalidKey            401  no key, or an unknown one
    |-- Forbidden             403  the key is valid, but may not do this
    |-- ModelNotFound         404  unknown and forbidden names alike, so that names do not leak
    |-- NotFound              404  the same for adapters, versions, keys
    |-- RouteNotFound         404
    |-- MethodNotAllowed      405
    |-- BodyTimeout           408  the body did not arrive in time
    |-- Conflict              409  the current state does not allow it
    |   `-- Quarantined            the only version of a model was refused; someone must act
    |-- BodyTooLarge          413
    |-- UnsupportedMediaType  415
    |-- HeadTooLarge          431  too many headers, or too long ones
    |-- CapReached            429  one of the tenant's caps; names it
    |   `-- QuotaExceeded          its budget of the month; OpenAI's `insufficient_quota`
    |-- EngineFailed          502  an engine broke while it worked on this request
    |-- Unavailable           503  no replica or service for it now
    |   |-- NoSpareRoom            for a line of a batch; it waits, and no client sees it
    |   |-- QueueTimeout           it waited as long as its tenant allows
    |   `-- StateUnavailable       the state database does not answer; serving goes on
    `-- EngineTimeout         504  an engine took longer than the gateway waits

The body is OpenAI's `{"error": {message, type, param, code}}`, so every OpenAI client raises its own
typed exception. By default, the `openai` package retries statuses 408, 409, 429 and 5xx twice, after
`retry-after-ms`, else `retry-after`, else half a second and more. `x-should-retry: true` or `false` overrules
that (`_should_retry` in openai-python's `_base_client.py`, since 1.0).
"""

from __future__ import annotations

import math
import zlib
from typing import ClassVar

import orjson

# openai-python 1.x and 2.0 ignore a longer wait and come back after 8 s at most (`_calculate_retry_timeout`;
# 3.x takes up to 120 s).
LONGEST_RETRY_AFTER_S = 60.0


# What Anthropic's API calls the errors of a status; its clients go by the status.
_ANTHROPIC_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}
# Statuses of an engine that concern the request; 401 and the like concern the gateway.
_REFUSALS = (400, 413, 422)


def spread(retry_after_s: float, request_id: str) -> float:
    """Return a retry delay that differs between requests, and is constant for each.

    Up to half as long again, at least up to a second more and at most a minute; up to a third earlier where
    later would be longer than clients wait.
    """
    longest_s = retry_after_s + min(max(retry_after_s / 2, 1.0), 60.0)
    shortest_s = retry_after_s
    if retry_after_s <= LONGEST_RETRY_AFTER_S < longest_s:
        longest_s = LONGEST_RETRY_AFTER_S
        shortest_s = min(retry_after_s, LONGEST_RETRY_AFTER_S * 2 / 3)
    part: float = zlib.crc32(request_id.encode(errors="replace")) / 2**32
    return shortest_s + part * (longest_s - shortest_s)


class RequestError(Exception):
    """A request that gets an error instead of an answer."""

    status: int = 500
    type: ClassVar[str] = "server_error"
    default_code: ClassVar[str] = "internal_error"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code
        self.param = param
        self.retry_after_s = retry_after_s

    @property
    def should_retry(self) -> bool | None:
        """Whether an early retry can help; None: the client may decide by the status."""
        return None if self.retry_after_s is None else self.retry_after_s <= LONGEST_RETRY_AFTER_S

    def body(self) -> bytes:
        """Render OpenAI's error object."""
        shown = {"message": self.message, "type": self.type, "param": self.param, "code": self.code}
        return orjson.dumps({"error": shown})

    def anthropic_body(self, request_id: str) -> bytes:
        """Render Anthropic's error object."""
        kind = _ANTHROPIC_TYPES.get(
            self.status, "invalid_request_error" if self.status < 500 else "api_error"
        )
        shown = {"type": kind, "message": self.message}
        return orjson.dumps({"type": "error", "error": shown, "request_id": request_id})

    def headers_for(self, request_id: str) -> list[tuple[bytes, bytes]]:
        """Retry advice; `retry-after` is whole seconds (RFC 9110), `openai` reads the other two.

        Clients with the same advice would return in the same instant, so it is spread, by the request.
        """
        headers = []
        if self.retry_after_s is not None:
            advice_s = spread(self.retry_after_s, request_id)
            whole_s = max(1, math.ceil(min(self.retry_after_s, advice_s)), round(advice_s))
            milliseconds = max(1, math.ceil(advice_s * 1000))
            headers += [(b"retry-after", b"%d" % whole_s), (b"retry-after-ms", b"%d" % milliseconds)]
        if self.should_retry is not None:
            headers.append((b"x-should-retry", b"true" if self.should_retry else b"false"))
        return headers


class InvalidRequest(RequestError):
    """The request is wrong; sending it again cannot help."""

    status = 400
    type = "invalid_request_error"
    default_code = "invalid_request"


class EngineRefused(InvalidRequest):
    """An engine found the request wrong; the status is its own."""

    def __init__(self, message: str, *, param: str | None, status: int) -> None:
        super().__init__(message, param=param)
        self.status = status if status in _REFUSALS else 400


class BreaksEngine(InvalidRequest):
    """This request alone breaks engines."""

    default_code = "request_breaks_engine"


class OverLimit(InvalidRequest):
    """A field exceeds the limit of one request; the message names the limit."""

    default_code = "request_over_limit"


class ContentFlagged(InvalidRequest):
    """A guard of the tenant's refused the prompt, or the answer."""

    default_code = "prompt_flagged"


class InvalidKey(RequestError):
    """No key, or an unknown one."""

    status = 401
    type = "authentication_error"
    default_code = "invalid_api_key"

    def headers_for(self, request_id: str) -> list[tuple[bytes, bytes]]:
        """RFC 9110: a 401 names the scheme that would be accepted."""
        return [(b"www-authenticate", b"Bearer")]


class Forbidden(RequestError):
    """The key is valid, but may not do this."""

    status = 403
    type = "permission_error"
    default_code = "forbidden"


class TenantRemoved(Forbidden):
    """The request's tenant was removed while it waited."""

    default_code = "tenant_removed"


class AccountSuspended(Forbidden):
    """The tenant of the key is suspended."""

    default_code = "account_suspended"

    def __init__(self) -> None:
        super().__init__("The account is suspended.")


class NotFound(RequestError):
    """There is no such thing, or not for this caller."""

    status = 404
    type = "invalid_request_error"
    default_code = "not_found"


class Conflict(RequestError):
    """The current state does not allow it."""

    status = 409
    type = "invalid_request_error"
    default_code = "conflict"


class Quarantined(Conflict):
    """A model's newest version was refused, and no other can answer."""

    default_code = "adapter_quarantined"

    @property
    def should_retry(self) -> bool:
        """No: nothing changes until another version is registered, or this one is verified again."""
        return False


class ModelNotFound(RequestError):
    """The model does not exist, or not for this caller."""

    status = 404
    type = "invalid_request_error"
    default_code = "model_not_found"


class ModelRetired(ModelNotFound):
    """The model is an alias of the tenant's own that leads to nothing any more."""

    default_code = "model_retired"


class RouteNotFound(RequestError):
    """No such path."""

    status = 404
    type = "invalid_request_error"
    default_code = "unknown_url"


class MethodNotAllowed(RequestError):
    """The path exists, the method does not."""

    status = 405
    type = "invalid_request_error"
    default_code = "method_not_allowed"

    def __init__(self, *methods: str) -> None:
        """`methods` are the route's own; HEAD comes with GET, and OPTIONS with every route."""
        heads = ("HEAD",) if "GET" in methods else ()
        self.allow = ", ".join(dict.fromkeys((*sorted(methods), *heads, "OPTIONS")))
        super().__init__(f"This route takes {self.allow}.")

    def headers_for(self, request_id: str) -> list[tuple[bytes, bytes]]:
        """Retry advice, and what is allowed; RFC 9110, section 15.5.6."""
        return [*super().headers_for(request_id), (b"allow", self.allow.encode())]


class BodyTimeout(RequestError):
    """The client did not finish sending its body."""

    status = 408
    type = "invalid_request_error"
    default_code = "body_timeout"


class HeadTooLarge(RequestError):
    """The headers are more, or longer, than the server takes."""

    status = 431
    type = "invalid_request_error"
    default_code = "headers_too_large"


class BodyTooLarge(RequestError):
    """The body is larger than the gateway takes."""

    status = 413
    type = "invalid_request_error"
    default_code = "body_too_large"


class UnsupportedMediaType(RequestError):
    """The body's content type is not JSON."""

    status = 415
    type = "invalid_request_error"
    default_code = "unsupported_media_type"


class CapReached(RequestError):
    """One of the tenant's caps is reached."""

    status = 429
    type = "rate_limit_error"
    default_code = "cap_reached"


class QuotaExceeded(CapReached):
    """The tenant's budget of the month is used up."""

    type = "insufficient_quota"
    default_code = "insufficient_quota"

    @property
    def should_retry(self) -> bool:
        """No: nothing but the next month, or a larger budget, helps."""
        return False


class EngineFailed(RequestError):
    """An engine broke while it worked on this request."""

    status = 502
    default_code = "engine_failed"


class Unavailable(RequestError):
    """No replica or service is available for this now."""

    status = 503
    type = "service_unavailable_error"
    default_code = "unavailable"


class NoSpareRoom(Unavailable):
    """No replica has room to spare for a line of a batch; no client sees it, since the line waits."""

    default_code = "no_spare_room"


class QueueTimeout(Unavailable):
    """The request waited as long as its tenant allows; the message has the reason."""

    default_code = "queue_timeout"


class ModelMoved(Unavailable):
    """The request's tenant was given another pool while it waited."""

    default_code = "model_moved"


class StateUnavailable(Unavailable):
    """The state database does not answer; serving goes on."""

    default_code = "state_unavailable"


class EngineTimeout(RequestError):
    """An engine took longer than the gateway waits."""

    status = 504
    type = "timeout_error"
    default_code = "engine_timeout"

    @property
    def should_retry(self) -> bool:
        """No: the same request would reach the same limit, and keep an engine busy as long."""
        return False


def still_starting(retry_after_s: float) -> Unavailable:
    """Return why nothing is answered or changed before the state has been read."""
    return Unavailable(
        "The gateway is still reading its state.", code="starting", retry_after_s=retry_after_s
    )
