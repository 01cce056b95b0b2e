"""What one connection may cost. Frozen, so that a test passes shorter ones instead of patching."""

from __future__ import annotations

from typing import Final

from msgspec import Struct


class Limits(Struct, frozen=True):
    """Seconds and bytes a connection gets; what each stage of it may take.

    `head_s` runs from the connect or the first byte of a request to the end of its head, `body_idle_s` between two
    pieces of a body, `body_total_s` over the whole body, and longer for a large one that comes at `body_bytes_per_s` at
    least, `keep_alive_s` between two requests. A client for which much waits, and that takes less than
    `write_stall_bytes` of it in `write_stall_s`, is dropped. A refused client gets `linger_s` to read why, and may
    meanwhile send `discard_bytes` of a body nobody wants. `framing_bytes` of a chunked body may pass without a byte of
    content.
    """

    request_line_bytes: int = 8 * 1024
    head_bytes: int = 32 * 1024
    headers: int = 100
    framing_bytes: int = 16 * 1024
    write_stall_bytes: int = 16 * 1024
    discard_bytes: int = 128 * 1024 * 1024
    head_s: float = 10
    body_idle_s: float = 15
    body_total_s: float = 60
    body_bytes_per_s: int = 64 * 1024
    keep_alive_s: float = 15
    write_stall_s: float = 60
    linger_s: float = 2
    sweep_s: float = 1
    descriptor_share: float = 0.9
    backlog: int = 1024


DEFAULT_LIMITS: Final = Limits()
