"""A column's turns as the chat shows them: prompts with their files, folded thinking, answers.

An answer comes here when it has ended; while it grows, it is a draft.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from arena.ui.attachments import Attachment
from arena.ui.markdown import safe_markdown
from arena.ui.parts import cut_at
from arena.ui.sessions import Turn

SHOWN_TURNS = 10
"""Turns that the page shows; older ones stay in the model's history and in the export."""

Message = dict[str, Any]


def chat(turns: Sequence[Turn]) -> list[Message]:
    """The messages of a column's chat, for a Gradio Chatbot of type messages."""
    messages: list[Message] = []
    if (hidden := len(turns) - SHOWN_TURNS) > 0:
        word = "turn is" if hidden == 1 else "turns are"
        messages.append(_assistant(f"*{hidden} earlier {word} not shown; the model and the export have them.*"))
    for turn in turns[-SHOWN_TURNS:]:
        messages += _prompt(turn)
        messages += _answer(turn, last=turn is turns[-1])
    return messages


def _prompt(turn: Turn) -> list[Message]:
    chips = " ".join(f"`📎 {_chip(item)}`" for item in turn.attachments)
    text = "\n\n".join(part for part in (safe_markdown(turn.shown), chips) if part)
    messages: list[Message] = [{"role": "user", "content": text}]
    pictures = [item for item in turn.attachments if item.kind == "image" and item.path]
    return messages + [{"role": "user", "content": {"path": item.path, "alt_text": item.name}} for item in pictures]


def _chip(item: Attachment) -> str:
    name = " ".join(item.name.replace("`", "'").split())  # an empty line would end the chip, and let HTML through
    return f"{name} · {max(1, round(item.size_bytes / 1000)):,} kB"


def _answer(turn: Turn, *, last: bool) -> list[Message]:
    reply = turn.reply
    messages: list[Message] = []
    if reply.thinking:
        messages.append(_thinking(turn))
    if reply.text:
        messages.append(_assistant(safe_markdown(reply.text)))
    if reply.error is not None and not last:
        code = reply.error.code
        messages.append(_assistant("*Stopped here.*" if code == "stopped" else f"*Failed: {safe_markdown(code)}*"))
    elif reply.metrics is not None and not reply.text:
        messages.append(_assistant("*The model ended without a word.*"))
    elif reply.metrics is not None and reply.metrics.cut_by_limit and not last:
        messages.append(_assistant(f"*Cut here, {cut_at(turn)}.*"))
    return messages


def _thinking(turn: Turn) -> Message:
    content = safe_markdown(turn.reply.thinking)
    return {"role": "assistant", "content": content, "metadata": {"title": "Thought", "status": "done"}}


def _assistant(text: str) -> Message:
    return {"role": "assistant", "content": text}
