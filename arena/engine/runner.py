"""One loaded model: llama.cpp's own server in a process of its own, `python -m arena.engine.runner`.

It reads its orders as one line of JSON from standard input, prints one line {"port": ...} when the model is loaded,
and ends when standard input does. A crash in llama.cpp ends this process and nothing else.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import sys
from typing import Any
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

PROMPT_CACHE_MIB = 64
SPIN_COUNT = "300"  # rounds; decision 4 has the figures
ONLY_ERRORS = 1  # llama.cpp's verbosity: the reason of a failed load, and nothing else
MEAN_POOLING = 1
_PR_SET_PDEATHSIG = 1


class Orders(Struct, frozen=True):
    """What to load and how. `context` is for each slot."""

    path: str
    name: str
    key: str
    context: int
    slots: int = 1
    batch: int = 512
    threads: int = 1
    gpu_layers: int = -1
    shift: bool = True
    projector: str | None = None
    pooling: int | None = None
    embedding_only: bool = False


def main() -> None:
    """Load the model, say where it answers, and stay until standard input ends."""
    orders = msgspec.json.decode(sys.stdin.buffer.readline(), type=Orders)
    _die_with_parent()
    _limit_memory(orders)
    # OpenMP's threads spin at every barrier; beside a second model or on a busy machine that costs most of the speed
    os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)
    server = serve(orders)
    sys.stdout.write(json.dumps({"port": urlsplit(server.listening_address).port}) + "\n")
    sys.stdout.flush()
    sys.stdin.buffer.read()
    # llama.cpp's own clean-up can hang; the system takes back everything anyway
    os._exit(0)


def serve(orders: Orders) -> Any:
    """llama.cpp's own server of the model, listening: on the settings that `orders` and this machine ask for."""
    import xllamacpp  # here, because OpenMP reads the environment when it is loaded

    params = xllamacpp.CommonParams()
    params.model.path = orders.path
    params.model_alias = {orders.name}
    params.n_ctx = orders.context * orders.slots  # llama.cpp shares it out among the slots
    params.n_parallel = orders.slots
    params.n_batch = params.n_ubatch = orders.batch
    params.n_gpu_layers = orders.gpu_layers
    params.ctx_shift = orders.shift
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = orders.threads
    # a connection waiting in the server must never keep the health check from being answered
    params.n_threads_http = orders.slots + 4
    params.cache_ram_mib = PROMPT_CACHE_MIB
    params.verbosity = ONLY_ERRORS
    params.api_keys = [orders.key]
    params.ui = False
    params.embedding = True
    params.offline = True
    if not orders.embedding_only and orders.pooling is None:
        params.pooling_type = xllamacpp.llama_pooling_type(MEAN_POOLING)
    if orders.projector:
        params.mmproj.path = orders.projector
    return xllamacpp.Server(params)


def _die_with_parent() -> None:
    """On Linux the kernel ends this process with its parent, also while a load holds the interpreter."""
    if sys.platform == "linux":
        parent = os.getppid()
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)


def _limit_memory(orders: Orders) -> None:
    """A broken or hostile file cannot ask for more address space than the machine could ever give it."""
    if sys.platform == "linux":
        import resource

        machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        files = sum(os.path.getsize(path) for path in (orders.path, orders.projector) if path)
        limit = 2 * machine + 2 * files + 8 * 1024**3
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


if __name__ == "__main__":
    main()
