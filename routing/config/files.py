"""Do the folders that a fleet names hold what they should? Reads them; loads no weights.

What lies on a hub or behind a URL is not looked at: it is fetched when the fleet is served.
"""

from __future__ import annotations

from pathlib import Path

from adapters.checkpoint import inspect_adapter
from adapters.errors import AdapterError
from adapters.types import Adapter, BaseModel
from routing.config.problems import Findings, KeyPath, Problem
from routing.config.sources import is_hub_id, is_url
from routing.types import Fleet

_NO_FOLDER = "correct the path (`make demo` makes the demo's models)"


def check_files(
    fleet: Fleet, *, file: str = "fleet.yaml", lines: dict[KeyPath, int] | None = None
) -> list[Problem]:
    """List what is wrong with the folders of a fleet; `file` and `lines` say where each is declared."""
    findings = Findings(file, lines)
    for model in fleet.base_models.values():
        _check_base_model(model, findings)
    for adapter in fleet.adapters.values():
        _check_adapter(adapter, fleet.base_models[adapter.base_model], findings)
    return findings.errors


def _check_base_model(model: BaseModel, findings: Findings) -> None:
    if is_hub_id(model.source):
        return
    folder = Path(model.source)
    path = ("base_models", model.name, "source")
    if not folder.is_dir():
        findings.error(path, f"there is no folder {folder}", _NO_FOLDER)
    elif not (folder / "config.json").is_file():
        findings.error(path, f"{folder} has no config.json", "name the folder that holds the model itself")


def _check_adapter(adapter: Adapter, base_model: BaseModel, findings: Findings) -> None:
    if is_url(adapter.source):
        return
    path = ("adapters", adapter.name, "source")
    if not Path(adapter.source).is_dir():
        findings.error(
            path,
            f"there is no folder {adapter.source}",
            _NO_FOLDER,
        )
        return
    try:
        manifest = inspect_adapter(Path(adapter.source))
    except AdapterError as error:
        findings.error(path, str(error))
        return
    if manifest.rank > base_model.max_lora_rank:
        findings.error(
            path,
            f"the adapter has rank {manifest.rank}, its base model takes at most {base_model.max_lora_rank}",
            f"set base_models.{base_model.name}.max_lora_rank to {manifest.rank} or more",
        )
