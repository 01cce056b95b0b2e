"""`/api/pull` and its failures: progress lines layer by layer, success only in the line `success`."""

from __future__ import annotations

from collections.abc import AsyncIterator

from tests.fake_ollama import catalogue
from tests.fake_ollama.dialects import Json, Native
from tests.fake_ollama.exchange import Exchange
from tests.fake_ollama.turn import BodyStyle, Turn

ERRORS = (
    "pull model manifest: file does not exist",
    "412: this model requires a newer version of Ollama",
    "digest mismatch, file must be downloaded again: want sha256:aa, got sha256:bb",
)
NO_SPACE = "write /var/lib/ollama/models/blobs/sha256-aa-partial: no space left on device"


class Failed(Exception):
    """The registry's or the disk's error, as Ollama words it."""


class Cut(Exception):
    """The connection is to be cut here."""


async def pull(exchange: Exchange) -> None:
    """Play a pull; on success the model is listed."""
    stream = exchange.body.get("stream") is not False
    turn = Turn(exchange, Native(exchange.plan.model), (), BodyStyle(), stream=stream)
    try:
        async for line in _lines(exchange):
            if stream:
                await turn.line(line)
    except Failed as failure:
        await turn.error(str(failure))
        return
    except Cut:
        exchange.reset()
        return
    exchange.fake.add_model(exchange.plan.model)
    if stream:
        await turn.raw(turn.framed({"status": "success"}), last=True)
    else:
        await exchange.json({"status": "success"})


async def _lines(exchange: Exchange) -> AsyncIterator[Json]:
    plan = exchange.plan
    yield {"status": "pulling manifest"}
    if plan.scenario == "pull-err" or plan.model.lower().startswith("missing"):
        raise Failed(ERRORS[plan.number("k", 0) % len(ERRORS)])
    steps, total = plan.number("n", 10), plan.number("size", 1_000_000)
    layer = f"sha256:{catalogue.digest(plan.model)}"
    for step in range(steps + 1):
        await _gap(exchange, step)
        percent = step * 100 // steps
        if percent >= plan.number("cut", 101):
            raise Cut
        if plan.scenario == "pull-disk" and percent >= 50:
            raise Failed(NO_SPACE)
        done = {"completed": total * step // steps} if step else {}
        yield {"status": f"pulling {layer[7:19]}", "digest": layer, "total": total, **done}
        if plan.scenario == "pull-stall" and percent >= 50:
            await exchange.hang()
    small = f"sha256:{catalogue.digest(plan.model + '-params')}"
    yield {"status": f"pulling {small[7:19]}", "digest": small, "total": 512, "completed": 512}
    yield {"status": "verifying sha256 digest"}
    yield {"status": "writing manifest"}


async def _gap(exchange: Exchange, step: int) -> None:
    if exchange.plan.scenario == "gate" and step:
        await exchange.fake.gates.take(exchange.plan.word("id"), exchange.connection)
    await exchange.pause(exchange.plan.seconds("ms"))
    exchange.record.tokens = step
    exchange.fake.changed()
