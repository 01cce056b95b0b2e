"""Anthropic's messages on any endpoint: as they are where it knows them, and else as OpenAI's chat.

Nobody need say which it is. An endpoint that does not know the route is asked again in the other words before the
client hears of it, and from then on at once.
"""

from __future__ import annotations

from typing import Final

import msgspec

from arena.anthropic import MessagesBody, MessageWriter, error_object
from arena.errors import ArenaError, ModelNotFound, UpstreamBroken
from arena.exchange import Inbound
from arena.fleet import Lease
from arena.openai.body import REFUSING, refused_keys
from arena.openai.failures import refusal, told
from arena.proxy.adapt import Adapted, Asking, readable
from arena.proxy.chat import ChatReader, chat_body, read_body
from arena.proxy.counters import Tail
from arena.proxy.dialect import EVENTS
from arena.proxy.failures import UNKNOWN_HERE
from arena.proxy.headers import header
from arena.proxy.held import Held
from arena.wire import RawHeaders

PATH: Final = "/v1/messages"
CHAT: Final = b"/v1/chat/completions"
WHOLE_BYTES: Final = 64 * 1024 * 1024
"""A longer answer than this is not translated."""
_TARGET: Final = PATH.encode("ascii")
_CODED: Final = frozenset({b"content-type", b"content-length", b"content-encoding", b"transfer-encoding", b"etag"})
JSON: Final = b"application/json"


def adapted(asking: Asking, tail: Tail, lease: Lease, inbound: Inbound, body: bytes) -> Adapted | None:
    """How a request for an answer goes to the endpoint of `lease`. Raises BadRequest for what has no other form."""
    endpoint = lease.endpoint
    lease.translated = False
    known = True if endpoint.kind == "engine" else endpoint.takes.get(PATH)
    if known:
        return None
    if known is None:
        return Adapted(_TARGET, inbound, body, Trial(asking, lease))
    asked = read_body(body, MessagesBody)
    lease.translated = True
    sent = msgspec.json.encode(chat_body(asked, endpoint.keys(asked.model)))
    return Adapted(CHAT, _plain(inbound), sent, Translated(asking, tail, lease, inbound, asked, sent))


def _plain(inbound: Inbound) -> Inbound:
    """Without the headers that concern Anthropic's servers only."""
    plain = readable(inbound)
    headers = [pair for pair in plain.headers if not pair[0].startswith(b"anthropic-")]
    return msgspec.structs.replace(plain, headers=headers)


class Trial(Held):
    """The first answer of an endpoint of which nobody knows whether it has the route."""

    def keeps(self) -> bool:
        """Does it look as if it had not?"""
        status, endpoint = self.status, self.lease.endpoint
        if status < 300:
            endpoint.takes[PATH] = True
        if status not in UNKNOWN_HERE:
            return False
        # Ollama knows its routes in plain text: its JSON is about the model
        return not endpoint.native or b"json" not in (header(self.headers, b"content-type") or b"")

    def decided(self, body: bytes) -> bool:
        """Ask again in OpenAI's words, unless it is only the model that is not there."""
        endpoint = self.lease.endpoint
        if isinstance(refusal(self.status, (), body, endpoint.name), ModelNotFound):
            return False
        endpoint.takes[PATH] = False
        self.asking.again()
        return True


class Translated:
    """Makes an answer of OpenAI's chat one of Anthropic's. What is no stream, refusals too, waits until it is whole."""

    def __init__(
        self, asking: Asking, tail: Tail, lease: Lease, inbound: Inbound, asked: MessagesBody, sent: bytes
    ) -> None:
        self._asking = asking
        self._tail = tail
        self._lease = lease
        self._request_id = inbound.caller.request_id
        self._sent = sent
        self._name = lease.endpoint.name
        self._model = asked.model
        self._stream = asked.stream
        self._status = 0
        self._headers: RawHeaders = []
        self._body: bytearray | None = None
        self._coding = b""
        self._writer = MessageWriter(asked.model, keep=not asked.stream)
        self._reader = ChatReader(self._name, self._writer, asked.stop_sequences or ())

    def on_head(self, status: int, headers: RawHeaders) -> None:
        """The endpoint answers."""
        self._status = status
        self._coding = header(headers, b"content-encoding") or b""
        self._headers = [pair for pair in headers if pair[0] not in _CODED]
        media_type = header(headers, b"content-type") or b""
        if status < 300 and media_type.startswith(EVENTS):
            self._asking.on_head(status, [*self._headers, (b"content-type", EVENTS)])
        elif 300 <= status < 400 or b"html" in media_type:
            self._asking.on_head(status, headers)  # no server of models: there is nothing to translate
        else:
            self._body = bytearray()

    def on_data(self, data: bytes) -> None:
        """A piece of the answer. Raises UpstreamError and its kin, which end it."""
        if self._coding not in (b"", b"identity"):
            text = f"{self._name} packed its answer, although it was told not to"
            raise UpstreamBroken(text, endpoint=self._name)
        if self._body is None:
            try:
                self._reader.feed(data)
            finally:
                self._hand_over()  # what came before an error was said all the same
            return
        self._body += data
        if len(self._body) > WHOLE_BYTES:
            text = f"{self._name} sent an answer of more than {WHOLE_BYTES // 1024 // 1024} MiB"
            raise UpstreamBroken(text, endpoint=self._name)

    def on_end(self, error: BaseException | None) -> None:
        """The answer is complete, or the endpoint has failed."""
        body = self._body
        if error is not None or (body is not None and not body):
            self._asking.on_end(error)
        elif body is None:
            self._over()
        elif self._status >= 400:
            self._refused(bytes(body))
        else:
            self._told(bytes(body))

    def _over(self) -> None:
        """The end of a stream."""
        broken: ArenaError | None = None
        try:
            self._reader.over()
        except ArenaError as error:
            broken = error
        self._hand_over()
        self._asking.on_end(broken)

    def _hand_over(self) -> None:
        self._tail.estimated = not self._reader.counted
        if events := self._writer.events():
            self._asking.on_data(events)

    def _told(self, body: bytes) -> None:
        """A whole answer, in the form in which it was wanted."""
        try:
            self._reader.whole(body)
            told = self._writer.events() if self._stream else msgspec.json.encode(self._writer.message())
        except ArenaError as error:
            self._asking.on_end(error)
        else:
            self._tail.estimated = not self._reader.counted
            self._answer(told, EVENTS if self._stream else JSON)

    def _refused(self, body: bytes) -> None:
        """A refusal, in Anthropic's form; where it is of an optional key of ours it is asked again without it."""
        endpoint = self._lease.endpoint
        keys = endpoint.keys(self._model)
        if self._status in REFUSING and (refused := refused_keys(msgspec.json.decode(self._sent), keys, body)):
            endpoint.takes |= dict.fromkeys(refused, False)
            self._asking.again()
            return
        words = told(body) or f"{self._name} answered with status {self._status}"
        self._answer(msgspec.json.encode({**error_object(self._status, words), "request_id": self._request_id}), JSON)

    def _answer(self, body: bytes, media_type: bytes) -> None:
        headers = [(b"content-type", media_type), (b"content-length", b"%d" % len(body))]
        self._asking.on_head(self._status, [*self._headers, *headers])
        if not self._lease.closed:  # or another endpoint is being asked by now
            self._asking.on_data(body)
            self._asking.on_end(None)
