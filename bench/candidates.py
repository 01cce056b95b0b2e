"""What is compared, and how each is started and asked."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import lab

TOKEN = "bench-token-0123456789"
PROMPT = "Why is the sky blue?"
Command = Callable[[int, int], list[str | Path]]
Json = dict[str, Any]


@dataclass(frozen=True)
class Candidate:
    """One way from a client to the upstream. `command(port, upstream_port)`; None: straight at the upstream."""

    name: str
    what: str
    command: Command | None
    merges: bool = True
    env: Callable[[int, int], dict[str, str]] = lambda port, up: {}
    header: str = ""
    health: str = ""
    missing: Callable[[], str | None] = lambda: None

    @property
    def path(self) -> str:
        """The route that is asked."""
        return "/api/stream_chat" if self.merges else "/api/chat"


def _arena_env(port: int, up: int) -> dict[str, str]:
    return {
        "ARENA_PORT": str(port),
        "ARENA_ENDPOINTS": f"http://127.0.0.1:{up}",
        "ARENA_ENGINE": "off",
        "ARENA_DATA": tempfile.mkdtemp(prefix="data-", dir=lab.BUILD),
        "ARENA_MAX_INSTANCES": "64",
        "ARENA_MAX_ANSWER_TOKENS": "1000000",
    }


def _guarded_env(port: int, up: int) -> dict[str, str]:
    return {**_arena_env(port, up), "WEB_CHAT_TOKEN": TOKEN}


def _arena(port: int, up: int) -> list[str | Path]:
    return [sys.executable, lab.ROOT / "arena_app.py"]


def _no_arena() -> str | None:
    return None if (lab.ROOT / "arena_app.py").exists() else "arena_app.py is not there"


def _limit(port: int, up: int) -> list[str | Path]:
    return [lab.BUILD / "limit_fan", str(port), str(up)]


def _nginx(port: int, up: int) -> list[str | Path]:
    text = (lab.HERE / "nginx.conf.in").read_text()
    for key, value in (("BUILD", lab.BUILD), ("UPSTREAM", up), ("PORT", port)):
        text = text.replace(f"@{key}@", str(value))
    (lab.BUILD / "nginx.conf").write_text(text)
    return ["nginx", "-c", lab.BUILD / "nginx.conf"]


def _no_nginx() -> str | None:
    return None if shutil.which("nginx") else "nginx is not installed"


def _peer(library: str) -> Candidate:
    return Candidate(
        library,
        f"textbook fan-out with {library}" + (" in threads" if library == "requests" else ""),
        lambda port, up: [sys.executable, lab.HERE / "peers.py", library, str(port), f"http://127.0.0.1:{up}"],
        missing=lambda: None if importlib.util.find_spec(library) else f"{library} is not installed",
    )


CANDIDATES = {
    each.name: each
    for each in (
        Candidate("direct", "client straight at the upstream, one connection a stream", None, merges=False),
        Candidate("limit_c", "the same fan-out in C, checks nothing: the limit", _limit),
        Candidate("nginx", "nginx, one worker; cannot merge: single streams", _nginx, merges=False, missing=_no_nginx),
        Candidate("arena", "the arena as shipped", _arena, env=_arena_env, health="/api/health", missing=_no_arena),
        Candidate(
            "arena+token",
            "the arena with WEB_CHAT_TOKEN set",
            _arena,
            env=_guarded_env,
            header=f"Authorization: Bearer {TOKEN}",
            health="/api/health",
            missing=_no_arena,
        ),
        _peer("aiohttp"),
        _peer("httpx"),
        _peer("requests"),
    )
}


def fan_body(streams: int, word: str) -> str:
    """The arena's request: `streams` models, one prompt that carries the fake server's instructions."""
    instances = [{"id": f"m{i}", "model": f"bench-m{i}:1b"} for i in range(streams)]
    history = [{"role": "user", "content": f"{PROMPT} {word}"}]
    return json.dumps({"history": history, "model_instances": instances})


def chat_body(word: str) -> str:
    """Ollama's own request for one stream."""
    messages = [{"role": "user", "content": f"{PROMPT} {word}"}]
    return json.dumps({"model": "bench-m0:1b", "messages": messages, "stream": True})


class Target:
    """A candidate with its own fresh upstream, both running. Close it (`with`) to stop them."""

    def __init__(self, candidate: Candidate) -> None:
        self.candidate = candidate
        self.log = lab.BUILD / f"{candidate.name}.log"
        self.up_port = lab.free_port()
        self.upstream = lab.upstream(self.up_port)
        self.server: lab.Server | None = None
        try:
            self._start()
        except lab.LabError:
            self.upstream.stop()
            raise

    def _start(self) -> None:
        if self.candidate.command is None:
            self.port = self.up_port
            return
        self.port = lab.free_port()
        self.server = lab.Server(
            self.candidate.command(self.port, self.up_port),
            self.port,
            self.log,
            self.candidate.env(self.port, self.up_port),
            self.candidate.health,
        )

    def __enter__(self) -> Target:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self.server:
            self.server.stop()
        self.upstream.stop()

    def restart(self) -> None:
        """A fresh server and upstream: what a load left unfinished must not burden the next one."""
        self.__exit__(None, None, None)
        self.upstream = lab.upstream(self.up_port)
        self._start()

    def args(
        self, word: str, streams: int, at_once: int, requests: int, tokens: int | None, **flags: object
    ) -> list[object]:
        """loadgen's arguments. Who cannot merge gets as many single streams instead."""
        merges = self.candidate.merges
        body = fan_body(streams, word) if merges else chat_body(word)
        many = 1 if merges else streams
        args: list[object] = ["-p", self.candidate.path, "-b", body, "-c", at_once * many, "-n", requests * many]
        args += ["-s", streams if merges else 1, "-f", "token" if merges else "content"]
        if tokens is not None:
            args += ["-e", tokens]
        if self.candidate.header:
            args += ["-H", self.candidate.header]
        for flag, value in flags.items():
            args += [f"-{flag}", value]
        return args

    def load(self, word: str, streams: int, at_once: int, requests: int, tokens: int | None, **flags: object) -> Json:
        """One measured load; adds the server's CPU seconds meanwhile as `server_cpu_s` (None for direct)."""
        before = self.server.cpu_s() if self.server else 0.0
        result = lab.finish_load(
            lab.start_load(self.port, *self.args(word, streams, at_once, requests, tokens, **flags))
        )
        result["server_cpu_s"] = self.server.cpu_s() - before if self.server else None
        return result

    def warm(self, streams: int) -> None:
        """Every model asked, a few connections open, before anything is measured. Raises LabError for no answer."""
        for _ in range(2):
            got = self.load("bench-d1000-n20", streams, 4, 8, 20, t=20)
            if not got["complete"]:
                raise lab.LabError(
                    f"{self.candidate.name} answers nothing: {judge(got, 8 * streams)['void']}; see {self.log}"
                )


def judge(result: Json, streams: int) -> dict[str, str | None]:
    """Does a load count? `void`: something was lost, doubled, changed or refused. `behind`: right, but late."""
    troubles = ("wrong", "failed", "errors", "non200", "stray")
    # what is open at the end of the time is merely late; a stream that ended short is lost
    lost = [f"{result[key]} {key}" for key in troubles if result[key]]
    if result["incomplete"]:
        lost.append(f"{result['incomplete']} streams ended short")
    short = None if result["complete"] == streams else f"{result['complete']} of {streams} streams complete"
    return {"void": ", ".join(lost) or None, "behind": short}
