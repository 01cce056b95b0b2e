"""What comes out of sockets: which have something to read, and how they end."""

from __future__ import annotations

import socket
from selectors import EVENT_READ, DefaultSelector


def readable(*sockets: socket.socket, within_s: float) -> list[socket.socket]:
    """Those that bytes, or an end, have come for, as soon as there is one; none when the time is over.

    `select.select` fails on a descriptor above 1,023.
    """
    with DefaultSelector() as selector:
        for each in sockets:
            selector.register(each, EVENT_READ)
        return [sock for key, _ in selector.select(within_s) if isinstance(sock := key.fileobj, socket.socket)]


def ending(connection: socket.socket) -> tuple[bytes, bool]:
    """All that comes, and whether it ended in a reset."""
    came = b""
    try:
        while piece := connection.recv(65536):
            came += piece
    except ConnectionResetError:
        return came, True
    return came, False
