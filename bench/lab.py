"""Builds the C programs, starts and stops servers, drives loadgen, and reads what a process tree costs."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
BUILD = HERE / "build"
PROGRAMS = ("fake_ollama", "loadgen", "limit_fan")
CPUCLOCK_SCHED = 2


class LabError(Exception):
    """A server did not start, or a program failed; the run goes on with the next candidate."""


def missing_tools() -> str | None:
    """Why the C programs cannot be built here, or None."""
    if not Path("/proc/self/stat").exists():
        return "the programs use epoll and /proc: Linux only"
    return None if shutil.which("gcc") else "gcc is not installed"


def build(folder: Path = BUILD) -> None:
    """Compile what is not newer than its source. Raises LabError."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in PROGRAMS:
        source, program = HERE / f"{name}.c", folder / name
        if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
            done = subprocess.run(["gcc", "-O2", "-Wall", "-o", program, source], capture_output=True, text=True)
            if done.returncode:
                raise LabError(f"gcc {name}.c: {done.stderr.strip()}")


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def clean_env(extra: Mapping[str, str]) -> dict[str, str]:
    """The environment without what would change a server's settings or lead it through a proxy."""
    dropped = ("ARENA_", "OLLAMA_", "GRADIO_", "WEB_", "SPACE_ID")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(dropped) and not k.lower().endswith("_proxy")}
    return {**kept, **extra}


class Server:
    """A child process that listens on `port`, and answers at `health` if that is given; its log goes to `log`."""

    def __init__(
        self,
        command: Sequence[str | Path],
        port: int,
        log: Path,
        env: Mapping[str, str] | None = None,
        health: str = "",
        wait_s: float = 60,
    ) -> None:
        self.port, self.log, self.health = port, log, health
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as out:
            self.process = subprocess.Popen(
                [str(part) for part in command],
                cwd=log.parent,
                env=clean_env(env or {}),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        self._await_listening(wait_s)

    def _await_listening(self, wait_s: float) -> None:
        end = time.monotonic() + wait_s
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise LabError(f"{self.process.args} ended with {self.process.returncode}; see {self.log}")
            try:
                if self.health:
                    call(self.port, self.health)
                else:
                    socket.create_connection(("127.0.0.1", self.port), 0.2).close()
                return
            except (OSError, http.client.HTTPException):
                time.sleep(0.05)
        self.stop()
        raise LabError(f"{self.process.args} does not answer; see {self.log}")

    def tree(self) -> list[psutil.Process]:
        """The process and its descendants."""
        try:
            me = psutil.Process(self.process.pid)
            return [me, *me.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def cpu_s(self) -> float:
        """User and system seconds of the tree so far, ended threads included, in the scheduler's nanoseconds."""
        return sum(cpu_seconds(each.pid) for each in self.tree())

    def rss_kib(self) -> float:
        """Resident memory of the tree."""
        return sum(each.memory_info().rss for each in self.tree()) / 1024

    def threads(self) -> int:
        """Threads of the tree."""
        return sum(each.num_threads() for each in self.tree())

    def kill(self) -> None:
        """End the process at once, as a crash would."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """End the process and its descendants, politely first."""
        for sign in (signal.SIGTERM, signal.SIGKILL):
            for each in reversed(self.tree()):
                try:
                    each.send_signal(sign)
                except psutil.NoSuchProcess:
                    continue
            try:
                self.process.wait(8)
                return
            except subprocess.TimeoutExpired:
                continue


class Spinners:
    """Keeps every core awake, as `with` says: one process of the lowest priority on each, which does nothing."""

    SOURCE = "import os, sys\nwhile os.getppid() == int(sys.argv[1]):\n    for _ in range(10**6): pass"

    def __init__(self) -> None:
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Spinners:
        for core in sorted(os.sched_getaffinity(0)):
            process = subprocess.Popen([sys.executable, "-S", "-c", self.SOURCE, str(os.getpid())])
            self._processes.append(process)
            os.setpriority(os.PRIO_PROCESS, process.pid, 19)
            os.sched_setaffinity(process.pid, {core})
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for process in self._processes:
            process.kill()
            process.wait()


def cpu_seconds(pid: int) -> float:
    """CPU time of one process (all its threads, also ended ones): the kernel's clock of that process."""
    try:
        return time.clock_gettime((~pid << 3) | CPUCLOCK_SCHED)
    except OSError:
        return 0.0


def upstream(port: int, models: int = 64, folder: Path = BUILD) -> Server:
    """The fake Ollama on `port`."""
    return Server([folder / "fake_ollama", str(port), str(models)], port, folder / "fake_ollama.log", wait_s=5)


def start_load(port: int, *args: object, folder: Path = BUILD) -> subprocess.Popen[str]:
    """loadgen in the background; read it with finish_load."""
    command = [str(part) for part in (folder / "loadgen", port, *args)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def finish_load(process: subprocess.Popen[str], timeout_s: float = 180) -> dict[str, Any]:
    """loadgen's JSON object. Raises LabError if it failed or did not end."""
    try:
        out, _ = process.communicate(timeout=timeout_s)
        return dict(json.loads(out))
    except subprocess.TimeoutExpired as error:
        process.kill()
        process.wait()
        raise LabError("loadgen did not end") from error
    except ValueError as error:
        raise LabError(f"loadgen ended with {process.returncode} and no result") from error


def call(port: int, path: str, body: Mapping[str, Any] | None = None, method: str = "GET") -> Any:
    """One small JSON request to the fake server's control routes."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data=data, method="POST" if data else method)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=10) as answer:
        return json.loads(answer.read())
