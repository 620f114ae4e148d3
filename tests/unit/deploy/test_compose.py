"""deploy/compose: the files fit together, name what exists, and give nobody more than he needs."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.compose import prometheus
from fleet import load_fleet
from tests.unit.fleet.files import declared, write

FOLDER = Path(prometheus.__file__).parent
COMPOSE: dict[str, Any] = yaml.safe_load((FOLDER / "compose.yaml").read_text())
GPU: dict[str, Any] = yaml.safe_load((FOLDER / "compose.gpu.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
SCRAPED: dict[str, Any] = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
ENVIRONMENT = {
    "TENANTRY_SECRET": "any",
    "TENANTRY_OPERATOR_KEY_FILE": "/dev/null",
    "GRAFANA_PASSWORD": "any",
}
VARIABLE = re.compile(r"\$\{(\w+)(:[-?][^}]*)?\}")


def mounts(service: str) -> dict[str, str]:
    """What lies where in a service: by its path inside, a path here or the name of a volume."""
    found = {}
    for mount in SERVICES[service]["volumes"]:
        source, target, *_ = mount.split(":")
        found[target] = source
    return found


def inside(service: str, path: str) -> Path:
    """Return the file here that a service sees under that path. Raises `AssertionError`."""
    for target, source in mounts(service).items():
        if path == target or path.startswith(f"{target}/"):
            return (FOLDER / source / path[len(target) :].lstrip("/")).resolve()
    raise AssertionError(f"{service} has nothing at {path}")


# -- the whole ---------------------------------------------------------------------------------------------


def test_whatever_is_mounted_exists_and_is_read_only() -> None:
    for service in SERVICES:
        for mount in SERVICES[service]["volumes"]:
            source = mount.split(":")[0]
            if source.startswith("."):
                assert (FOLDER / source).exists(), mount
                assert mount.endswith(":ro"), mount
            else:
                assert source in COMPOSE["volumes"], mount


def test_nobody_has_more_rights_than_he_needs() -> None:
    for name, service in SERVICES.items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["read_only"], name
        assert "privileged" not in service
    assert [name for name, service in SERVICES.items() if "user" in service] == ["state-owner"]
    assert SERVICES["state-owner"]["network_mode"] == "none"


def test_everything_listens_on_this_machine_unless_told_otherwise() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", ())]
    assert len(ports) == 3
    assert all(port.startswith(("127.0.0.1:", "${TENANTRY_BIND:-127.0.0.1}:")) for port in ports)
    assert len({port.split(":")[-2] for port in ports}) == 3


def test_no_secret_is_written_down_and_none_may_be_forgotten() -> None:
    text = (FOLDER / "compose.yaml").read_text()
    for name in ENVIRONMENT:
        assert f"${{{name}:?" in text, name
    for name in re.findall(r"^\s+(\w*(?:SECRET|PASSWORD|KEY|TOKEN)\w*):", text, re.MULTILINE):
        assert re.search(rf"{name}: \$\{{\w+:\?", text), name


def test_every_variable_is_explained_where_it_is_used() -> None:
    text = (FOLDER / "compose.yaml").read_text()
    head = text[: text.index("services:")]
    page = (FOLDER.parents[1] / "docs" / "observability.md").read_text()
    for name, _ in VARIABLE.findall(text):
        assert re.search(rf"^#   {name} ", head, re.MULTILINE), name
        assert name in page, name


def test_the_gpu_file_changes_the_gateway_alone() -> None:
    assert set(GPU) == {"services"} and set(GPU["services"]) == {"gateway"}


@pytest.mark.parametrize("files", [["compose.yaml"], ["compose.yaml", "compose.gpu.yaml"]])
def test_compose_takes_it(files: list[str]) -> None:
    compose = ["docker", "compose"]
    if (
        shutil.which("docker") is None
        or subprocess.run([*compose, "version"], capture_output=True).returncode
    ):
        pytest.skip("docker compose is not installed")
    command = [*compose, *(part for name in files for part in ("-f", name)), "config", "--quiet"]
    done = subprocess.run(
        command, cwd=FOLDER, env={**os.environ, **ENVIRONMENT}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


# -- Prometheus --------------------------------------------------------------------------------------------


def test_what_is_scraped_is_written_by_the_code_for_the_demo() -> None:
    written = (FOLDER / "prometheus.yml").read_text()
    assert written == prometheus.configuration(load_fleet(prometheus.DEMO)), (
        "python -m deploy.compose.prometheus"
    )


def test_a_fleets_own_replicas_are_scraped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prometheus, "FOLDER", tmp_path)
    data = declared()
    data["pools"]["shared"]["replicas"] = 2
    assert prometheus.main([str(write(tmp_path, data))]) == 0
    scraped = yaml.safe_load((tmp_path / "prometheus.yml").read_text())
    (targets,) = scraped["scrape_configs"][1]["static_configs"]
    assert targets["targets"] == ["shared-0", "shared-1", "alone-0", "whole-0"]


def test_a_fleet_with_a_mistake_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(prometheus, "FOLDER", tmp_path)
    assert prometheus.main([str(write(tmp_path, {**declared(), "nonsense": 1}))]) == 1
    assert "nonsense" in capsys.readouterr().err
    assert not (tmp_path / "prometheus.yml").exists()


def test_prometheus_scrapes_the_gateway_where_it_listens() -> None:
    host, port = prometheus.GATEWAY.split(":")
    (published,) = SERVICES[host]["ports"]
    assert published.endswith(f":{port}")
    text = (FOLDER / "prometheus.yml").read_text()
    assert text.count(prometheus.GATEWAY) == 2 and "localhost" not in text


def test_prometheus_finds_its_rules_and_its_key() -> None:
    config = next(part for part in SERVICES["prometheus"]["command"] if "config.file" in part)
    at = config.partition("=")[2]
    assert inside("prometheus", at) == FOLDER / "prometheus.yml"
    for rules in SCRAPED["rule_files"]:
        assert inside("prometheus", f"{Path(at).parent}/{rules}").is_file()
    (secret,) = SERVICES["prometheus"]["secrets"]
    assert secret["source"] in COMPOSE["secrets"]
    for job in SCRAPED["scrape_configs"]:
        assert job["authorization"]["credentials_file"] == secret["target"]


# -- Grafana -----------------------------------------------------------------------------------------------


def test_grafana_asks_prometheus_where_it_listens() -> None:
    path = inside("grafana", "/etc/grafana/provisioning/datasources/tenantry.yml")
    (source,) = yaml.safe_load(path.read_text())["datasources"]
    (published,) = SERVICES["prometheus"]["ports"]
    assert source["url"] == f"http://prometheus:{published.rpartition(':')[2]}"
    assert source["isDefault"] is True
    interval = SCRAPED["global"]["scrape_interval"]
    assert source["jsonData"]["timeInterval"] == interval


def test_grafana_finds_every_dashboard_and_their_data_source() -> None:
    path = inside("grafana", "/etc/grafana/provisioning/dashboards/tenantry.yml")
    (provider,) = yaml.safe_load(path.read_text())["providers"]
    folder = inside("grafana", provider["options"]["path"])
    boards = {file.name: json.loads(file.read_text()) for file in folder.iterdir()}
    assert set(boards) == {"fleet.json", "model.json", "tenant.json"}
    for board in boards.values():
        kinds = [v["query"] for v in board["templating"]["list"] if v["type"] == "datasource"]
        assert kinds == ["prometheus"], "found by its kind: the default is taken"
    home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert inside("grafana", home).is_file()
