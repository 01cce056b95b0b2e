"""From a specification to an endpoint: one pool of connections, and the client that speaks the server's API."""

from __future__ import annotations

import time
from collections.abc import Callable

from arena.fleet.endpoint import Client, Endpoint
from arena.fleet.spec import EndpointSpec
from arena.ollama import OllamaClient
from arena.openai import OpenAIClient
from arena.wire import Pool


def connect(
    spec: EndpointSpec,
    *,
    max_deltas: int = 32768,
    max_bytes: int = 64 * 1024 * 1024,
    clock: Callable[[], float] = time.monotonic,
) -> Endpoint:
    """The endpoint for `spec`; nothing is opened yet. Its answers to the arena's columns are cut at the limits given.

    Raises ValueError for an address that is none, or a header that is none.
    """
    auth = () if spec.auth is None else ((spec.auth.header, spec.auth.value.reveal()),)
    base = spec.url.rstrip("/")
    if spec.type == "openai":
        base = base.removesuffix("/v1")  # requests bring it along
    pool = Pool(base, name=spec.name, timeouts=spec.timeouts, headers=(*spec.headers, *auth), verify=spec.tls_verify)
    speaks = OpenAIClient if spec.type == "openai" else OllamaClient
    client: Client = speaks(
        spec.url, name=spec.name, timeouts=spec.timeouts, max_deltas=max_deltas, max_bytes=max_bytes, pool=pool
    )
    return Endpoint(spec.name, client, spec.type, clock, spec=spec, pool=pool)
