"""Starting runner processes and watching over them: nothing hangs for good, every end has a reason."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import logging
import math
import os
import re
import secrets
import signal
import sys
from pathlib import Path

import msgspec
from msgspec import Struct

from arena.engine.config import Config
from arena.engine.models import LocalModel
from arena.engine.options import Loading
from arena.engine.runner import Orders
from arena.errors import ArenaError, UpstreamError
from arena.wire import Pool, Timeouts

log = logging.getLogger(__name__)

EMBEDDING_BATCH = 2048
KEPT_LINES = 40
READY = b'{"port":'
# loading a prompt takes as long as it takes: a runner that hangs is ended by the watchdog
UNLIMITED = Timeouts(connect_s=math.inf, first_byte_s=math.inf, idle_s=math.inf, total_s=None)
_REASON = re.compile(r" E (?:\w+: )?(?:error loading model: )?(.+)")


class Patience(Struct, frozen=True):
    """How often the watchdog looks, and how long it waits, in seconds.

    `health_s`: answered by a thread of its own, however busy the model is.
    `loop_s`: answered by the loop that computes, between two batches; on a slow machine that takes its time.
    """

    every_s: float = 5.0
    health_s: float = 10.0
    loop_s: float = 180.0


class Runner:
    """A running runner process."""

    def __init__(self, process: asyncio.subprocess.Process, key: str, patience: Patience) -> None:
        self.pid = process.pid
        self.context = 0
        self._process = process
        self._key = key
        self._pool: Pool | None = None
        self._patience = patience
        self._lines: collections.deque[str] = collections.deque(maxlen=KEPT_LINES)
        self._reading = asyncio.create_task(self._read_errors())
        self._watching: asyncio.Task[None] | None = None
        self._hung = False

    @property
    def pool(self) -> Pool:
        """The connections to it, with its key; only once it is ready."""
        assert self._pool is not None
        return self._pool

    async def until_ready(self) -> None:
        """Wait for the line that says the model is loaded, then ask what it really runs with. Raises ArenaError."""
        assert self._process.stdout is not None
        while not (line := await self._process.stdout.readline()).startswith(READY):
            if not line:
                await self.ended()
                raise ArenaError(f"its process ended while loading: {self.cause()}")
            log.debug("runner %d: %s", self.pid, line)  # a library's, or a debugger's that looks at its crash
        pool = self._pool = _pool(int(msgspec.json.decode(line)["port"]), self._key)
        try:
            properties = await pool.fetch("GET", "/props")
        except UpstreamError as error:
            raise ArenaError(f"its process does not answer: {error.message}") from None
        self.context = int(msgspec.json.decode(properties.body)["default_generation_settings"]["n_ctx"])
        self._watching = asyncio.create_task(self._watch())

    @property
    def gone(self) -> bool:
        """Has the process ended, as far as the system knows? The event loop may not have been told yet."""
        if self._process.returncode is None and hasattr(os, "waitid"):
            try:
                return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
            except ChildProcessError:
                return True
        return self._process.returncode is not None

    async def ended(self) -> None:
        """Wait until the process has ended and its last words are read."""
        await self._process.wait()
        await asyncio.shield(self._reading)

    async def kill(self) -> None:
        """End it now, and its connections with it."""
        if self._watching is not None:
            self._watching.cancel()
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await asyncio.shield(self._closed())

    async def _closed(self) -> None:
        await self.ended()
        if self._pool is not None:
            await self._pool.aclose()

    def memory_bytes(self) -> int | None:
        """What it holds in memory, weights included; None where the system does not tell."""
        try:
            pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        except (OSError, ValueError, IndexError):
            return None
        return pages * os.sysconf("SC_PAGE_SIZE")

    def cause(self) -> str:
        """Why it ended."""
        code = self._process.returncode
        if self._hung:
            return "its process did not answer any more and was ended"
        if reason := self._reason():
            return reason
        if code is not None and code < 0:
            hint = "; the system may be out of memory" if -code == signal.SIGKILL else ""
            return f"unexpected EOF (its process was ended by {_signal_name(-code)}{hint})"
        return "unexpected EOF"

    def _reason(self) -> str:
        """llama.cpp's own first words of complaint, without paths of this machine."""
        for line in self._lines:
            if match := _REASON.search(line):
                return re.sub(r"(?:/|[A-Za-z]:\\)\S+", "(file)", match.group(1)).strip()
        return ""

    async def _read_errors(self) -> None:
        assert self._process.stderr is not None
        while line := await _line(self._process.stderr):
            self._lines.append(line)
            log.debug("runner %d: %s", self.pid, line)

    async def _watch(self) -> None:
        """The watchdog: end the process when it stops answering."""
        wait = self._patience
        while True:
            await asyncio.sleep(wait.every_s)
            try:
                await asyncio.wait_for(self.pool.fetch("GET", "/health"), wait.health_s)
                await asyncio.wait_for(self.pool.fetch("GET", "/slots"), wait.loop_s)
            except TimeoutError:
                self._hung = True
                with contextlib.suppress(ProcessLookupError):
                    self._process.kill()
                return
            except UpstreamError:
                return  # it is ending by itself


class Launcher:
    """Starts runners as the engine's settings say. Call it with a model and how to load it."""

    def __init__(self, config: Config, patience: Patience | None = None) -> None:
        self._config = config
        self._patience = patience or Patience()

    async def __call__(self, model: LocalModel, loading: Loading) -> Runner:
        """Load `model`; cancelling ends the process at once. Raises ArenaError saying why it cannot be loaded."""
        if model.broken:
            raise ArenaError(f"model '{model.name}' cannot be loaded: {model.broken}", code="broken_model")
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "arena.engine.runner",
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            # llama.cpp calls a debugger where it crashes, if there is one, whose words are for its developers
            env={"GGML_NO_BACKTRACE": "1", **os.environ, "PYTHONUNBUFFERED": "1"},
            start_new_session=True,  # Ctrl-C in a shell is for the engine, which ends its runners itself
        )  # fmt: skip
        orders = self._orders(model, loading)
        runner = Runner(process, orders.key, self._patience)
        try:
            assert process.stdin is not None
            process.stdin.write(msgspec.json.encode(orders) + b"\n")
            await asyncio.wait_for(runner.until_ready(), self._config.load_timeout_s)
        except TimeoutError:
            await runner.kill()
            raise ArenaError(
                f"timed out waiting for llama runner to start: {model.name} was not loaded "
                f"within {self._config.load_timeout_s:g} s (OLLAMA_LOAD_TIMEOUT)"
            ) from None
        except ArenaError as error:
            await runner.kill()
            raise ArenaError(f"model '{model.name}' cannot be loaded: {error.message}", code="load_failed") from None
        except asyncio.CancelledError:
            await runner.kill()
            raise
        return runner

    def _orders(self, model: LocalModel, loading: Loading) -> Orders:
        batch = EMBEDDING_BATCH if "embedding" in model.capabilities else loading.batch
        return Orders(
            path=str(model.found.path),
            name=model.name,
            key=secrets.token_urlsafe(24),
            context=loading.context,
            slots=self._config.parallel,
            batch=batch,
            threads=loading.threads,
            gpu_layers=loading.gpu_layers,
            shift=loading.shift,
            projector=str(model.found.projector) if model.found.projector else None,
            pooling=model.pooling,
            embedding_only=model.embedding_only,
        )


def _pool(port: int, key: str) -> Pool:
    """One connection a request: llama.cpp's server spends a thread on each that is open, used or not."""
    headers = [("Authorization", f"Bearer {key}"), ("Connection", "close")]
    return Pool(f"http://127.0.0.1:{port}", name="the runner", timeouts=UNLIMITED, headers=headers)


async def _line(stream: asyncio.StreamReader) -> str:
    """One line, "" at the end; an overlong one is cut, not an error."""
    try:
        data = await stream.readline()
    except ValueError:
        return "(overlong line)"
    return data.decode("utf-8", "replace").rstrip("\n") or (" " if data else "")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
