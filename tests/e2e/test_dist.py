"""The command as a wheel, in an environment of its own: it works there, without vLLM and BentoML."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import venv
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tenantry import __version__
from tests.adapter_kinds import good

ROOT = Path(__file__).parents[2]
HEAVY = ("vllm", "torch", "transformers", "bentoml", "_bentoml_sdk", "sqlalchemy", "uvloop")
KEY = "an-operators-key"
pytestmark = pytest.mark.network


@dataclass(frozen=True)
class Installed:
    """An environment with the wheel in it, outside of the checkout."""

    folder: Path

    def run(self, *command: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Run a program of the environment."""
        inherited = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
        return subprocess.run(
            [str(self.folder / "bin" / command[0]), *command[1:]],
            cwd=self.folder,
            env={**inherited, **env},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def says(self, *command: str, **env: str) -> str:
        """What `tenantry` prints; it ends well."""
        done = self.run("tenantry", *command, **env)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `make dist` builds."""
    folder = tmp_path_factory.mktemp("dist")
    programs = Path(sys.executable).parent
    command = ["make", "-s", "-o", "setup", "-o", "dev", "dist", f"DIST={folder}", f"BIN={programs}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def installed(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """The wheel, with what it asks for from the package index."""
    folder = tmp_path_factory.mktemp("environment") / "with space"
    venv.create(folder, with_pip=True)
    environment = Installed(folder)
    pip = ("python", "-m", "pip", "--disable-pip-version-check", "--no-input")
    asked = environment.run(*pip, "download", "-q", "--no-deps", "-d", str(folder / "asked"), "typer")
    if asked.returncode:
        pytest.skip(f"no package index answers: {asked.stderr.strip().splitlines()[-1]}")
    (wheel,) = dist.glob("*.whl")
    done = environment.run(*pip, "install", "-q", str(wheel))
    assert done.returncode == 0, done.stderr
    return environment


@pytest.fixture
def gateway() -> Iterator[str]:
    """Answers the admin API's question for replicas, to whoever has the key."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            known = self.headers["authorization"] == f"Bearer {KEY}"
            assert self.path == "/admin/v1/replicas"
            body = json.dumps({"data": []} if known else {"error": {"message": "no", "code": "no"}}).encode()
            self.send_response(200 if known else 401)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_release_is_a_wheel_and_an_sdist_of_one_version(dist: Path) -> None:
    assert {path.name for path in dist.iterdir() if not path.name.startswith(".")} == {
        f"tenantry-{__version__}-py3-none-any.whl",
        f"tenantry-{__version__}.tar.gz",
    }


def test_it_is_the_release_that_it_says(installed: Installed) -> None:
    assert installed.says("--version") == f"tenantry {__version__}\n"
    shown = installed.run("python", "-c", "import importlib.metadata as m; print(m.version('tenantry'))")
    assert shown.stdout.strip() == __version__


def test_nothing_heavy_is_installed_or_imported(installed: Installed) -> None:
    program = (
        "import importlib.util, pkgutil, sys, tenantry\n"
        "for module in pkgutil.iter_modules(tenantry.__path__, 'tenantry.'):\n"
        "    name = module.name.removeprefix('tenantry.')\n"
        "    name in ('__main__', 'plan_making', 'plan_watching') or __import__(module.name)\n"
        f"print([name for name in {HEAVY} if name in sys.modules or importlib.util.find_spec(name)])"
    )
    done = installed.run("python", "-c", program)
    assert (done.stdout, done.stderr) == ("[]\n", "")
    assert installed.run("python", "-m", "pip", "check").returncode == 0


def test_it_checks_and_begins_fleets(installed: Installed, tmp_path: Path) -> None:
    example = ROOT / "docs" / "examples" / "llama-3-8b-h100.yaml"
    assert "bastion" in installed.says("check", str(example), "--no-files", "--no-keys")
    assert "helios" in installed.says("who-shares", str(example))
    fleet = str(tmp_path / "fleet.yaml")
    assert "tnt_" in installed.says("init", "-o", fleet)
    assert "qwen" in installed.says("check", fleet)
    assert json.loads(installed.says("schema"))["title"]
    assert installed.says("metrics") == (ROOT / "docs" / "metrics.md").read_text()


def test_it_verifies_adapters_before_they_travel(installed: Installed, tmp_path: Path) -> None:
    folder = str(good().write(tmp_path / "support"))
    assert "can be served" in installed.says("adapters", "verify", folder)
    kept = installed.run("tenantry", "adapters", "export", folder)
    assert kept.returncode == 1 and "bentoml, which is not installed" in kept.stderr
    assert "add" in installed.says("adapters", "--help")


def test_it_asks_a_gateway(installed: Installed, gateway: str) -> None:
    assert installed.says("replicas", "--json", "--url", gateway, TENANTRY_ADMIN_KEY=KEY) == "[]\n"
    refused = installed.run("tenantry", "replicas", "--url", gateway, TENANTRY_ADMIN_KEY="another")
    assert refused.returncode == 1 and "TENANTRY_ADMIN_KEY" in refused.stderr


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("serve",), "cannot serve"),
        (("build",), "fleet.yaml"),
        (("adapters", "import-bento", "support:1"), "bentoml, which is not installed"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_what_needs_more_is_one_sentence(
    installed: Installed, gateway: str, command: tuple[str, ...], said: str
) -> None:
    done = installed.run("tenantry", *command, TENANTRY_ADMIN_KEY=KEY, TENANTRY_URL=gateway)
    assert done.returncode == 1
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
