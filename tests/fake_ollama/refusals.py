"""Requests answered without a generation, on every route: error statuses, pages, silence, cut connections."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from tests.fake_ollama.bending import MEGABYTE
from tests.fake_ollama.dialects import encoded
from tests.fake_ollama.exchange import PLAIN, Exchange

CRASH = "an error was encountered while running the model: unexpected EOF"
BUSY = "server busy, please try again.  maximum pending requests exceeded"
NESTED = '{"error":{"code":400,"message":"MESSAGE","type":"invalid_request_error"}}'
OVERFLOW = (
    '{"error":{"code":400,"message":"request (9000 tokens) exceeds the available context size (4096 tokens)",'
    '"type":"exceed_context_size_error","n_prompt_tokens":9000,"n_ctx":4096}}'
)


def _status_text(status: int, model: str) -> str:
    texts = {
        400: "invalid model name", 401: "unauthorized", 403: "ollama cloud is disabled: remote model is unavailable",
        404: f"model '{model}' not found", 429: "too many requests", 500: CRASH, 503: BUSY,
    }  # fmt: skip
    return texts.get(status, f"the fake answers {status}")


async def _status(exchange: Exchange) -> None:
    status = exchange.plan.number("c", 500)
    retry = (("Retry-After", exchange.plan.word("ra")),) if "ra" in exchange.plan.keys else ()
    match exchange.plan.word("kind"):
        case "nested":
            await exchange.error(status, OVERFLOW, retry)
        case "text":
            await exchange.reply(status, b"404 page not found", PLAIN, retry)
        case _:
            await exchange.error(status, _status_text(status, exchange.plan.model), retry)


async def _redirect(exchange: Exchange) -> None:
    target = exchange.fake.canary_url + "/redirected"
    await exchange.reply(exchange.plan.number("c", 302), b"", "", (("Location", target),))


async def _html(exchange: Exchange) -> None:
    page = b"<!doctype html><html><head><title>Sign in</title></head><body><h1>Guest network</h1></body></html>\n"
    await exchange.reply(exchange.plan.number("c", 200), page, "text/html; charset=utf-8")


async def _empty200(exchange: Exchange) -> None:
    await exchange.reply(200, b"")


async def _bigerr(exchange: Exchange) -> None:
    await exchange.error(exchange.plan.number("c", 500), "x" * (exchange.plan.number("mb", 10) * MEGABYTE))


async def _hang(exchange: Exchange) -> None:
    await exchange.hang()


async def _eof0(exchange: Exchange) -> None:
    exchange.finish()


async def _rst0(exchange: Exchange) -> None:
    exchange.reset()


async def _rst_head(exchange: Exchange) -> None:
    await exchange.send(b"HTTP/1.1 200 OK\r\n")
    exchange.reset()


async def _halfhead(exchange: Exchange) -> None:
    await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Type: applicat")
    await exchange.hang()


async def _http09(exchange: Exchange) -> None:
    await exchange.send(b"\x16\x03\x01 this is no HTTP at all\n\xff\xfe")
    exchange.finish()


Refuse = Callable[[Exchange], Awaitable[None]]

REFUSE: dict[str, Refuse] = {
    "status": _status, "redirect": _redirect, "html": _html, "empty200": _empty200, "bigerr": _bigerr,
    "hang": _hang, "eof0": _eof0, "rst0": _rst0, "rst-head": _rst_head, "halfhead": _halfhead, "http09": _http09,
}  # fmt: skip


# what happens on the kept-alive connection afterwards


async def _staleka(exchange: Exchange) -> None:
    if "ms" in exchange.plan.keys:
        await exchange.pause(exchange.plan.seconds("ms"))
    else:
        await exchange.connection.any_bytes()  # the race itself: closed on the reuse's first bytes
    exchange.keep_alive = False
    exchange.connection.close()


async def _pipeline(exchange: Exchange) -> None:
    body = encoded({"model": "pushed", "message": {"role": "assistant", "content": "PUSHED"}, "done": True})
    length = ("Content-Length", str(len(body)))
    await exchange.connection.send(exchange.head(200, (("Content-Type", "application/json"), length)) + body)


AFTER: dict[str, Refuse] = {"staleka": _staleka, "pipeline": _pipeline}
