"""What the compare tab keeps in the store, and how it comes back: line-ups as presets, sessions as conversations."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from arena.kept import Conversation, KeptColumn, KeptError, KeptFile, KeptTurn, Preset
from arena.streaming import Reply
from arena.types import ChatMessage, Failed, Metrics, ModelInstance
from arena.ui.attachments import Attachment
from arena.ui.lineup import ColumnChoice, Lineup, choice_from, widget_values
from arena.ui.sessions import Column, Session, Turn


def preset_of(lineup: Lineup, letters: Sequence[str]) -> Preset:
    """The columns with what they share; the prompt is not a part of it."""
    instances = (choice.instance(letter, "") for letter, choice in zip(letters, lineup.columns, strict=True))
    return Preset(tuple(instances), lineup.system.strip(), lineup.order)


def lineup_of(preset: Preset, most: int) -> Lineup:
    """The columns that a preset stands for, `most` of them."""
    return Lineup(tuple(map(_choice, preset.instances[:most])), preset.system, preset.order)


def conversation_of(session: Session) -> Conversation:
    """All visible columns with all their turns."""
    columns = (session.columns[letter] for letter in session.visible)
    return Conversation(tuple(KeptColumn(column.letter, tuple(map(_kept, column.turns))) for column in columns))


def has_pictures(conversation: Conversation) -> bool:
    """Was a picture attached to one of its prompts? The models do not see it any more."""
    turns = [turn for column in conversation.columns for turn in column.turns]
    return any(item.kind == "image" for turn in turns for item in turn.attachments)


def reopen(session: Session, conversation: Conversation, now_s: float) -> str:
    """Show a kept conversation in the place of what there was; returns the system prompt that all columns share."""
    kept = conversation.columns[: len(session.columns)]
    last = [column.turns[-1].instance if column.turns else None for column in kept]
    systems = {instance.system for instance in last if instance is not None}
    shared = (systems.pop() or "") if len(systems) == 1 else ""
    session.clear()
    session.arrange([ColumnChoice() if instance is None else _choice(instance, shared) for instance in last])
    for column, told in zip(session.columns.values(), kept, strict=False):
        column.turns += [_reopened(column, turn, now_s) for turn in told.turns]
        column.shown = True
    return shared


def _choice(instance: ModelInstance, shared: str = "") -> ColumnChoice:
    """The column's settings, every one in its range."""
    system = "" if instance.system is None or instance.system == shared else instance.system
    given = ColumnChoice(instance.model, instance.options, instance.think, system, instance.endpoint or "")
    return choice_from(widget_values(given))


def _kept(turn: Turn) -> KeptTurn:
    reply = turn.reply
    return KeptTurn(
        prompt=turn.shown,
        sent_prompt=turn.prompt.content,
        attachments=tuple(map(_file, turn.attachments)),
        instance=turn.instance,
        answer=reply.text,
        thinking=reply.thinking,
        complete=reply.metrics is not None,
        error=None if reply.error is None else KeptError(reply.error.code, reply.error.message),
        metrics=turn.figures,
        manifest=reply.manifest,
    )


def _file(item: Attachment) -> KeptFile:
    digest = item.sha256 or hashlib.sha256(item.content.encode()).hexdigest()
    return KeptFile(item.name, item.kind, item.size_bytes, digest)


def _reopened(column: Column, kept: KeptTurn, now_s: float) -> Turn:
    metrics = kept.metrics or Metrics()
    reply = Reply(column.letter, kept.answer, kept.thinking, kept.manifest, ended_s=now_s)
    if kept.complete:
        reply.metrics = metrics
    else:
        error = kept.error or KeptError("stopped", "It was not complete when it was kept.")
        reply.error = Failed(column.letter, error.code, error.error, metrics)
    files = tuple(
        Attachment(item.name, "image" if item.kind == "image" else "text", item.size_bytes, "", sha256=item.sha256)
        for item in kept.attachments
    )
    prompt = ChatMessage("user", kept.sent_prompt)
    return Turn(prompt, kept.prompt, files, kept.instance, reply, now_s, reopened=True)
