"""Where the demo fleet listens, and whom its keys let in; behind real `bentoml serve`, without engines."""

from __future__ import annotations

import socket
from pathlib import Path

import httpx
import pytest
import yaml

from fleet.api_keys import new_key
from fleet.key_hash import hash_key
from tests.e2e.serving import NOWHERE, ROOT, Service, key_of, serving, wait_until

pytestmark = pytest.mark.engine  # for its time; no engine is started


def own_address() -> str | None:
    """An address of this machine that is not loopback; nothing is sent to find it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return None
        address = str(probe.getsockname()[0])
    return None if address.startswith("127.") else address


def from_elsewhere(service: Service, key: str) -> int | None:
    """Status of a request from another address than loopback; None where nobody listens there."""
    address = own_address()
    if address is None:
        pytest.skip("this machine has no other address than loopback")
    url = service.url.replace("127.0.0.1", address)
    try:
        return httpx.get(f"{url}/v1/models", headers={"authorization": f"Bearer {key}"}).status_code
    except httpx.ConnectError:
        return None


@pytest.mark.parametrize(
    ("host", "env", "status"),
    [(None, {}, None), ("0.0.0.0", {}, 403), (None, {"TENANTRY_DEMO": "1"}, 200)],
    ids=["by default", "with --host", "where it is allowed"],
)
def test_the_demos_keys_are_refused_from_elsewhere_unless_allowed(
    tmp_path: Path, host: str | None, env: dict[str, str], status: int | None
) -> None:
    with serving("service:Gateway", tmp_path, env={**NOWHERE, **env}, host=host, ready=False) as service:
        wait_until(service.is_alive, "life", within_s=120)
        key = {"authorization": f"Bearer {key_of('acme')}"}
        assert service.get("/v1/models", headers=key).status_code == 200
        assert from_elsewhere(service, key_of("acme")) == status
        warnings = [line for line in service.log.read_text().splitlines() if "demo's keys" in line]
        assert len(warnings) == 1


def test_a_fleet_with_keys_of_its_own_listens_everywhere_and_warns_of_nothing(tmp_path: Path) -> None:
    text = (ROOT / "fleet.yaml").read_text().replace(".cache/", f"{ROOT}/.cache/")
    fleet = yaml.safe_load(text)
    keys = {name: new_key() for name in fleet["tenants"]}
    for name, tenant in fleet["tenants"].items():
        tenant["api_keys"] = [{"sha256": hash_key(keys[name])}]
    fleet["gateway"]["operator_keys"] = [{"sha256": hash_key(new_key())}]
    file = tmp_path / "fleet.yaml"
    file.write_text(yaml.safe_dump(fleet))
    with serving(
        "service:Gateway", tmp_path, "--arg", f"fleet={file}", env=NOWHERE, host=None, ready=False
    ) as service:
        wait_until(service.is_alive, "life", within_s=120)
        assert from_elsewhere(service, keys["acme"]) == 200
        assert from_elsewhere(service, key_of("acme")) == 401
        assert "demo's keys" not in service.log.read_text()
