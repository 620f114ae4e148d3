"""The types of names, sources, devices, keys and flags in fleet.yaml, with their checks."""

from __future__ import annotations

import ipaddress
import re
from decimal import Decimal
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    StringConstraints,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
    WrapValidator,
    model_validator,
)

from adapters import sources
from adapters.errors import AdapterError
from fleet import vllm_flags
from fleet.mig import PROFILE_PATTERN
from fleet.names import check_alias, check_name
from fleet.pool_settings import HOLD_S

_NAME_SCHEMA = "^[a-z0-9](?!.*\\.\\.)[a-z0-9._-]{0,62}$"
_ALIAS_SCHEMA = "^(?![ /])[^\\x00-\\x1f\\x7f]{1,128}(?<![ /])$"
_HEX_SHA256 = r"^[0-9a-fA-F]{64}$"
_HEADER = r"^[A-Za-z0-9-]{1,64}$"
_HOST_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_INSIDE = ("local", "localhost", "internal", "intranet", "lan", "home", "corp", "test", "invalid")
MOST = 10**15  # of a limit: sums of them stay within 64 bits
MOST_REPLICAS = 1024  # of a base model in a pool
_ENV_NAME = r"^[A-Za-z_][A-Za-z0-9_]*$"


def _check_args(value: Any) -> tuple[str, ...]:
    return vllm_flags.to_argv(value)


def _check_source_prefix(prefix: str) -> str:
    try:
        return sources.check_prefix(prefix)
    except AdapterError as error:
        raise ValueError(str(error)) from None


def _check_media_host(host: str) -> str:
    labels = host.lower().split(".")
    if not all(re.fullmatch(_HOST_LABEL, label) for label in labels):
        raise ValueError("is no name of a host: no scheme, no port, no path, no wildcard")
    if len(labels) < 2 or labels[-1] in _INSIDE or not labels[-1][0].isalpha():
        raise ValueError("is an address or a name of a network's own; engines fetch from public hosts only")
    return host.lower()


def _check_network(text: str) -> str:
    try:
        network = ipaddress.ip_network(text)
    except ValueError:
        raise ValueError("is neither an IP address nor a network as 10.0.0.0/8") from None
    if network.prefixlen == 0:
        raise ValueError("would believe everybody")
    return str(network)


def _check_header(name: str) -> str:
    if not re.fullmatch(_HEADER, name):
        raise ValueError("a header's name is 1 to 64 letters, digits and `-`")
    return name.lower()


def _check_user(name: str) -> str:
    if not name.isprintable() or name != name.strip() or "," in name:
        raise ValueError("a user or group has no commas, no spaces around it, and nothing unprintable")
    return name


def _check_database(value: Any) -> Any:
    """Accept text or `{env: NAME}`. The error never shows the value, which may hold a password."""
    if isinstance(value, str):
        return value
    if isinstance(value, dict) and value.keys() == {"env"} and re.fullmatch(_ENV_NAME, str(value["env"])):
        return EnvSection(env=value["env"])
    raise ValueError("is either a URL or {env: NAME}")


def _auto_or(kind: type[int] | type[float], least: float, most: float) -> Any:
    """Return the type of a number that may also be `auto`, to be found out: None once read."""
    numbers = (int,) if kind is int else (int, float)
    words = "a whole number" if kind is int else "a number"

    def check(value: Any) -> float | None:
        if value in ("auto", None):
            return None
        if type(value) not in numbers:
            raise ValueError(f"must be {words} or `auto`")
        if not least <= value <= most:  # NaN is neither
            raise ValueError(f"must be from {least:g} to {most:g}, or `auto`")
        return kind(value)

    number = {"type": "integer" if kind is int else "number", "minimum": least, "maximum": most}
    schema = {"anyOf": [number, {"enum": ["auto", None]}]}
    return Annotated[kind | None, PlainValidator(check), WithJsonSchema(schema)]


def _decimal(most: int, decimals: int) -> Any:
    """Return the type of a number from 0 to `most`, kept exactly: as a whole number of its last decimal."""

    def check(value: Any) -> int:
        if type(value) not in (int, float):
            raise ValueError("must be a number, no quotes, no currency")
        if not 0 <= value <= most:  # NaN is neither
            raise ValueError(f"must be from 0 to {most:,}".replace(",", " "))
        scaled = Decimal(repr(value)) * 10**decimals  # as it is written: repr is the shortest that reads back
        if scaled != int(scaled):
            raise ValueError(f"has more than {decimals} decimals")
        return int(scaled)

    schema = {"type": "number", "minimum": 0, "maximum": most}
    return Annotated[int, PlainValidator(check), WithJsonSchema(schema)]


# Exact, in the units of `fleet.money`. The bounds keep sums of costs within 64 bits.
TokenPrice: Any = _decimal(100_000, 6)
HourPrice: Any = _decimal(1_000_000, 6)
Amount: Any = _decimal(1_000_000_000, 9)
Factor: Any = _decimal(100, 4)
MediaHost = Annotated[
    str, AfterValidator(_check_media_host), WithJsonSchema({"type": "string", "maxLength": 253})
]
Currency = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,15}$")]
AwakeModels: Any = _auto_or(int, 1, 1024)
MinimumStay: Any = _auto_or(float, 0, 86400)
Name = Annotated[
    str,
    AfterValidator(check_name),
    WithJsonSchema({"type": "string", "pattern": _NAME_SCHEMA}),
]
Count = Annotated[int, Field(ge=1, le=MOST)]
CountFromZero = Annotated[int, Field(ge=0, le=MOST)]
# A tenant's name for a model. It names no file and no engine, so it may be what other servers call theirs.
Alias = Annotated[
    str,
    AfterValidator(check_alias),
    WithJsonSchema({"type": "string", "pattern": _ALIAS_SCHEMA}),
]
Source = Annotated[str, StringConstraints(min_length=1, max_length=4096)]
Sha256 = Annotated[str, StringConstraints(pattern=_HEX_SHA256)]


def _check_model(value: Any) -> Any:
    """Accept a name, or {model: NAME, fallback: NAME}; both mean a `ModelSection`."""
    if isinstance(value, str):
        return ModelSection(model=check_name(value))
    if not isinstance(value, dict):
        raise ValueError("is neither a name nor {model: NAME, fallback: NAME}")
    return value


def _check_replicas(value: Any, as_range: ValidatorFunctionWrapHandler) -> Any:
    """Accept a whole number, or {min: NUMBER, max: NUMBER}."""
    if isinstance(value, dict):
        return as_range(value)
    if type(value) is not int:
        raise ValueError("is neither a whole number nor {min: NUMBER, max: NUMBER}")
    if not 1 <= value <= MOST_REPLICAS:
        raise ValueError(
            f"must be from 1 to {MOST_REPLICAS}; a pool that may have none is written {{min: 0, max: NUMBER}}"
        )
    return value


EnvName = Annotated[str, StringConstraints(pattern=_ENV_NAME)]
Device = Annotated[
    str,
    BeforeValidator(lambda value: str(value) if type(value) is int else value),
    StringConstraints(pattern=r"^[A-Za-z0-9_./:-]+(,[A-Za-z0-9_./:-]+)*$"),
    WithJsonSchema({"type": ["string", "integer"]}),
]
Gpu = Annotated[
    str,
    BeforeValidator(lambda value: str(value) if type(value) is int else value),
    StringConstraints(pattern=r"^([0-9]{1,3}|GPU-[A-Za-z0-9-]{1,64})$"),
    WithJsonSchema({"type": ["string", "integer"]}),
]
MigProfile = Annotated[str, StringConstraints(pattern=PROFILE_PATTERN)]
VllmArgs = Annotated[
    tuple[str, ...],
    BeforeValidator(_check_args),
    Field(strict=False),
    WithJsonSchema(
        {"anyOf": [{"type": "object"}, {"type": "array", "items": {"type": ["string", "number"]}}]}
    ),
]
Network = Annotated[str, StringConstraints(max_length=64), AfterValidator(_check_network)]
HeaderName = Annotated[
    str, AfterValidator(_check_header), WithJsonSchema({"type": "string", "pattern": _HEADER})
]
User = Annotated[str, StringConstraints(min_length=1, max_length=256), AfterValidator(_check_user)]
SourcePrefix = Annotated[str, AfterValidator(_check_source_prefix)]


class Section(BaseModel):
    """A mapping in the file. Refuses unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class ModelSection(Section):
    """What a tenant's name for a model means, and which of its models answers where that cannot."""

    model: Name = Field(description="An adapter or a base model.")
    fallback: Alias | None = Field(
        None,
        description="Another of the tenant's models, which answers while this one cannot; default: none.",
    )


class ReplicasSection(Section):
    """How few and how many replicas a pool has: as many as it needs, which its gateway works out."""

    min: int = Field(ge=0, le=MOST_REPLICAS, description="Fewest; 0: none while nobody asks.")
    max: int = Field(ge=1, le=MOST_REPLICAS, description="Most; the fleet's replicas have their names.")
    hold_s: float = Field(
        HOLD_S,
        gt=0,
        le=3600,
        description="With min 0: how long requests wait for the first replica, where their tenant's "
        "queue_timeout_s is not longer.",
    )

    @model_validator(mode="after")
    def _in_order(self) -> ReplicasSection:
        if self.min > self.max:
            raise ValueError(f"min is {self.min}, above max, which is {self.max}")
        if self.min and "hold_s" in self.model_fields_set:
            raise ValueError("hold_s needs min: 0, since requests are held only while there is no replica")
        return self


class KeySection(Section):
    """An API key: either its sha256, or the environment variable that holds it."""

    model_config = ConfigDict(
        json_schema_extra={"oneOf": [{"required": ["sha256"]}, {"required": ["env"]}]},
    )

    sha256: Sha256 | None = Field(
        None, description="sha256 of the key in hex; `tenantry new-key` prints one."
    )
    env: EnvName | None = Field(None, description="Environment variable that holds the key itself.")

    @model_validator(mode="after")
    def _one_of_two(self) -> KeySection:
        if (self.sha256 is None) == (self.env is None):
            raise ValueError("a key is either {sha256: ...} or {env: NAME}")
        return self


class EnvSection(Section):
    """The environment variable that holds a value."""

    env: EnvName


Model = Annotated[
    ModelSection,
    BeforeValidator(_check_model),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "pattern": _NAME_SCHEMA},
                {
                    "type": "object",
                    "properties": {
                        name: {"type": "string", "pattern": pattern, "description": field.description}
                        for (name, field), pattern in zip(
                            ModelSection.model_fields.items(), (_NAME_SCHEMA, _ALIAS_SCHEMA), strict=True
                        )
                    },
                    "required": ["model"],
                    "additionalProperties": False,
                },
            ]
        }
    ),
]
Replicas: Any = Annotated[
    ReplicasSection,
    WrapValidator(_check_replicas),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 1, "maximum": MOST_REPLICAS},
                {**ReplicasSection.model_json_schema(), "title": "A range"},
            ]
        }
    ),
]
Database = Annotated[
    str | EnvSection,
    PlainValidator(_check_database),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string"},
                {
                    "type": "object",
                    "properties": {"env": {"type": "string", "pattern": _ENV_NAME}},
                    "required": ["env"],
                    "additionalProperties": False,
                },
            ]
        }
    ),
]
