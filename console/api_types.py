"""How do the admin API's answers look in TypeScript? Prints console/src/types.ts, for `make console`.

python -m console.api_types > console/src/types.ts
"""

from __future__ import annotations

import json
import sys
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from routing.admin.answers import (
    AdapterAnswer,
    AdapterList,
    EventList,
    ReplicaList,
    VersionAnswer,
)
from routing.admin.batches import BatchList
from routing.admin.key_answers import KeyList, NewKeyAnswer
from routing.admin.live_answers import LiveDecisions, LiveHistory, LiveSnapshot
from routing.admin.models import ModelList, WakeList
from routing.admin.plan_documents import PlanKept
from routing.admin.tenant_answers import AliasList, TenantChangedAnswer, TenantDetail, TenantList
from routing.admin.usage import UsageAnswer
from routing.admin.whoami import WhoAmIAnswer

# The answers that the console reads; what they are made of comes with them.
ANSWERS: tuple[type[BaseModel], ...] = (
    LiveSnapshot,
    LiveHistory,
    LiveDecisions,
    AdapterList,
    AdapterAnswer,
    AliasList,
    BatchList,
    EventList,
    KeyList,
    ModelList,
    NewKeyAnswer,
    PlanKept,
    ReplicaList,
    TenantChangedAnswer,
    TenantDetail,
    TenantList,
    UsageAnswer,
    VersionAnswer,
    WakeList,
    WhoAmIAnswer,
)
HEAD = """\
// Made by `make console` from the admin API's answers (console/api_types.py). Every field is always there,
// except those of usage that were not asked for.
"""


def types() -> str:
    """Return console/src/types.ts."""
    schemas = models_json_schema([(model, "serialization") for model in ANSWERS], ref_template="{model}")[1]
    return HEAD + "".join(_declared(name, schema) for name, schema in sorted(schemas["$defs"].items()))


def _declared(name: str, schema: dict[str, Any]) -> str:
    if "properties" not in schema:
        return f"\nexport type {name} = {_type(schema)};\n"
    fields = "".join(f"  {field}: {_type(value)};\n" for field, value in schema["properties"].items())
    return f"\nexport interface {name} {{\n{fields}}}\n"


def _type(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        return str(schema["$ref"])
    if "const" in schema or "enum" in schema:
        return " | ".join(json.dumps(value) for value in schema.get("enum", [schema.get("const")]))
    if "anyOf" in schema:
        return " | ".join(map(_type, schema["anyOf"]))
    if "type" not in schema:
        return "unknown"
    if schema["type"] == "array":
        items = _type(schema["items"])
        return f"({items})[]" if " | " in items else f"{items}[]"
    if schema["type"] == "object":
        return f"Record<string, {_type(schema['additionalProperties'])}>"
    return "number" if schema["type"] == "integer" else str(schema["type"])


if __name__ == "__main__":
    sys.stdout.write(types())
