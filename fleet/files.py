"""Checks the folders that a fleet names. Reads them; loads no weights.

Hub ids and URLs are not checked: they are fetched when the fleet is served.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from adapters.base_model import find_weight_bytes
from adapters.checkpoint import inspect_adapter
from adapters.errors import AdapterError
from fleet.mig import most_memory_bytes
from fleet.problems import Findings, KeyPath, Problem
from fleet.schema import BaseModelSection, FleetFile
from fleet.sources import is_hub_id, is_url, shortened, why_no_folder
from fleet.types import Fleet
from fleet.vllm_flags import resizes_weights

_NO_FOLDER = "correct the path (`make demo` makes the demo's models)"


def check_files(
    fleet: Fleet, *, file: str = "fleet.yaml", lines: dict[KeyPath, int] | None = None
) -> list[Problem]:
    """List the faults of a fleet's folders; `file` and `lines` locate each declaration."""
    findings = Findings(file, lines)
    models = fleet.base_models.values()
    sources: dict[KeyPath, str] = {("base_models", model.name): model.source for model in models}
    sources |= {("adapters", adapter.name): adapter.source for adapter in fleet.adapters.values()}
    ranks = {model.name: model.max_lora_rank for model in models}
    most = {name: (adapter.base_model, ranks[adapter.base_model]) for name, adapter in fleet.adapters.items()}
    check_folders(sources, most, findings)
    return findings.errors


def check_folders(
    sources: Mapping[KeyPath, str], most: Mapping[str, tuple[str, int]], findings: Findings
) -> None:
    """Check the folders' contents, each declared at its path.

    `most` gives each adapter's base model and that model's largest rank, where known.
    """
    for path, source in sources.items():
        if path[0] == "base_models" and not (is_hub_id(source) or is_url(source)):
            _check_base_model((*path, "source"), Path(source), findings)
        elif path[0] == "adapters" and not is_url(source):
            _check_adapter((*path, "source"), Path(source), most.get(str(path[1])), findings)


def check_slice_sizes(file: FleetFile, sources: Mapping[KeyPath, str], findings: Findings) -> None:
    """Check that each base model is smaller than its slices, where its weights and their profile are known.

    `sources` has the resolved source of each valid section.
    """
    for name, pool in file.pools.items():
        if pool.mig is None:
            continue
        for base_model in pool.base_models:
            section, source = file.base_models.get(base_model), sources.get(("base_models", base_model))
            if section is not None and source is not None and not resizes_weights(section.vllm_args):
                why = _why_too_large(section, source, most_memory_bytes(pool.mig.profile))
                if why:
                    findings.error(
                        ("pools", name, "mig", "profile"),
                        f"{why} of `{base_model}` do not fit a slice {pool.mig.profile}",
                        "use a larger profile, or a smaller model",
                    )


def _why_too_large(model: BaseModelSection, source: str, most_bytes: int) -> str:
    """Name what of a model is too large; "" where nothing is, or nobody knows."""
    try:
        weights = find_weight_bytes(source, model.revision, dtype=model.dtype)
    except AdapterError:
        return ""  # the engine says what is wrong with them
    cache_gib = model.kv_cache_gib or 0
    if weights is None or weights + cache_gib * 2**30 < most_bytes or cache_gib * 2**30 >= most_bytes:
        return ""  # `slice_rules` knows a cache that is too large by itself
    cache = f" and the KV cache ({cache_gib:g} GiB)" if cache_gib else ""
    return f"the weights ({weights / 2**30:.1f} GiB){cache}"


def _check_base_model(path: KeyPath, folder: Path, findings: Findings) -> None:
    trouble = why_no_folder(folder)
    if trouble is not None:
        findings.error(path, trouble, _NO_FOLDER, hides=True)
        return
    try:
        has_config = (folder / "config.json").is_file()
    except OSError as error:
        findings.error(path, f"{folder}/config.json cannot be read: {error.strerror}", hides=True)
        return
    if not has_config:
        findings.error(path, f"{folder} has no config.json", "name the folder that holds the model itself")


def _check_adapter(path: KeyPath, folder: Path, most: tuple[str, int] | None, findings: Findings) -> None:
    trouble = why_no_folder(folder)
    if trouble is not None:
        findings.error(path, trouble, _NO_FOLDER, hides=True)
        return
    try:
        manifest = inspect_adapter(folder)
    except AdapterError as error:
        findings.error(path, str(error), hides=True)
        return
    except (OSError, RuntimeError, ValueError) as error:  # loops of links, names that no path can have
        reason = getattr(error, "strerror", None) or str(error)
        findings.error(path, f"{folder} cannot be read: {shortened(reason)}", hides=True)
        return
    if most is not None and manifest.rank > most[1]:
        findings.error(
            path,
            f"the adapter has rank {manifest.rank}, its base model takes at most {most[1]}",
            f"set base_models.{most[0]}.max_lora_rank to {manifest.rank} or more",
        )
