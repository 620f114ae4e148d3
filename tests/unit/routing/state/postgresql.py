"""A throw-away PostgreSQL server on this machine. It refuses to run as root, so another user runs it."""

from __future__ import annotations

import glob
import os
import pwd
import secrets
import shutil
import socket
import subprocess
from pathlib import Path

import psycopg


class Server:
    """One server with databases for the taking; every connection needs the password."""

    def __init__(self, programs: Path, folder: Path) -> None:
        self._programs = programs
        self._data = folder / "data"
        self._user = _other_user() if os.geteuid() == 0 else None
        self.password = "p@ss-" + secrets.token_hex(8)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        word = folder / "word"
        word.write_text(self.password)
        if self._user is not None:
            for path in (folder, word):
                shutil.chown(path, self._user)
        self._run(
            "initdb", "-D", self._data, "-U", "tenantry", "-A", "scram-sha-256", "--pwfile", word,
            "--no-sync", "-E", "UTF8", "--locale", "C",
        )  # fmt: skip

    def start(self) -> None:
        """Start it; returns when it answers."""
        options = f"-h 127.0.0.1 -p {self.port} -k '' -F -c max_connections=30"
        self._run("pg_ctl", "-D", self._data, "-w", "-l", self._data / "log", "-o", options, "start")

    def stop(self) -> None:
        """Stop it at once, under whatever is connected; done twice it does nothing."""
        if (self._data / "postmaster.pid").exists():
            self._run("pg_ctl", "-D", self._data, "-w", "-m", "immediate", "stop")

    def url(self, database: str, password: str | None = None) -> str:
        """Return the SQLAlchemy URL of a database."""
        word = (self.password if password is None else password).replace("@", "%40")
        return f"postgresql+psycopg://tenantry:{word}@127.0.0.1:{self.port}/{database}"

    def connect(self, database: str) -> psycopg.Connection:
        """Connect without SQLAlchemy; statements take effect at once."""
        return psycopg.connect(
            host="127.0.0.1",
            port=self.port,
            user="tenantry",
            password=self.password,
            dbname=database,
            autocommit=True,
        )

    def new_database(self) -> str:
        """Create an empty database and return its name."""
        name = f"t{secrets.token_hex(6)}"
        with self.connect("postgres") as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        return name

    def _run(self, program: str, *arguments: str | Path) -> None:
        done = subprocess.run(
            [self._programs / program, *arguments],
            cwd="/",
            user=self._user,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
        )
        assert done.returncode == 0, f"{program} ended with {done.returncode}"


def find_programs() -> Path | None:
    """Return the folder of initdb, pg_ctl and postgres; Debian keeps them out of the path."""
    found = shutil.which("pg_ctl")
    folders = [str(Path(found).resolve().parent)] if found else []
    folders += sorted(glob.glob("/usr/lib/postgresql/*/bin") + glob.glob("/usr/pgsql-*/bin"), reverse=True)
    for folder in folders:
        if all((Path(folder) / name).is_file() for name in ("initdb", "pg_ctl", "postgres")):
            return Path(folder)
    return None


def _other_user() -> str:
    known = {user.pw_name for user in pwd.getpwall()}
    return next(name for name in ("postgres", "nobody") if name in known)
