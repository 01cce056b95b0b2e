"""One generation being told: its tokens in time, and the framing they go out in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from tests.fake_ollama.dialects import LOAD_NS, Answer, Dialect, Json, encoded
from tests.fake_ollama.exchange import JSON, Exchange
from tests.fake_ollama.oracle import draw, tokens_of

BREATHE_EVERY = 16


def same(value: Json) -> Json:
    """Change nothing."""
    return value


@dataclass(frozen=True)
class BodyStyle:
    """How the body of a good stream is bent. `chunk` and `segment` are sizes in bytes; 0 leaves lines whole."""

    framing: Literal["chunked", "eof"] = "chunked"
    chunk: int = 0
    segment: int = 0
    newline: bytes = b"\n"
    between: bytes = b""
    edit: Callable[[Json], Json] = same
    edit_final: Callable[[Json], Json] = same
    tools: tuple[Json, ...] = ()
    gap_ms: int = 0
    jitter: bool = False
    load_ms: int = 0
    think: int = 0
    kbytes_per_s: int = 0


class Turn:
    """The telling of one answer, which a scenario steers: `play`, `line`, `raw`, `final`, `end`.

    With `stream: false` tokens are kept back and `end` sends one object. No byte goes out before the first line.
    """

    def __init__(
        self, exchange: Exchange, dialect: Dialect, said: tuple[str, ...], style: BodyStyle, *, stream: bool
    ) -> None:
        self.exchange, self.plan = exchange, exchange.plan
        self.dialect, self.style, self.stream = dialect, style, stream
        wanted = _limit(exchange)
        thoughts = tokens_of(self.plan.number("think", style.think), seed=1000 + self.plan.number("seed", 1))
        if exchange.body.get("think") is False:
            thoughts = ()
        self.thoughts = thoughts[:wanted]
        self.tokens = said if wanted is None else said[: wanted - len(self.thoughts)]
        self.reason = "stop" if len(self.tokens) == len(said) and len(self.thoughts) == len(thoughts) else "length"
        self.sent = 0
        self._started = self._closed = self._called = False

    def answer(self) -> Answer:
        """What has been told so far, and its cost."""
        return Answer(
            text="".join(self.tokens[: self.sent]),
            thinking="".join(self.thoughts),
            tokens=self.sent + len(self.thoughts),
            prompt_tokens=self.plan.number("prompt", _prompt_tokens(self.exchange.body)),
            reason=self.reason,
            load_ns=self._load_ms * 1_000_000 or LOAD_NS,
            queue_ns=self.plan.number("queue", 0) * 1_000_000,
            tools=self.style.tools if self._called else (),
        )

    @property
    def _load_ms(self) -> int:
        return self.plan.number("load", self.style.load_ms)

    async def play(self, upto: int | None = None) -> None:
        """Tell the thoughts and then the tokens up to number `upto` (default: all)."""
        if not self._started:
            await self._start()
        end = len(self.tokens) if upto is None else min(upto, len(self.tokens))
        while self.sent < end:
            await self.token(self.tokens[self.sent])
            self.sent += 1

    async def token(self, text: str) -> None:
        """Tell one token after its gap; gated turns wait for their release."""
        index = self.exchange.record.tokens
        await self._gap(index)
        if self.stream:
            await self.line(self.dialect.delta(index, text))
        self.exchange.record.tokens += 1
        self.exchange.fake.changed()
        if index % BREATHE_EVERY == 0:
            await self.exchange.connection.breathe()

    async def call_tools(self) -> None:
        """Tell the tool calls, whole in one line."""
        if self.style.tools:
            self._called = True
            if self.stream:
                await self.line(self.dialect.delta(self.exchange.record.tokens, tools=self.style.tools))

    async def line(self, value: Json) -> None:
        """One value of the stream."""
        await self.raw(self.framed(self.style.edit(value)))

    def framed(self, value: Json) -> bytes:
        """The bytes of one value, line end included."""
        return self.style.between + self.dialect.frame(value, self.style.newline)

    async def final(self, *, close: bool = True) -> None:
        """The closing lines with the counters; `close` sends the end of the body in the same write."""
        if self.stream:
            first, *rest = self.dialect.final(self.answer())
            closing = [self.framed(self.style.edit(self.style.edit_final(first)))]
            closing += [self.framed(value) for value in rest]
            await self.raw(b"".join(closing) + self.dialect.tail, last=close)

    async def end(self, *, done: bool = True) -> None:
        """Close the body; for `stream: false` send the one object."""
        if not self.stream:
            value = self.style.edit(self.style.edit_final(self.dialect.whole(self.answer(), done=done)))
            await self.exchange.reply(200, encoded(value))
        elif self.style.framing == "eof":
            self.exchange.finish()
        elif not self._closed:
            await self._put(b"0\r\n\r\n")

    async def error(self, text: str) -> None:
        """An error at this point: a line in a stream, else status 500."""
        if not self.stream:
            await self.exchange.error(500, text)
            return
        await self.line(self.dialect.error(text))
        await self.end()

    async def broken(self, data: bytes) -> None:
        """Bytes that are no valid value; for `stream: false` they are the whole body."""
        if self.stream:
            await self.raw(data)
        else:
            await self.exchange.reply(200, data)

    def rendered(self) -> bytes:
        """The body of the whole good answer as it would be unframed."""
        self.sent = len(self.tokens)
        self.exchange.record.tokens = self.sent
        if not self.stream:
            return encoded(self.dialect.whole(self.answer()))
        values = [self.dialect.delta(index, text) for index, text in enumerate(self.tokens)]
        values += self.dialect.final(self.answer())
        return b"".join(self.dialect.frame(value) for value in values) + self.dialect.tail

    async def raw(self, data: bytes, *, last: bool = False) -> None:
        """Body bytes; `last` lets the end of the body go out in the same write."""
        step = self.style.chunk or len(data)
        pieces = [data[index : index + step] for index in range(0, len(data), step)]
        framed = [_chunked(piece) if self.style.framing == "chunked" else piece for piece in pieces]
        if last and self.style.framing == "chunked" and not self.style.chunk:
            framed[-1] += b"0\r\n\r\n"
            self._closed = True
        for piece in framed:
            await self._put(piece)
            if self.style.chunk:
                await self.exchange.connection.breathe()
        if self.style.kbytes_per_s:
            await self.exchange.pause(len(data) / 1024 / self.style.kbytes_per_s)

    @property
    def content_type(self) -> str:
        """The answer's type."""
        return self.dialect.content_type if self.stream else JSON

    async def _start(self) -> None:
        self._started = True
        await self.exchange.pause(self._load_ms / 1000)
        self.exchange.fake.load(self.plan.model, self.exchange.body)
        await self.exchange.pause(self.plan.seconds("ttft"))
        for text in self.thoughts:
            await self._gap(self.exchange.record.tokens)
            if self.stream:
                await self.line(self.dialect.delta(self.exchange.record.tokens, thinking=text))
            self.exchange.record.tokens += 1

    async def _put(self, data: bytes) -> None:
        if self.exchange.record.first_byte_at is None:
            framing = (("Transfer-Encoding", "chunked"),) if self.style.framing == "chunked" else ()
            self.exchange.keep_alive = self.exchange.keep_alive and self.style.framing == "chunked"
            head = self.exchange.head(200, (("Content-Type", self.content_type), *framing))
            data = await self.exchange.send_head(head) + data
        step = self.style.segment or len(data)
        for index in range(0, len(data), step):
            await self.exchange.send(data[index : index + step])
            if self.style.segment:
                await self.exchange.connection.breathe()

    async def _gap(self, index: int) -> None:
        if self.plan.scenario == "gate":
            await self.exchange.fake.gates.take(self.plan.word("id"), self.exchange.connection)
        gap_ms = self.plan.number("ms", self.style.gap_ms)
        if self.style.jitter:
            gap_ms = draw(self.plan.number("seed", 1), index, 2 * gap_ms + 1)
        await self.exchange.pause(gap_ms / 1000)


def _chunked(piece: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(piece), piece)


def _limit(exchange: Exchange) -> int | None:
    """The token limit of the request: `options.num_predict`, on OpenAI's routes `max_tokens`; None without one."""
    options = exchange.body.get("options")
    limit = options.get("num_predict") if isinstance(options, dict) else None
    if exchange.openai:
        limit = exchange.body.get("max_tokens")
    return int(limit) if isinstance(limit, int | float) and limit > 0 else None


def _prompt_tokens(body: Json) -> int:
    """A made-up but fixed measure of the prompt: its words, at least one."""
    messages = body.get("messages")
    contents = [m.get("content") for m in messages if isinstance(m, dict)] if isinstance(messages, list) else []
    return max(1, sum(len(str(text).split()) for text in [*contents, body.get("prompt") or ""]))
