"""A real PostgreSQL server of the system's packages, on a socket in a folder of its own."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import psycopg

USER = "postgres"
PATIENCE_S = 60


def programs() -> Path | None:
    """The folder of initdb and postgres, or None."""
    found = shutil.which("initdb")
    if found is not None:
        return Path(found).resolve().parent
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    return installed[-1] if installed else None


def why_not() -> str | None:
    """Why no server can be started here, or None."""
    if programs() is None:
        return "PostgreSQL is not installed (Debian: apt-get install postgresql)"
    if os.geteuid() == 0 and USER not in {entry.pw_name for entry in pwd.getpwall()}:
        return "PostgreSQL does not run as root, and there is no user postgres"
    return None


class Postgres:
    """A server that can be stopped, killed and started again; it keeps fsync on. `user` is who runs it, None: we."""

    def __init__(self) -> None:
        bin_folder = programs()
        assert bin_folder is not None
        self._bin = bin_folder
        self.user = USER if os.geteuid() == 0 else None
        self.folder = Path(tempfile.mkdtemp(prefix="arena-pg-"))  # short: a socket's path has at most 107 characters
        if self.user:
            shutil.chown(self.folder, USER)
        self._databases = 0
        self._run("initdb", "-D", f"{self.folder}/data", "-U", USER, "--auth=trust", "--no-sync", "-E", "UTF8")
        self.start()

    def start(self) -> None:
        """Start, and wait until it answers."""
        options = ("listen_addresses=", "shared_buffers=16MB", "max_connections=40", "recovery_init_sync_method=syncfs")
        words = [word for option in options for word in ("-c", option)]
        with open(self.folder / "log", "ab") as log:
            self._process = subprocess.Popen(
                [str(self._bin / "postgres"), "-D", f"{self.folder}/data", "-k", str(self.folder), *words],
                user=self.user,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.await_answers()

    def await_answers(self) -> None:
        """Wait until it answers, as after a start, or after a crash of one of its processes."""
        deadline_s = time.monotonic() + PATIENCE_S
        while not self._answers():
            assert self._process.poll() is None, f"it did not start; see {self.folder}/log"
            assert time.monotonic() < deadline_s

    def stop(self, signal_number: int = signal.SIGINT) -> None:
        """Stop it, and wait: SIGINT is in order, SIGQUIT is a crash."""
        self._process.send_signal(signal_number)
        self._process.wait(PATIENCE_S)

    def remove(self) -> None:
        """Stop it for good."""
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self.folder)

    def database(self) -> str:
        """The URL of a new, empty database."""
        self._databases += 1
        name = f"arena{self._databases}"
        with self.connection() as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        return f"postgresql://{USER}@/{name}?host={self.folder}"

    def connection(self, name: str = USER) -> psycopg.Connection[tuple[object, ...]]:
        """A connection of the test's own."""
        return psycopg.connect(host=str(self.folder), user=USER, dbname=name, autocommit=True)

    def kill_backends(self, signal_number: int = signal.SIGTERM) -> None:
        """Cut every other connection."""
        with self.connection() as connection:
            found = connection.execute(
                "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
            ).fetchall()
        for (pid,) in found:
            with suppress(ProcessLookupError):  # a connection closed before, whose process was just ending
                os.kill(int(str(pid)), signal_number)

    def _answers(self) -> bool:
        try:
            self.connection().close()
        except psycopg.OperationalError:
            return False
        return True

    def _run(self, program: str, *words: str) -> None:
        done = subprocess.run(
            [str(self._bin / program), *words],
            user=self.user,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=PATIENCE_S,
            check=False,
        )
        assert done.returncode == 0, f"{program} failed with {done.returncode}; see {self.folder}/log"
