"""Server-sent events, cut at the empty line and nothing else."""

from __future__ import annotations

from collections.abc import Iterator

from arena.errors import UpstreamBroken

MAX_EVENT_BYTES = 8 * 1024 * 1024
DONE = b"[DONE]"


class Events:
    """Hands on whole events and keeps the half one."""

    __slots__ = ("_tail", "endpoint")

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self._tail = bytearray()

    def feed(self, data: bytes) -> bytes:
        """Everything up to the last empty line so far, or nothing. Raises UpstreamBroken for an event over 8 MiB."""
        tail = self._tail
        if not tail:
            cut = _end(data, 0)
            if cut < len(data):
                tail += data[cut:]
                self._check()
            return data[:cut]
        start = max(0, len(tail) - 3)  # an empty line may be split over two reads
        tail += data
        cut = _end(tail, start)
        whole = bytes(tail[:cut])
        del tail[:cut]
        self._check()
        return whole

    def rest(self) -> bytes:
        """The half event at the end. What a server that does not stream sends instead, a bare document, is one too."""
        rest = bytes(self._tail).strip()
        return b"data: " + rest if rest[:1] in (b"{", b"<") else rest

    @property
    def waiting_bytes(self) -> int:
        """The size of the half event so far."""
        return len(self._tail)

    def taken(self) -> bytes:
        """The same as it came, which is kept no longer."""
        rest = bytes(self._tail)
        self._tail.clear()
        return rest

    def _check(self) -> None:
        if len(self._tail) > MAX_EVENT_BYTES:
            self._tail.clear()
            text = f"{self.endpoint} sent an event of more than {MAX_EVENT_BYTES // 1024 // 1024} MiB"
            raise UpstreamBroken(text, endpoint=self.endpoint, code="line_too_long")


def _end(data: bytes | bytearray, start: int) -> int:
    """Where the last whole event ends; 0 if none does."""
    plain, carried = data.rfind(b"\n\n", start), data.rfind(b"\n\r\n", start)
    return max(plain + 2 if plain >= 0 else 0, carried + 3 if carried >= 0 else 0)


def payloads(whole: bytes) -> Iterator[bytes]:
    """The data of each event, its lines joined; comments and other fields are left out."""
    for event in whole.replace(b"\r\n", b"\n").split(b"\n\n"):
        if data := b"\n".join(filter(None, map(_data, event.split(b"\n")))):
            yield data


def _data(line: bytes) -> bytes:
    """What a line adds to the data of its event. A bare object is no field, but some servers put errors that way."""
    if line.startswith(b"data:"):
        return line[5:].strip()
    if line.startswith(b"error:"):
        return b'{"error":%b}' % line[6:].strip()
    return line if line.startswith(b"{") else b""


def plain_lines(whole: bytes) -> bytes | None:
    """The events as lines of JSON, when they are as nearly every server writes them; else None.

    No JSON text holds a raw line end, so that what is replaced can only be the border between two events.
    """
    if not whole.startswith(b"data: {"):
        return None
    return whole[6:].replace(b"\n\ndata: ", b"\n")
