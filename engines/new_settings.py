"""Checks the settings that the gateway gives an engine's host, by the rules of fleet files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from pydantic import ValidationError

from fleet import schema
from fleet.entries import base_model_from
from fleet.types import BaseModel
from fleet.values import ENGINE_SETTINGS


def with_weights(model: BaseModel, source: object, revision: object) -> BaseModel:
    """Return the base model with its weights elsewhere: in a folder, or at the hub. Raises `ValueError`."""
    if not isinstance(source, str) or not source or "://" in source or not source.isprintable():
        raise ValueError("source: neither a folder nor a hub id")
    if revision is not None and (not isinstance(revision, str) or not revision.isprintable()):
        raise ValueError("revision: no text")
    return replace(model, source=source, revision=revision)


def with_settings(model: BaseModel, values: object) -> BaseModel:
    """Return the base model with these settings of its engines, all of them; its weights stay.

    Raises `ValueError`, whose words name each setting that is wrong and none of their values.
    """
    if not isinstance(values, Mapping):
        raise ValueError("not a mapping of settings")
    if unknown := sorted(str(name)[:40] for name in values if name not in ENGINE_SETTINGS):
        raise ValueError(f"not settings of an engine: {', '.join(unknown)}")
    try:
        section = schema.BaseModelSection.model_validate({**values, "source": "/unused"})
    except ValidationError as error:
        wrong = sorted({str(each["loc"][0]) for each in error.errors(include_input=False)})
        raise ValueError(f"wrong values: {', '.join(wrong)}") from None
    made = base_model_from(model.name, section, model.source)
    if made.kv_cache_bytes == 0:
        raise ValueError("wrong values: kv_cache_gib")  # less than a byte
    if made.max_cpu_loras < made.max_loras:
        raise ValueError("max_cpu_loras is less than max_loras")
    return replace(
        made,
        revision=model.revision,
        media_tokens=model.media_tokens,
        request_limits=model.request_limits,
    )
