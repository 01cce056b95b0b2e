"""A relay between a browser and a server that keeps every byte that the browser receives."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress
from typing import Self

PIECE = 65536


class Wiretap:
    """Listens on a port of its own; `heard` is what the server has said since the last `forget()`."""

    def __init__(self, port: int) -> None:
        self._target = ("127.0.0.1", port)
        self._door = socket.create_server(("127.0.0.1", 0))
        self._ends: list[socket.socket] = []
        self._lock = threading.Lock()
        self._heard = bytearray()
        self._news = threading.Event()

    @property
    def port(self) -> int:
        """Where the browser connects."""
        port: int = self._door.getsockname()[1]
        return port

    @property
    def heard(self) -> bytes:
        """What the server has said."""
        with self._lock:
            return bytes(self._heard)

    def wait_for_silence(self, seconds: float, patience_s: float) -> None:
        """Return once the server has said nothing for so many seconds. Raises TimeoutError if it never falls silent."""
        end = time.monotonic() + patience_s
        while self._news.wait(seconds):
            self._news.clear()
            if time.monotonic() > end:
                raise TimeoutError(f"the server talked on for {patience_s:g} s")

    def forget(self) -> None:
        """Begin anew."""
        with self._lock:
            self._heard.clear()

    def __enter__(self) -> Self:
        threading.Thread(target=self._listen, name="wiretap", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for end in (self._door, *self._ends):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _listen(self) -> None:
        with suppress(OSError):
            while True:
                browser, _ = self._door.accept()
                server = socket.create_connection(self._target)
                self._ends += (browser, server)
                for ends in ((browser, server, False), (server, browser, True)):
                    threading.Thread(target=self._relay, args=ends, name="wiretap relay", daemon=True).start()

    def _relay(self, source: socket.socket, sink: socket.socket, listens: bool) -> None:
        with suppress(OSError):
            while piece := source.recv(PIECE):
                if listens:
                    with self._lock:
                        self._heard += piece
                    self._news.set()
                sink.sendall(piece)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)
