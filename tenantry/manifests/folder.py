"""Which objects are in which file of a kustomize base; writes them, and removes what it wrote before."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import yaml

from tenantry.manifests.engines import engines
from tenantry.manifests.gateway import gateway
from tenantry.manifests.monitoring import pod_monitor, rules
from tenantry.manifests.network import namespace, network
from tenantry.manifests.scaling import scaled_object
from tenantry.manifests.site import Object, Site, SiteError
from tenantry.manifests.ways_in import http_route, ingress

HEAD = (
    "# Written by `tenantry manifests`, once more when the fleet file has changed: change it in an overlay.\n"
)
_KUSTOMIZATION, _NAMESPACE = "kustomization.yaml", "namespace.yaml"
_MONITORING, _EXAMPLES = "monitoring", "examples"
# What kubectl reads as a number or as true and false, and YAML 1.1 as a text.
_NO_TEXT = re.compile(r"[yYnN]|[-+]?(0[xXoObB][0-9a-fA-F_]+|[0-9_]*\.?[0-9_]*([eE][-+]?[0-9]+)?)")


def files_of(sites: Sequence[Site]) -> dict[str, str]:
    """Return the text of each file, by its path in the folder. Raises `SiteError`."""
    namespaces = sorted({site.namespace for site in sites})
    files = {_KUSTOMIZATION: _kustomization(namespaces)}
    for name in namespaces:
        if name in (_MONITORING, _EXAMPLES):
            raise SiteError(f"namespace {name}: a folder of the base is called so; choose another namespace")
        here = [site for site in sites if site.namespace == name]
        objects: dict[str, list[Object]] = {_NAMESPACE: namespace(name)}
        for site in here:
            pool = site.pool.name
            objects[f"{pool}-engines.yaml"] = engines(site)
            objects[f"{pool}-gateway.yaml"] = gateway(site)
            objects[f"{pool}-network.yaml"] = network(site)
            if (scaled := scaled_object(site)) is not None:
                objects[f"{pool}-scaling.yaml"] = [scaled]
        _check_names(name, objects)
        files[f"{name}/{_KUSTOMIZATION}"] = _kustomization(objects)
        files |= {f"{name}/{file}": _text(those) for file, those in objects.items()}
    watched = {f"{site.pool.name}-pods.yaml": [pod_monitor(site)] for site in sites}
    watched = {**watched, "rules.yaml": [rules(namespaces[0])]}
    files[f"{_MONITORING}/{_KUSTOMIZATION}"] = _kustomization(watched)
    files |= {f"{_MONITORING}/{file}": _text(those) for file, those in watched.items()}
    for site in sites:
        files[f"{_EXAMPLES}/{site.pool.name}-ingress.yaml"] = _text([ingress(site)])
        files[f"{_EXAMPLES}/{site.pool.name}-httproute.yaml"] = _text([http_route(site)])
    return files


def write(folder: Path, files: Mapping[str, str]) -> None:
    """Write the files, and remove what an earlier run wrote and this one does not.

    Raises `SiteError`, with nothing changed, where a file of somebody else stands in the way; `OSError`.
    """
    before = {*_written_before(folder)}
    wanted = {folder / name: text for name, text in files.items()}
    foreign = sorted(path for path in wanted if path.exists() and not _is_ours(path))
    if foreign:
        raise SiteError(
            f"{foreign[0]} was not written by this command; move it away, or choose another folder"
        )
    for path, text in wanted.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for path in before - wanted.keys():
        path.unlink()
        if not any(path.parent.iterdir()):
            path.parent.rmdir()


def _written_before(folder: Path) -> Iterator[Path]:
    """Yield what an earlier run wrote. A folder below may be another base, whose files are not its own."""
    own = [folder / _MONITORING, folder / _EXAMPLES]
    own += [path.parent for path in folder.glob(f"*/{_NAMESPACE}") if _is_ours(path)]
    for place in (folder, *own):
        yield from filter(_is_ours, place.glob("*.yaml"))


def _check_names(namespace: str, objects: Mapping[str, Sequence[Object]]) -> None:
    """Raise `SiteError` where two objects of a namespace share a name, as that of a pool and one of ours."""
    named = [(one["kind"], one["metadata"]["name"]) for those in objects.values() for one in those]
    for (kind, name), number in Counter(named).items():
        if number > 1:
            raise SiteError(f"{kind} {name} would be there twice in namespace {namespace}; rename the pool")


def _is_ours(path: Path) -> bool:
    if not path.is_file():
        return False
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
    """Writes an object that occurs twice in full both times, and quotes texts that some read as no text."""

    def ignore_aliases(self, data: object) -> bool:
        """Never refer to what was written before."""
        return True


def _quoted(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    style = "'" if _NO_TEXT.fullmatch(text) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Plain.add_representer(str, _quoted)
