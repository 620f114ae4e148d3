"""Environments of the clients, made once each from their pinned requirements, far from the product's own."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

HERE = Path(__file__).parent
CACHE = HERE.parents[1] / ".cache" / "clients"
NODE = HERE / "node"
VLLM = "0.32.0"  # whose tests are run: the release that the locks have
# What finds torch, and what else it lacks, in the product's environment: its wheels are gigabytes.
BORROWERS = frozenset({"guidellm", "sdist"})
# Models of a hub in vLLM's tests, by the name of the constant.
_MODEL = "MODEL_NAME = __import__('os').environ['CLIENT_MODEL']  # was: "


def python_of(name: str) -> str:
    """Return the interpreter of an environment, which is made where it is absent or its requirements changed.

    Raises `subprocess.CalledProcessError`.
    """
    if name == "product":
        return sys.executable
    wanted = (HERE / "requirements" / f"{name}.txt").read_text()
    folder = CACHE / name
    python, stamp = folder / "bin" / "python", folder / "stamp"
    digest = hashlib.sha256(wanted.encode()).hexdigest()
    if not stamp.exists() or stamp.read_text() != digest:
        shutil.rmtree(folder, ignore_errors=True)
        _run(sys.executable, "-m", "venv", str(folder))
        locked = str(HERE / "requirements" / f"{name}.txt")
        _run(str(python), "-m", "pip", "install", "-q", "--no-deps", "-r", locked)
        if name in BORROWERS:
            own = next((folder / "lib").glob("python*/site-packages"))
            (own / "zz_product.pth").write_text(sysconfig.get_path("purelib"))
        stamp.write_text(digest)
    return str(python)


def node_folder() -> Path:
    """Return the folder with the Node.js clients and what they import."""
    folder, lock = CACHE / "node", NODE / "package-lock.json"
    folder.mkdir(parents=True, exist_ok=True)
    installed = folder / "installed.json"
    for file in NODE.iterdir():
        if file.is_file():
            shutil.copy(file, folder)
    if not installed.exists() or installed.read_text() != lock.read_text():
        _run("npm", "ci", "--no-audit", "--no-fund", "--silent", cwd=folder)
        installed.write_text(lock.read_text())
    return folder


def vllm_tests() -> Path:
    """Return the folder that holds vLLM's `tests`, from its source package, for whatever model runs."""
    folder = CACHE / f"vllm-{VLLM}"
    if not (folder / "tests").exists():
        fetched = CACHE / "sdist-files"
        command = (python_of("sdist"), "-m", "pip", "download", "-q", "--no-deps", "--no-build-isolation")
        environment = ("env", "VLLM_TARGET_DEVICE=empty", f"VLLM_VERSION_OVERRIDE={VLLM}")
        _run(*environment, *command, "--no-binary", "vllm", "--dest", str(fetched), f"vllm=={VLLM}")
        folder.mkdir(parents=True, exist_ok=True)
        archive = str(fetched / f"vllm-{VLLM}.tar.gz")
        _run("tar", "xzf", archive, "-C", str(folder), "--strip-components=1", f"vllm-{VLLM}/tests")
        for path in (folder / "tests" / "entrypoints").rglob("test_*.py"):
            text = path.read_text()
            path.write_text(text.replace('\nMODEL_NAME = "', f'\n{_MODEL}"'))
    return folder


def _run(*command: str, cwd: Path | None = None) -> None:
    print("  $", " ".join(command[:8]), "…", flush=True)
    subprocess.run(command, check=True, cwd=cwd)
