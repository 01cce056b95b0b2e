"""One listening port on loopback whose way of accepting can be changed while it runs."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Literal, get_args

from tests.fake_ollama.wire import RST_ON_CLOSE

Accept = Literal["normal", "refuse", "blackhole", "eof", "rst"]
BACKLOG = 4096


class Door:
    """Accepts connections on `host:port` and hands each socket to a new protocol.

    normal: serve; refuse: nothing listens, but the port stays ours; blackhole: the backlog is full and nothing is
    accepted, so a connect gets no answer at all; eof and rst: accepted, then closed with FIN or RST.
    """

    def __init__(self, host: str, port: int, protocol: Callable[[], asyncio.Protocol]) -> None:
        if not ipaddress.ip_address(host).is_loopback:
            raise ValueError("the fake server listens on loopback only")
        self.host, self.port = host, port
        self.accepted = 0
        self.accept: Accept = "normal"
        self._protocol = protocol
        self._listener: socket.socket | None = None
        self._welcomes: set[asyncio.Task[Any]] = set()
        self._held: list[socket.socket] = []

    @property
    def url(self) -> str:
        """The address as a URL."""
        return f"http://[{self.host}]:{self.port}" if ":" in self.host else f"http://{self.host}:{self.port}"

    def open(self) -> None:
        """Bind and listen; afterwards `port` is the real one."""
        self._bind()
        self._listen()

    def change(self, accept: Accept) -> None:
        """Change the way of accepting, at once."""
        if accept not in get_args(Accept):
            raise ValueError(f"accept must be one of {get_args(Accept)}")
        if accept == self.accept:
            return
        self._stop()
        self.accept = accept
        if accept == "refuse":
            self._close_listener()
            self._bind()  # bound but not listening: connects are refused, and nobody else gets the port
        elif accept == "blackhole":
            self._fill_backlog()
        else:
            self._listen()

    def close(self) -> None:
        """Stop listening."""
        self._stop()
        self._close_listener()

    def _bind(self) -> None:
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setblocking(False)
        try:
            listener.bind((self.host, self.port))
        except OSError:
            listener.close()
            raise
        self.port = listener.getsockname()[1]
        self._listener = listener

    def _listen(self) -> None:
        assert self._listener is not None
        self._listener.listen(BACKLOG)
        asyncio.get_running_loop().add_reader(self._listener, self._accept, self._listener)

    def _stop(self) -> None:
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener)
        for held in self._held:
            held.close()
        self._held.clear()

    def _close_listener(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    def _fill_backlog(self) -> None:
        assert self._listener is not None
        self._listener.listen(0)
        for _ in range(4):  # with a backlog of 0 one waits accepted and the rest are never answered
            filler = socket.socket(self._listener.family, socket.SOCK_STREAM)
            filler.setblocking(False)
            with suppress(BlockingIOError):
                filler.connect((self.host, self.port))
            self._held.append(filler)

    def _accept(self, listener: socket.socket) -> None:
        """Take one connection; at once, so that none is lost when the door changes meanwhile."""
        try:
            sock, _ = listener.accept()
        except (BlockingIOError, ConnectionError):
            return  # it has left again
        sock.setblocking(False)
        self.accepted += 1
        if self.accept == "rst":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST_ON_CLOSE)
            sock.close()
        elif self.accept == "eof":
            sock.shutdown(socket.SHUT_WR)
            self._held.append(sock)  # closing now would turn into RST as soon as the client has written
        else:
            loop = asyncio.get_running_loop()
            task = loop.create_task(loop.connect_accepted_socket(self._protocol, sock), name="fake accept")
            self._welcomes.add(task)
            task.add_done_callback(self._welcomes.discard)
