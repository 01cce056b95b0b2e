"""The engine as the arena holds it: a child process that is started, watched, restarted and ended with us."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import sys
from collections.abc import Awaitable, Callable, Mapping

import msgspec

from arena.endings import finished
from arena.errors import ArenaError
from arena.settings import Settings

log = logging.getLogger(__name__)

# As `arena.engine.__main__` has its log written; llama.cpp's own lines have no such head.
_LINE = re.compile(r"(DEBUG|INFO|WARNING|ERROR|CRITICAL) [\w.]+: (.*)")

START_LIMIT_S = 60.0
STOP_LIMIT_S = 5.0
FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 30.0
CALM_S = 60.0  # an engine that ran this long was well; its next crash begins anew with a short wait


class EngineFailed(ArenaError):
    """The embedded engine could not be started; the message says what it said."""

    status = 503
    default_code = "engine_failed"


def orders(settings: Settings) -> list[str]:
    """What the arena's settings say to the engine, as options of its command line."""
    options = ["--data", str(settings.data), *(f"--models={path}" for path in settings.engine_models)]
    if settings.engine_threads is not None:
        options.append(f"--threads={settings.engine_threads}")
    return options


class EngineProcess:
    """`python -m arena.engine` as a child. It ends with this process, however that ends."""

    def __init__(
        self,
        settings: Settings,
        env: Mapping[str, str] | None = None,
        *,
        fetch: bool = True,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`env`: the child's environment at each of its starts, ours by default. `fetch`: allow downloads."""
        self._orders = orders(settings)
        self._env = os.environ if env is None else env
        self._fetch = fetch
        self._sleep = sleep
        self._process: asyncio.subprocess.Process | None = None
        self._port = 0
        self._restarts = 0
        self._last_words = ""
        self._logging: asyncio.Task[None] | None = None
        self._keeping: asyncio.Task[None] | None = None

    @property
    def running(self) -> bool:
        """Is the child alive?"""
        return self._process is not None and self._process.returncode is None

    @property
    def url(self) -> str | None:
        """The base url; the same after a restart if the port is still free. None before the first start."""
        return f"http://127.0.0.1:{self._port}" if self._port else None

    @property
    def restarts(self) -> int:
        """How often it had to be started again."""
        return self._restarts

    @property
    def pid(self) -> int | None:
        """The child's process id."""
        return self._process.pid if self._process is not None else None

    async def start(self) -> str:
        """Start the engine and wait until it answers; returns its base url. Raises EngineFailed."""
        if not self.running:
            await self._spawn()
            self._keeping = asyncio.create_task(self._keep(), name="keep the engine running")
        assert self.url is not None
        return self.url

    async def stop(self) -> None:
        """End the engine and everything it started."""
        if self._keeping is not None:
            self._keeping.cancel()
            await finished({self._keeping})
            self._keeping = None
        if self._process is not None:
            await asyncio.shield(self._end(self._process))
        if self._logging is not None:
            await asyncio.wait({self._logging})

    async def _spawn(self) -> None:
        command = [sys.executable, "-m", "arena.engine", *self._orders, "--watch-parent", "--port", str(self._port)]
        command += [] if self._fetch else ["--no-fetch"]
        process = self._process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=self._env,
            start_new_session=True,  # Ctrl-C in a shell is for the arena, which then stops the engine in order
        )
        self._logging = asyncio.create_task(self._log(process))
        try:
            assert process.stdout is not None
            line = await asyncio.wait_for(process.stdout.readline(), START_LIMIT_S)
            self._port = int(msgspec.json.decode(line)["port"])
        except (TimeoutError, msgspec.DecodeError):
            await self._end(process)
            await asyncio.wait({self._logging})
            self._port = 0  # perhaps the old one is taken now
            reason = self._last_words or "it did not say why"
            raise EngineFailed(f"The embedded engine did not start: {reason}") from None
        except asyncio.CancelledError:
            await asyncio.shield(self._end(process))
            raise

    async def _keep(self) -> None:
        """Start it again whenever it ends, after waits that grow while it keeps failing."""
        wait_s = FIRST_WAIT_S
        clock = asyncio.get_running_loop().time
        while True:
            began = clock()
            if self.running and self._process is not None:
                await self._process.wait()
                log.warning("the embedded engine ended with status %s; starting it again", self._process.returncode)
            if clock() - began > CALM_S:
                wait_s = FIRST_WAIT_S
            await self._sleep(wait_s)
            wait_s = min(2 * wait_s, LONGEST_WAIT_S)
            try:
                await self._spawn()
                self._restarts += 1
            except EngineFailed as error:
                log.warning("%s", error.message)

    async def _log(self, process: asyncio.subprocess.Process) -> None:
        assert process.stderr is not None
        while True:
            try:
                line = await process.stderr.readline()
            except ValueError:
                continue  # an overlong line is dropped
            if not line:
                return
            text = line.decode("utf-8", "replace").strip()
            level, self._last_words = match.groups() if (match := _LINE.fullmatch(text)) else ("INFO", text)
            log.log(logging.getLevelNamesMapping()[level], "%s", self._last_words)

    @staticmethod
    async def _end(process: asyncio.subprocess.Process) -> None:
        """Closing its standard input is the order to end; then a signal, then force."""
        if process.stdin is not None:
            process.stdin.close()
        for force in (process.terminate, process.kill):
            try:
                await asyncio.wait_for(process.wait(), STOP_LIMIT_S)
                return
            except TimeoutError:
                with contextlib.suppress(ProcessLookupError):
                    force()
        await process.wait()
