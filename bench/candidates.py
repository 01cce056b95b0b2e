"""What is compared, and how each is started and asked."""

from __future__ import annotations

import importlib.util
import json
import os
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
MODEL = "bench-m0:1b"
PROMPT = "Why is the sky blue?"
LONG_PROMPT = f"{PROMPT} Answer in one sentence that a child understands, without formulas, and name the effect. "
"""Makes a request of about 300 bytes."""
PROXY = "/olla/ollama"
LITELLM_ENV = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # it is not to ask the Internet
    "LITELLM_LOG": "ERROR",
    "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",  # without a key it has less to do
}
Json = dict[str, Any]


@dataclass(frozen=True)
class Setup:
    """What a case wants to stand behind a candidate, and what the arena is told of each upstream (fleet.yaml)."""

    upstreams: int = 1
    fleet: tuple[str, ...] = ()


@dataclass(frozen=True)
class Place:
    """Where a candidate is to listen, and the ports of what stands behind it."""

    port: int
    upstreams: tuple[int, ...]
    fleet: tuple[str, ...] = ()

    @property
    def urls(self) -> list[str]:
        """The upstreams' addresses."""
        return [f"http://127.0.0.1:{port}" for port in self.upstreams]


Command = Callable[[Place], list[str | Path]]


@dataclass(frozen=True)
class Candidate:
    """One way from a client to the upstream. `command` None: straight at the upstream.

    `prefix` stands before Ollama's own paths; `chat` is the route that is asked where it is another one than those.
    `scale` is the part of a case's requests that a slow candidate gets.
    """

    name: str
    what: str
    command: Command | None
    merges: bool = True
    env: Callable[[Place], dict[str, str]] = lambda place: {}
    header: str = ""
    health: str = ""
    missing: Callable[[], str | None] = lambda: None
    prefix: str = ""
    chat: str = ""
    scale: float = 1
    wait_s: float = 60

    @property
    def path(self) -> str:
        """The route that is asked."""
        return self.chat or ("/api/stream_chat" if self.merges else f"{self.prefix}/api/chat")


def _arena_env(place: Place) -> dict[str, str]:
    data = Path(tempfile.mkdtemp(prefix="data-", dir=lab.BUILD))
    if place.fleet:
        hosts = "".join(f"  - {{url: {', '.join((url, *place.fleet))}}}\n" for url in place.urls)
        (data / "fleet.yaml").write_text(f"endpoints:\n{hosts}")
    return {
        "ARENA_PORT": str(place.port),
        "ARENA_ENDPOINTS": ",".join(place.urls),
        "ARENA_ENGINE": "off",
        "ARENA_DATA": str(data),
        "ARENA_MAX_INSTANCES": "64",
        "ARENA_MAX_ANSWER_TOKENS": "1000000",
    }


def _guarded_env(place: Place) -> dict[str, str]:
    return {**_arena_env(place), "WEB_CHAT_TOKEN": TOKEN}


def _arena(place: Place) -> list[str | Path]:
    return [sys.executable, lab.ROOT / "arena_app.py"]


def _arena_asgi(place: Place) -> list[str | Path]:
    serve: list[str | Path] = [sys.executable, "-m", "uvicorn", "arena_app:app", "--app-dir", lab.ROOT]
    port, quiet = ["--port", str(place.port)], ["--no-access-log", "--log-level", "warning"]
    return [*serve, *port, "--http", "httptools", "--loop", "uvloop", *quiet]


def _no_arena() -> str | None:
    return None if (lab.ROOT / "arena_app.py").exists() else "arena_app.py is not there"


def _limit(place: Place) -> list[str | Path]:
    return [lab.BUILD / "limit_fan", str(place.port), str(place.upstreams[0])]


def _nginx(place: Place) -> list[str | Path]:
    text = (lab.HERE / "nginx.conf.in").read_text()
    servers = " ".join(f"server 127.0.0.1:{port};" for port in place.upstreams)
    for key, value in (("BUILD", lab.BUILD), ("SERVERS", servers), ("PORT", place.port), ("PREFIX", PROXY)):
        text = text.replace(f"@{key}@", str(value))
    (lab.BUILD / "nginx.conf").write_text(text)
    return ["nginx", "-c", lab.BUILD / "nginx.conf"]


def _no_nginx() -> str | None:
    return None if shutil.which("nginx") else "nginx is not installed"


def _litellm_program() -> Path | None:
    named = os.environ.get("ARENA_BENCH_LITELLM")
    program = Path(named) / "bin" / "litellm" if named else None
    return program if program is not None and program.exists() else None


def _litellm(place: Place) -> list[str | Path]:
    program = _litellm_program()
    assert program is not None
    hosts = [
        {"model_name": MODEL, "litellm_params": {"model": f"ollama_chat/{MODEL}", "api_base": url}}
        for url in place.urls
    ]
    settings = lab.BUILD / "litellm.json"  # YAML reads JSON
    settings.write_text(json.dumps({"model_list": hosts, "litellm_settings": {"telemetry": False}}))
    return [program, "--config", settings, "--host", "127.0.0.1", "--port", str(place.port), "--num_workers", "1"]


def _no_litellm() -> str | None:
    return None if _litellm_program() else "ARENA_BENCH_LITELLM names no environment with bin/litellm in it"


def _peer(library: str) -> Candidate:
    return Candidate(
        library,
        f"textbook fan-out with {library}" + (" in threads" if library == "requests" else ""),
        lambda place: [sys.executable, lab.HERE / "peers.py", library, str(place.port), place.urls[0]],
        missing=lambda: None if importlib.util.find_spec(library) else f"{library} is not installed",
    )


CANDIDATES = {
    each.name: each
    for each in (
        Candidate("direct", "client straight at the upstream, one connection a stream", None, merges=False),
        Candidate("limit_c", "the same fan-out in C, checks nothing: the limit", _limit),
        Candidate(
            "nginx",
            "nginx, one worker; cannot merge: single streams",
            _nginx,
            merges=False,
            missing=_no_nginx,
            prefix=PROXY,
        ),
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
        Candidate(
            "proxy",
            "the arena as shipped, asked at /olla/ollama: answered on the connection itself",
            _arena,
            merges=False,
            env=_arena_env,
            health="/api/health",
            missing=_no_arena,
            prefix=PROXY,
        ),
        Candidate(
            "proxy asgi",
            "the same application under plain uvicorn",
            _arena_asgi,
            merges=False,
            env=_arena_env,
            health="/api/health",
            missing=_no_arena,
            prefix=PROXY,
        ),
        Candidate(
            "litellm",
            "LiteLLM's proxy, one worker, no database; it translates, which is more work",
            _litellm,
            merges=False,
            env=lambda place: LITELLM_ENV,
            health="/health/liveliness",
            missing=_no_litellm,
            chat="/v1/chat/completions",
            scale=0.02,
            wait_s=120,
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


def chat_body(word: str, stream: bool = True, prompt: str = PROMPT) -> str:
    """Ollama's own request for one stream, or one whole answer."""
    messages = [{"role": "user", "content": f"{prompt} {word}"}]
    return json.dumps({"model": MODEL, "messages": messages, "stream": stream})


class Target:
    """A candidate with its own fresh upstreams, all running. Close it (`with`) to stop them."""

    def __init__(self, candidate: Candidate, setup: Setup = Setup()) -> None:
        self.candidate = candidate
        self.log = lab.BUILD / f"{candidate.name.replace(' ', '-')}.log"
        self.setup = setup
        self.up_ports = [lab.free_port() for _ in range(setup.upstreams)]
        self.upstreams: list[lab.Server] = []
        self.server: lab.Server | None = None
        self._start()

    @property
    def up_port(self) -> int:
        """The port of the first upstream."""
        return self.up_ports[0]

    def _start(self) -> None:
        try:
            self.upstreams = [lab.upstream(port) for port in self.up_ports]
            self.port = self.up_port if self.candidate.command is None else self._serve(self.candidate.command)
        except lab.LabError:
            self._stop()
            raise

    def _serve(self, command: Command) -> int:
        place = Place(lab.free_port(), tuple(self.up_ports), self.setup.fleet)
        env, one = self.candidate.env(place), self.candidate
        self.server = lab.Server(command(place), place.port, self.log, env, one.health, one.wait_s)
        return place.port

    def _stop(self) -> None:
        for each in (self.server, *self.upstreams):
            if each is not None:
                each.stop()
        self.server, self.upstreams = None, []

    def __enter__(self) -> Target:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop()

    def restart(self) -> None:
        """A fresh server and upstreams: what a load left unfinished must not burden the next one."""
        self._stop()
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
        """One measured load of streams."""
        return self.measured(self.args(word, streams, at_once, requests, tokens, **flags))

    def measured(self, args: list[object]) -> Json:
        """One run of loadgen with the server's CPU seconds meanwhile as `server_cpu_s` (None for direct)."""
        before = self.server.cpu_s() if self.server else 0.0
        result = lab.finish_load(lab.start_load(self.port, *args))
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
