"""Which objects are in which file of a kustomize base; writes them, and removes what it wrote before."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import yaml

from tenantry.manifests.engines import engines
from tenantry.manifests.gateway import gateway
from tenantry.manifests.monitoring import pod_monitor, rules
from tenantry.manifests.network import namespace, network
from tenantry.manifests.site import Object, Site, SiteError
from tenantry.manifests.ways_in import http_route, ingress

HEAD = (
    "# Written by `tenantry manifests`, once more when the fleet file has changed: change it in an overlay.\n"
)
_KUSTOMIZATION = "kustomization.yaml"


def files_of(sites: Sequence[Site]) -> dict[str, str]:
    """Return the text of each file, by its path in the folder. Raises `SiteError`."""
    namespaces = sorted({site.namespace for site in sites})
    files = {_KUSTOMIZATION: _kustomization(namespaces)}
    for name in namespaces:
        here = [site for site in sites if site.namespace == name]
        objects: dict[str, list[Object]] = {"namespace.yaml": namespace(name)}
        for site in here:
            pool = site.pool.name
            objects[f"{pool}-engines.yaml"] = engines(site)
            objects[f"{pool}-gateway.yaml"] = gateway(site)
            objects[f"{pool}-network.yaml"] = network(site)
        files[f"{name}/{_KUSTOMIZATION}"] = _kustomization(objects)
        files |= {f"{name}/{file}": _text(those) for file, those in objects.items()}
    watched = {f"{site.pool.name}.yaml": [pod_monitor(site)] for site in sites}
    watched = {**watched, "rules.yaml": [rules(namespaces[0])]}
    files[f"monitoring/{_KUSTOMIZATION}"] = _kustomization(watched)
    files |= {f"monitoring/{file}": _text(those) for file, those in watched.items()}
    for site in sites:
        files[f"examples/{site.pool.name}-ingress.yaml"] = _text([ingress(site)])
        files[f"examples/{site.pool.name}-httproute.yaml"] = _text([http_route(site)])
    return files


def write(folder: Path, files: Mapping[str, str]) -> None:
    """Write the files, and remove what an earlier run wrote and this one does not.

    Raises `SiteError`, with nothing changed, where a file of somebody else stands in the way; `OSError`.
    """
    before = {path for path in folder.rglob("*.yaml") if path.is_file() and _is_ours(path)}
    wanted = {folder / name: text for name, text in files.items()}
    foreign = sorted(path for path in wanted if path.exists() and path not in before)
    if foreign:
        raise SiteError(
            f"{foreign[0]} was not written by this command; move it away, or choose another folder"
        )
    for path, text in wanted.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for path in before - wanted.keys():
        path.unlink()


def _is_ours(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(HEAD)) == HEAD.encode()


def _kustomization(resources: Iterable[str]) -> str:
    return _text([
        {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "resources": list(resources),
        }
    ])  # fmt: skip


def _text(objects: Sequence[Object]) -> str:
    return HEAD + yaml.dump_all(objects, Dumper=_Plain, sort_keys=False, width=110)


class _Plain(yaml.SafeDumper):
    """Writes an object that occurs twice in full both times."""

    def ignore_aliases(self, data: object) -> bool:
        """Never refer to what was written before."""
        return True
