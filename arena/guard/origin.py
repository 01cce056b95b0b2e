"""Where a request says it comes from and goes to: Host, Origin, Sec-Fetch-Site, X-Forwarded-For."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from functools import lru_cache
from urllib.parse import urlsplit

from arena.errors import SettingsError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

REMEMBERED_HOSTS = 256
_FORWARDED = re.compile(rb"[A-Za-z0-9._:\[\]-]{1,255}")


def parse_address(text: str) -> Address | None:
    """An IP address written in full (four decimal parts, or IPv6), or None."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return None if "%" in text else address


@lru_cache(64)
def is_own(address: str) -> bool:
    """Is it an address of this machine alone, or none at all (a socket in the file system)?"""
    found = parse_address(address.partition("%")[0])
    return found is None or (getattr(found, "ipv4_mapped", None) or found).is_loopback


def split_authority(text: str) -> tuple[str, str] | None:
    """Split `host`, `host:port`, `[v6]` or `[v6]:port` into (host, port), or None if it is neither."""
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or parse_address(host) is None or ":" not in host:
            return None
    else:
        host, colon, port = text.partition(":")
        rest = colon + port
    if rest and not (rest[0] == ":" and rest[1:].isascii() and rest[1:].isdigit() and len(rest) <= 6):
        return None
    if not host or not host.isascii() or any(character in host for character in "/?#@\\ \t"):
        return None
    return host.lower(), rest[1:]


class Hosts:
    """The names under which the arena may be reached, against DNS rebinding.

    Loopback names, the address it listens on, and the configured names. A wildcard address is reached under any
    IP address: rebinding needs a name, since a page's own address is never ours.
    """

    def __init__(self, bound: str, names: Iterable[str]) -> None:
        address = parse_address(bound)
        self._any_address = not bound or (address is not None and address.is_unspecified)
        # a browser spells an IPv6 address in its shortest form
        self._names = {bound.lower() if address is None else str(address), *(name.lower() for name in names)}
        self._known: set[bytes] = set()

    def allows(self, raw: bytes) -> bool:
        """Is this Host header one of ours?"""
        if raw in self._known:
            return True
        try:
            parts = split_authority(raw.decode("ascii"))
        except UnicodeDecodeError:
            return False
        if parts is None or not self._allows(*parts):
            return False
        if len(self._known) < REMEMBERED_HOSTS:
            self._known.add(bytes(raw))
        return True

    def _allows(self, host: str, port: str) -> bool:
        if host == "localhost" or host in self._names or f"{host}:{port}" in self._names:
            return True
        address = parse_address(host)
        return address is not None and (address.is_loopback or self._any_address)


def same_origin(site: bytes | None, origin: bytes | None, host: bytes) -> bool:
    """Does this request come from our own page, or from no page at all? `site` is Sec-Fetch-Site.

    A browser names its site, or at least the origin; a caller that names neither is no browser.
    """
    if site is not None:
        return site in (b"same-origin", b"none")
    if origin is None:
        return True
    _, scheme, authority = origin.partition(b"://")
    return bool(scheme) and authority.lower() == host.lower()


def web_origins(values: Iterable[str]) -> frozenset[bytes]:
    """The configured web origins as browsers spell them. Raises SettingsError for anything else."""
    origins = set()
    for value in values:
        parts = urlsplit(value.rstrip("/"))
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.path or parts.query or parts.username:
            raise SettingsError("ARENA_CORS_ORIGINS: each origin must look like https://host or http://host:port")
        origins.add(f"{parts.scheme}://{parts.netloc}".lower().encode())
    return frozenset(origins)


def networks(values: Iterable[str]) -> tuple[Network, ...]:
    """The trusted proxies' networks. Raises SettingsError for a value that is no address or network."""
    try:
        return tuple(ipaddress.ip_network(value, strict=False) for value in values)
    except ValueError:
        raise SettingsError(
            "ARENA_TRUSTED_PROXIES: each part must be an address or a network such as 10.0.0.0/8"
        ) from None


def forwarded_host(value: bytes | None) -> bytes:
    """The host in a trusted proxy's X-Forwarded-Host, of several the last, which it wrote itself; b"" for no host."""
    host = (value or b"").rpartition(b",")[2].strip()
    return host if _FORWARDED.fullmatch(host) else b""


def client_address(peer: str, forwarded: Iterable[bytes], trusted: tuple[Network, ...]) -> str:
    """The address of the caller behind the trusted proxy `peer`: the last in X-Forwarded-For that is none itself.

    The header is read from the right: each entry is believed only if the hop that wrote it is trusted.
    """
    client = peer
    hops = ",".join(value.decode("latin-1") for value in forwarded).split(",")
    for hop in reversed(hops):
        text = hop.strip()
        if parse_address(text) is None:
            break
        client = text
        if not within(text, trusted):
            break
    return client


def within(text: str, trusted: tuple[Network, ...]) -> bool:
    """Is this an address in one of the trusted networks?"""
    address = parse_address(text)
    return address is not None and any(address in network for network in trusted)


def network_key(text: str) -> str:
    """The key under which callers are counted: an IPv4 address, or the /64 that one IPv6 customer owns."""
    if ":" not in text:
        return text
    address = parse_address(text)
    if not isinstance(address, ipaddress.IPv6Address):
        return text
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, 64), strict=False))
