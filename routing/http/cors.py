"""May a page from elsewhere call this? CORS as `http.cors` of BentoML's configuration has it, on all routes.

What that leaves out is what OpenAI's clients need in a browser: every method and header, since it is the key
in `authorization` that lets somebody in and no cookie, and the headers of answers that they read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from starlette.middleware.cors import CORSMiddleware

from routing.asgi import App

METHODS = ("GET", "HEAD", "POST", "DELETE", "OPTIONS")
EXPOSED = (
    "metadata",
    "openai-processing-ms",
    "request-id",
    "retry-after",
    "retry-after-ms",
    *(f"x-ratelimit-{what}-requests" for what in ("limit", "remaining", "reset")),
    *(f"x-ratelimit-{what}-tokens" for what in ("limit", "remaining", "reset")),
    "x-request-id",
    "x-should-retry",
    "x-tenantry-adapter",
    "x-tenantry-budget-remaining-cost",
    "x-tenantry-budget-remaining-tokens",
    "x-tenantry-cost",
    "x-tenantry-key-budget-remaining-tokens",
    "x-tenantry-model",
    "x-tenantry-queue-ms",
    "x-tenantry-replica",
    "x-tenantry-version",
    "x-tenantry-wake-ms",
)
_PREFIX = "access_control_"


def options_of(settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """Read `http.cors`; None where it is off. Raises `ValueError` that says what is wrong."""
    if not settings.get("enabled"):
        return None
    given = {name.removeprefix(_PREFIX): value for name, value in settings.items() if value is not None}
    if given.get("allow_origins") is None:
        raise ValueError("http.cors.enabled needs http.cors.access_control_allow_origins")
    pattern = given.get("allow_origin_regex")
    if pattern is not None:
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"http.cors.access_control_allow_origin_regex: {error}") from None
    options: dict[str, Any] = {"allow_methods": METHODS, "allow_headers": ("*",), "expose_headers": EXPOSED}
    for name, value in given.items():
        if name != "enabled":
            options[name] = (value,) if isinstance(value, str) and name != "allow_origin_regex" else value
    return options


def with_cors(app: App, settings: Mapping[str, Any]) -> App:
    """Put CORS before an application; where it is off, the application is all there is."""
    options = options_of(settings)
    return app if options is None else CORSMiddleware(app, **options)
