"""Turns and sessions in every state, for the tests of what the page makes of them."""

from __future__ import annotations

from typing import Any

from arena.streaming import Reply
from arena.types import ChatMessage, Failed, Manifest, Metrics, ModelInstance, Options
from arena.ui.attachments import Attachment
from arena.ui.lineup import ColumnChoice
from arena.ui.sessions import Session, Sessions, Turn

EVIL = "<img src=x onerror=alert(1)>\"'&"
FULL = Metrics(
    tokens=120, duration_s=2.0, tokens_per_sec=60.0, rate_reliable=True, ttft_s=0.5, first_visible_s=0.5, total_s=3.0,
    server_total_s=3.0, load_s=0.4, queue_s=0.1, prompt_tokens=9, prompt_s=0.5,
)  # fmt: skip


def turn(
    letter: str = "A",
    text: str = "",
    *,
    thinking: str = "",
    metrics: Metrics | None = None,
    error: Failed | None = None,
    started_s: float | None = 1.0,
    first_s: float | None = None,
    model: str = "m",
    prompt: str = "Why?",
    attachments: tuple[Attachment, ...] = (),
    **more: Any,
) -> Turn:
    """A turn that was asked at second 0; running unless it has metrics or an error."""
    reply = Reply(letter, text, thinking, metrics=metrics, error=error, started_s=started_s, first_s=first_s)
    instance = ModelInstance(letter, model, Options(temperature=0.3))
    return Turn(ChatMessage("user", prompt), prompt, attachments, instance, reply, 0.0, **more)


def failed(code: str, message: str = "It did not work.", **more: Any) -> Failed:
    """How an answer of column A ended."""
    return Failed("A", code, message, **more)


def with_manifest(one: Turn) -> Turn:
    """The same turn with a manifest."""
    one.reply.manifest = Manifest("m", "fake", digest="d" * 64, options_sent={"temperature": 0.3})
    return one


def session_with(**turns: list[Turn]) -> Session:
    """A session whose columns have these turns."""
    session = Sessions("ABCDEF").of("s")
    session.set_columns([ColumnChoice("m")] * len(turns))
    for letter, told in turns.items():
        session.columns[letter].turns += told
    return session
