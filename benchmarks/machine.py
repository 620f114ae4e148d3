"""What did a figure come from? The machine, the commit and the arguments, for the head of every report."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True, slots=True)
class Origin:
    """Where and from what a benchmark ran."""

    cpu: str
    cores: int
    memory_gib: float
    kernel: str
    python: str
    commit: str
    arguments: str

    def lines(self) -> list[str]:
        """For the head of a report."""
        return [
            f"machine    {self.cpu}, {self.cores} cores, {self.memory_gib:.1f} GiB, Linux {self.kernel}",
            f"commit     {self.commit}, Python {self.python}",
            f"arguments  {self.arguments or '(none)'}",
        ]


def cpu_model(cpuinfo: str) -> str:
    """The model name in the text of /proc/cpuinfo, or the architecture where it has none."""
    for line in cpuinfo.splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def commit(root: Path = ROOT) -> str:
    """The commit of the working tree, `+ changes` when it has any, or `unknown` outside git."""
    git = shutil.which("git")
    if git is None:
        return "unknown"

    def ask(*words: str) -> str:
        done = subprocess.run([git, "-C", str(root), *words], capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else ""

    head = ask("rev-parse", "--short=12", "HEAD")
    if not head:
        return "unknown"
    return f"{head} + changes" if ask("status", "--porcelain", "--untracked-files=no") else head


def origin(arguments: list[str] | None = None) -> Origin:
    """Describe this machine, this commit and this command line."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return Origin(
        cpu=cpu_model(Path("/proc/cpuinfo").read_text()),
        cores=os.cpu_count() or 1,
        memory_gib=pages / 2**30,
        kernel=platform.release(),
        python=platform.python_version(),
        commit=commit(),
        arguments=" ".join(sys.argv[1:] if arguments is None else arguments),
    )
