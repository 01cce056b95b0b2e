"""A peer that is gone without a word, its power or cable cut: the system asks after it, and hears that nobody answers.

Nothing of our own could tell it from one that thinks: a whole answer begins when all of it is generated.
"""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import Any, Final

GONE_S: Final = 30
"""Without a sign of life for so many seconds, whatever was sent to it, a peer is gone; its system gives one at once."""
PROBES: Final = 3
"""Half of the time is left in silence; in the other half it is asked so often."""

_USER_TIMEOUT: Final = getattr(socket, "TCP_USER_TIMEOUT", None)


def ask_after(connection: Any, gone_s: int = GONE_S) -> None:
    """Have the system end `connection` (a socket, or what an event loop shows of one) once its peer is gone.

    Of a socket that listens, connections inherit it. One that is closed already, or a system without such options, is
    left to the other limits.
    """
    wanted = {
        "TCP_KEEPIDLE": gone_s // 2,
        "TCP_KEEPALIVE": gone_s // 2,  # as macOS calls it
        "TCP_KEEPINTVL": gone_s // 2 // PROBES,
        "TCP_KEEPCNT": PROBES,
        "TCP_USER_TIMEOUT": gone_s * 1000,  # Linux: for what was sent and not acknowledged, which is not asked after
    }
    with suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in wanted.items():
            if (option := getattr(socket, name, None)) is not None:
                connection.setsockopt(socket.IPPROTO_TCP, option, value)


def bear_with(connection: Any) -> None:
    """Let the peer leave unread what it is sent for as long as it likes; its being there is still asked after.

    Linux would take one that is there and reads nothing for one that is gone.
    """
    if _USER_TIMEOUT is not None:
        with suppress(OSError):
            connection.setsockopt(socket.IPPROTO_TCP, _USER_TIMEOUT, 0)
