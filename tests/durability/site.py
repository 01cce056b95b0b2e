"""An arena in a process of its own, which may be killed, halted and started again, and people who vote there."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

from tests.sockets import readable

ROOT = Path(__file__).resolve().parents[2]
END_S = 120.0
"""Whatever takes longer to start or to end has failed; a loaded machine needs its time."""

WHOLE = os.environ.get("ARENA_TEST_WHOLE") == "1"
"""Is `arena_app.py` to run, page and all, in place of servers that were split off?"""

PAIR = ["fx-ok:n-1_seed-1", "fx-ok:n-1_seed-2"]
"""Two models that say one word each."""


class Nursery:
    """Where servers come from, one at a time: a process that splits them off, or else `arena_app.py` itself."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        inherited = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        self._environment = {**inherited, "PYTHONPATH": str(ROOT), **environment}
        self._process: subprocess.Popen[str] | None = None

    def start(self, settings: Mapping[str, str]) -> tuple[int, int]:
        """Start a server and wait until it listens; returns its process and its port."""
        if WHOLE:
            self._process = self._run(str(ROOT / "arena_app.py"), environment=settings)
        else:
            self._process = self._process or self._run("-m", "tests.durability.serving")
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps(dict(settings)) + "\n")
            self._process.stdin.flush()
        line = self._until("running on ")
        return self._process.pid if WHOLE else int(line.split()[0]), int(line.rstrip("/\n").rpartition(":")[2])

    def await_end(self) -> None:
        """Wait until the server, which was killed, is gone."""
        if WHOLE:
            self.close()
        else:
            self._until("ended\n")

    def close(self) -> None:
        """End it."""
        process, self._process = self._process, None
        if process is None:
            return
        process.communicate(timeout=END_S)

    def _run(self, *words: str, environment: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, *words],
            cwd=ROOT,
            env={**self._environment, **(environment or {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def _until(self, word: str) -> str:
        assert self._process is not None
        assert self._process.stdout is not None
        while word not in (line := self._process.stdout.readline()):
            assert line, "the server has ended instead"
        return line


class Site:
    """An arena that listens elsewhere after each start."""

    def __init__(self, nursery: Nursery, settings: Mapping[str, str]) -> None:
        self.pid = self.port = 0
        self.up = threading.Event()
        self._nursery, self._settings = nursery, settings

    def start(self) -> None:
        """Start it, and wait until it listens."""
        self.pid, self.port = self._nursery.start(self._settings)
        self.up.set()

    def signal(self, number: int) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def strike(self) -> None:
        """End it as a crash would; does not wait."""
        if self.up.is_set():
            self.up.clear()
            self.signal(signal.SIGKILL)

    def kill(self) -> None:
        """End it as a crash would, and wait until it is gone."""
        self.strike()
        self._nursery.await_end()


@contextmanager
def running(nursery: Nursery, settings: Mapping[str, str]) -> Iterator[Site]:
    """A started arena; it is killed when the block ends."""
    defaults = {"ARENA_PORT": "0", "ARENA_ENGINE": "off", "ARENA_LOG_LEVEL": "error"}
    uncapped = {"ARENA_VOTES_PER_VOTER": "0", "ARENA_VOTES_PER_ADDRESS": "0"}
    site = Site(nursery, {**defaults, **uncapped, **settings})
    try:
        site.start()
        yield site
    finally:
        if site.up.is_set():
            site.kill()


class Unanswered(Exception):
    """Nobody knows what became of a request: it was sent, or part of it, and no answer came."""


class NotSent(Exception):
    """A request that never left."""


class Reply:
    """What an arena has answered."""

    def __init__(self, status: int, body: bytes) -> None:
        self.status, self.body = status, body

    def json(self) -> Any:
        """The body as JSON; of a stream the last line."""
        return json.loads(self.body.splitlines()[-1])


class Person:
    """Somebody at an address of 127.0.0.0/8, which is whom the arena takes them for. Uses one connection."""

    def __init__(self, site: Site, address: str, *, timeout_s: float = 60.0) -> None:
        self.address = address
        self._site, self._timeout_s = site, timeout_s
        self._connection: HTTPConnection | None = None

    def ask(self, method: str, path: str, body: Any = None) -> Reply:
        """Raises NotSent, and Unanswered."""
        connection = self._connected()
        try:
            content = None if body is None else json.dumps(body)
            connection.request(method, f"/api{path}", content, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            return Reply(answer.status, answer.read())
        except (OSError, HTTPException) as error:
            self.leave()
            raise Unanswered from error

    def begin(self) -> str:
        """A battle that can be voted on."""
        made = self.ask("POST", "/battles", {"models": PAIR})
        assert made.status == 200, made.body
        battle = str(made.json()["id"])
        told = self.ask("POST", f"/battles/{battle}/stream", {"message": "Hello!"})
        assert told.status == 200, told.body
        assert "error" not in told.json(), told.body
        return battle

    def vote(self, battle: str, verdict: str) -> Reply:
        """Vote; the answer may be a refusal."""
        return self.ask("POST", f"/battles/{battle}/vote", {"verdict": verdict})

    def view(self, battle: str) -> Reply:
        """Look where a battle stands."""
        return self.ask("GET", f"/battles/{battle}")

    def leave(self) -> None:
        """Hang up."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _connected(self) -> HTTPConnection:
        """A kept connection may have been closed by the other side: one to a server that is gone is made anew."""
        connection = self._connection
        if connection is not None and connection.port == self._site.port and not _ended(connection.sock):
            return connection
        self.leave()
        made = HTTPConnection("127.0.0.1", self._site.port, timeout=self._timeout_s, source_address=(self.address, 0))
        try:
            made.connect()
        except OSError as error:
            made.close()
            raise NotSent from error
        self._connection = made
        return made


def _ended(sock: socket.socket | None) -> bool:
    """Has the other side hung up? Nothing else can have come."""
    return sock is None or bool(readable(sock, within_s=0))
