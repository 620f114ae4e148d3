"""The command `manifests`: Kubernetes objects of a fleet, as a kustomize base."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fleet import FleetError
from tenantry.bundle import Platform
from tenantry.fleets import fail, load, refuse
from tenantry.manifests.cluster import ClusterError, read_cluster
from tenantry.manifests.folder import files_of, write
from tenantry.manifests.site import Site, SiteError, sites_of


def manifests(
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder to write.")],
    pool: Annotated[str | None, typer.Option(help="Write this pool alone.", show_default="all pools")] = None,
    fleet: Annotated[Path, typer.Option(help="Fleet file.")] = Path("fleet.yaml"),
    cluster: Annotated[
        Path | None,
        typer.Option(help="File with images, sizes and nodes of the cluster.", show_default="none"),
    ] = None,
    platform: Annotated[Platform, typer.Option(help="What engines run on.")] = "gpu",
) -> None:
    """Write a kustomize base for Kubernetes: each pool's engines and gateway, and who may speak to whom."""
    loaded = load(fleet)
    try:
        sites = sites_of(
            loaded.fleet,
            [pool] if pool else list(loaded.fleet.pools),
            read_cluster(cluster),
            on_gpu=platform == "gpu",
            key_variables=loaded.key_variables,
        )
        write(output, files_of(sites))
    except FleetError as error:
        refuse(error.problems, may_be_more=error.may_be_more)
        raise
    except (ClusterError, SiteError) as error:
        fail(str(error))
    except OSError as error:
        fail(f"{error.filename or output}: {error.strerror}")
    typer.echo(_next_steps(output, sites))


def _next_steps(output: Path, sites: list[Site]) -> str:
    """Say what is to be done before the objects are applied."""
    lines = [f"{output} holds {len(sites)} pool{'s' if len(sites) > 1 else ''}. What it needs besides:"]
    for site in sites:
        keys = " ".join(["TENANTRY_SECRET", *site.variables])
        lines.append(f"  image {site.image}; Secret {site.secret} in namespace {site.namespace}: {keys}")
    return "\n".join([*lines, f"  kubectl apply -k {output}"])
