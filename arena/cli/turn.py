"""`chat`: from the words of the command line to one send, and its end."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TextIO

from arena.cli.doors import Door
from arena.cli.screen import View
from arena.errors import ArenaError, BadRequest
from arena.names import canonical, checked
from arena.types import ChatMessage, ChatRequest, Failed, ModelInfo, ModelInstance, Options, Order


def split_prompt(words: Sequence[str], installed: Callable[[], Sequence[ModelInfo]]) -> tuple[list[str], str | None]:
    """The models and the prompt in `words`: the last word is the prompt unless it is the only one or names a model.

    `installed` is asked only when the last word could be a model's name.
    """
    *models, last = words
    if not models:
        return [last], None
    try:
        checked(last)
    except BadRequest:
        return models, last
    known = {canonical(info.name) for info in installed()}
    return ([*words], None) if canonical(last) in known else (models, last)


def complete_prompt(prompt: str | None, stdin: TextIO) -> str:
    """`prompt` with what is piped in after it; asked for when there is neither. Raises BadRequest if it is empty."""
    parts = [prompt] if prompt else []
    if not stdin.isatty():
        parts += [piped] if (piped := stdin.read().strip()) else []
    elif not parts:
        print("prompt: ", end="", file=sys.stderr, flush=True)
        parts.append(stdin.readline().strip())
    if not any(parts):
        raise BadRequest("There is no prompt: give it as the last argument or on standard input.")
    return "\n\n".join(parts)


def requests_for(
    models: Sequence[str], prompt: str, *, system: str | None, options: Options, think: bool | None
) -> list[ChatRequest]:
    """One request for each model; a model named twice gets two columns. Raises BadRequest for an illegal name."""
    seen: dict[str, int] = {}
    made = []
    for model in models:
        count = seen[model] = seen.get(model, 0) + 1
        name = checked(model) if count == 1 else f"{model} #{count}"
        instance = ModelInstance(name, model, options, system=system, think=think)
        made.append(ChatRequest(instance, (ChatMessage("user", prompt),)))
    return made


def run(door: Door, asked: Sequence[ChatRequest], order: Order, view: View) -> bool:
    """Send, show, and say whether every answer finished. Ctrl-C ends all of them; what they said stays on screen."""
    with view.live():
        try:
            door.chat(asked, order, view.apply)
        except KeyboardInterrupt:
            _end(view, "stopped", "Stopped.")
            raise
        except ArenaError as error:
            _end(view, error.code, error.message)
            raise
    return all(reply.error is None for reply in view.transcript.replies.values())


def _end(view: View, code: str, message: str) -> None:
    """Close the columns that are still open."""
    open_replies = [reply for reply in view.transcript.replies.values() if not reply.ended]
    view.apply([Failed(reply.instance_id, code, message) for reply in open_replies])
