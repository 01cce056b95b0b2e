"""Names to addresses without threads: a silent name server must not delay anybody else."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import aiodns

NEGATIVE_S = 5.0
"""How long a name that was not found is not asked for again."""


class NameNotFound(OSError):
    """The name does not resolve."""


class Resolver:
    """Asks the system's name servers (and its hosts file), or `nameservers`. May be shared by any number of pools."""

    def __init__(self, nameservers: Sequence[str] | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._nameservers = nameservers
        self._clock = clock
        self._dns: aiodns.DNSResolver | None = None
        self._system: ThreadPoolExecutor | None = None
        self._missing: dict[str, float] = {}

    async def resolve(self, host: str) -> tuple[str, ...]:
        """The addresses of `host`, best first. Literals and localhost need no question. Raises NameNotFound."""
        if is_address(host):
            return (host,)
        if host == "localhost":
            return ("127.0.0.1", "::1")
        now_s = self._clock()
        if self._missing.get(host, now_s) > now_s:
            raise NameNotFound(f"the name {host} was not found")
        try:
            addresses = await (self._ask_system(host) if host.endswith(".local") else self._ask(host))
        except (aiodns.error.DNSError, socket.gaierror) as error:
            self._missing[host] = now_s + NEGATIVE_S
            raise NameNotFound(f"the name {host} was not found") from error
        self._missing.pop(host, None)
        return addresses

    async def aclose(self) -> None:
        """Free its sockets."""
        dns, self._dns = self._dns, None
        if dns is not None:
            await dns.close()
        if self._system is not None:
            self._system.shutdown(wait=False, cancel_futures=True)
            self._system = None

    async def _ask(self, host: str) -> tuple[str, ...]:
        if self._dns is None:
            self._dns = aiodns.DNSResolver(self._nameservers, timeout=1.0, tries=2)
        found = await self._dns.getaddrinfo(host, family=socket.AF_UNSPEC, type=socket.SOCK_STREAM)
        return tuple(dict.fromkeys(node.addr[0].decode("ascii") for node in found.nodes))

    async def _ask_system(self, host: str) -> tuple[str, ...]:
        """Names of the local network are spoken by the system only; a thread of their own keeps others from waiting."""
        if self._system is None:
            self._system = ThreadPoolExecutor(1, "resolve")
        ask = self._system.submit(socket.getaddrinfo, host, None, type=socket.SOCK_STREAM)
        return tuple(dict.fromkeys(str(found[4][0]) for found in await asyncio.wrap_future(ask)))


def is_address(host: str) -> bool:
    """Is `host` an IP address already (with a scope or without)?"""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
