"""The conversations of everyone who has the page open, kept by the server and keyed by the page's session.

A session is one open page. When it leaves, its answers stop at once; its conversations are kept a while, because a
sleeping laptop leaves too and comes back with the same page.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

import msgspec

from arena.streaming import Reply
from arena.types import ChatMessage, ChatRequest, Failed, Metrics, ModelInfo, ModelInstance, Order
from arena.ui.attachments import Attachment, inlined
from arena.ui.lineup import ColumnChoice

if TYPE_CHECKING:
    from arena.compare import Run

Known = Callable[[str], ModelInfo | None]
"""What is remembered of a model, without asking anyone."""

KEPT_S = 3600.0
"""How long a left session's conversations are kept, in seconds."""
KEPT_SESSIONS = 64
"""How many left sessions are kept."""
MOST_SESSIONS = 1000
"""How many sessions there may be in all: a caller that is no page makes new ones without ever leaving any."""


@dataclass(slots=True)
class Turn:
    """One prompt and one column's answer to it, with what was voted. Times are seconds on the page's clock.

    `reopened`: it comes from a kept conversation, so nobody can say that this is what the model has answered.
    """

    prompt: ChatMessage
    shown: str
    attachments: tuple[Attachment, ...]
    instance: ModelInstance
    reply: Reply
    asked_s: float
    in_memory: bool | None = None
    waits_for: str = ""
    heard_s: float | None = None
    ballot: Literal["", "best", "other"] = ""
    reopened: bool = False

    @property
    def figures(self) -> Metrics | None:
        """What the answer cost, complete or not; None while it runs."""
        reply = self.reply
        return reply.metrics if reply.metrics is not None else reply.error.metrics if reply.error is not None else None


@dataclass(frozen=True, slots=True)
class Opened:
    """What was opened and has still to be asked."""

    requests: tuple[ChatRequest, ...]
    order: Order = "together"


@dataclass(slots=True)
class Column:
    """One column's own history, and the run that answers in it now. `shown`: the page has its last answer whole."""

    letter: str
    turns: list[Turn] = field(default_factory=list)
    run: Run | None = None
    opened: Opened | None = None
    shown: bool = True

    @property
    def last(self) -> Turn | None:
        """The latest turn."""
        return self.turns[-1] if self.turns else None

    @property
    def busy(self) -> bool:
        """Is an answer under way?"""
        return bool(self.turns) and not self.turns[-1].reply.ended

    def history(self) -> tuple[ChatMessage, ...]:
        """What the model is told of earlier turns: those that brought it to say something."""
        told = [turn for turn in self.turns if turn.reply.text]
        return tuple(message for turn in told for message in (turn.prompt, ChatMessage("assistant", turn.reply.text)))

    def stop(self) -> None:
        """Stop the answer under way; what was said is kept. One that was not asked yet ends at once."""
        if not self.busy:
            return
        if self.run is not None:
            self.run.stop(self.letter)
        else:
            fail(self.turns[-1], "stopped", "Stopped.", self.turns[-1].asked_s)


@dataclass(frozen=True, slots=True)
class Asking:
    """A prompt on its way to some columns."""

    text: str
    attachments: tuple[Attachment, ...]
    choices: Mapping[str, ColumnChoice]
    system: str
    order: Order


@dataclass(slots=True)
class Session:
    """One open page: its columns, and what the next prompt does. `kept` is the id of its conversation in the store."""

    columns: dict[str, Column]
    visible: list[str]
    choices: dict[str, ColumnChoice]
    drawer: str = "A"
    system: str = ""
    only: str | None = None
    editing: bool = False
    asking: Asking | None = None
    opened: Opened | None = None
    confirming: str | None = None
    kept: str = ""
    left_s: float | None = None

    @property
    def set_up(self) -> bool:
        """Has the page told its columns' settings to this session? A forgotten session has to be told again."""
        return bool(self.visible)

    def set_columns(self, choices: Sequence[ColumnChoice]) -> None:
        """Show one column for each of `choices`, at least one and no more than there are."""
        self.choices |= dict(zip(self.columns, choices, strict=False))
        self.visible = list(self.columns)[: max(1, len(choices))]

    def arrange(self, choices: Sequence[ColumnChoice]) -> None:
        """Show other columns: those that go are stopped, those that come are empty, and the rest keep their turns."""
        before = self.visible
        self.set_columns(choices)
        for letter in set(before) ^ set(self.visible):
            self.columns[letter].stop()
            if letter in self.visible:
                self.columns[letter].turns.clear()
        if self.only not in self.visible:
            self.only = None

    def choose(self, letter: str, model: str, endpoint: str = "") -> None:
        """Give column `letter` another model, from one endpoint or from any; its settings stay."""
        self.choices[letter] = msgspec.structs.replace(self.choices[letter], model=model, endpoint=endpoint)

    @property
    def taking_part(self) -> list[str]:
        """The columns that the next prompt goes to."""
        return [self.only] if self.only in self.visible else list(self.visible)

    @property
    def busy(self) -> list[str]:
        """The columns that answer now."""
        return [letter for letter, column in self.columns.items() if column.busy]

    def add(self) -> str | None:
        """Show one more column, emptied; None when all are shown."""
        for letter, column in self.columns.items():
            if letter not in self.visible:
                column.turns.clear()
                self.visible.append(letter)
                self.visible.sort()
                return letter
        return None

    def close(self, letter: str) -> None:
        """Stop and hide a column; the last one stays."""
        if letter not in self.visible or len(self.visible) == 1:
            return
        self.columns[letter].stop()
        self.visible.remove(letter)
        if self.only == letter:
            self.only = None

    def clear(self) -> None:
        """Forget all conversations; the columns and their settings stay."""
        self.stop()
        for column in self.columns.values():
            column.turns.clear()
        self.only, self.editing, self.asking, self.kept = None, False, None, ""

    def stop(self) -> None:
        """Stop all answers."""
        for column in self.columns.values():
            column.stop()

    def last_prompt(self) -> Turn | None:
        """The latest turn of the columns that take part: what "edit" brings back."""
        turns = [turn for letter in self.taking_part if (turn := self.columns[letter].last) is not None]
        return max(turns, key=lambda turn: turn.asked_s, default=None)


class Sessions:
    """All open pages. Owned by the page, so that two apps in one process do not meet."""

    def __init__(self, letters: Sequence[str], clock: Callable[[], float] = time.monotonic) -> None:
        self._letters = tuple(letters)
        self._clock = clock
        self._sessions: OrderedDict[str, Session] = OrderedDict()

    def __len__(self) -> int:
        return sum(session.left_s is None for session in self._sessions.values())

    @property
    def running(self) -> int:
        """Answers under way on all pages."""
        return sum(len(session.busy) for session in self._sessions.values())

    def of(self, key: str | None) -> Session:
        """The session of an open page, new or come back."""
        name = key or ""
        session = self._sessions.get(name)
        if session is None:
            while len(self._sessions) >= MOST_SESSIONS:
                _, oldest = self._sessions.popitem(last=False)
                oldest.stop()
            session = self._sessions[name] = Session(
                {letter: Column(letter) for letter in self._letters}, [], dict.fromkeys(self._letters, ColumnChoice())
            )
        session.left_s = None
        self._sessions.move_to_end(name)
        return session

    def leave(self, key: str | None) -> None:
        """The page was closed, reloaded or lost: stop its answers now, forget its words later."""
        session = self._sessions.get(key or "")
        if session is None:
            return
        session.stop()
        session.left_s = self._clock()
        self._sessions.move_to_end(key or "")
        self._forget()

    def _forget(self) -> None:
        now = self._clock()
        left = [(name, session.left_s) for name, session in self._sessions.items() if session.left_s is not None]
        for index, (name, left_s) in enumerate(left):
            if now - left_s > KEPT_S or index < len(left) - KEPT_SESSIONS:
                del self._sessions[name]


def begin(session: Session, asking: Asking, known: Known, now_s: float) -> list[ChatRequest]:
    """Open a turn in every column that takes part; returns what to ask the models.

    A column that cannot be asked gets its own error at once and is left out.
    """
    images = tuple(item.content for item in asking.attachments if item.kind == "image")
    message = ChatMessage("user", inlined(asking.text, asking.attachments), images=images)
    requests: list[ChatRequest] = []
    for letter in session.taking_part:
        column = session.columns[letter]
        if session.editing and column.turns:
            column.turns.pop()
        instance = asking.choices[letter].instance(letter, asking.system)
        request = _open(column, message, asking.text, asking.attachments, instance, known, now_s)
        requests += [request] if request is not None else []
    session.editing = False
    if asking.order == "one_after_another":
        for before, request in pairwise(requests):
            session.columns[request.instance.id].turns[-1].waits_for = before.instance.id
    return requests


def again(column: Column, choice: ColumnChoice, system: str, known: Known, now_s: float) -> ChatRequest | None:
    """Open the column's last turn anew, with the settings it has now; None if there is nothing to repeat."""
    if not column.turns or column.busy:
        return None
    turn = column.turns.pop()
    instance = choice.instance(column.letter, system)
    return _open(column, turn.prompt, turn.shown, turn.attachments, instance, known, now_s)


def _open(
    column: Column,
    message: ChatMessage,
    shown: str,
    attachments: tuple[Attachment, ...],
    instance: ModelInstance,
    known: Known,
    now_s: float,
) -> ChatRequest | None:
    history = column.history()
    info = known(instance.model)
    turn = Turn(message, shown, attachments, instance, Reply(column.letter), now_s)
    turn.in_memory = None if info is None else bool(info.loaded_on)
    column.turns.append(turn)
    column.shown = False
    if not instance.model:
        fail(turn, "no_model", "Choose a model for this column.", now_s)
        return None
    blind = info is not None and info.capabilities is not None and "vision" not in info.capabilities
    if message.images and blind:
        fail(turn, "no_vision", f"{instance.model} cannot see pictures.", now_s)
        return None
    return ChatRequest(instance, (*history, message))


def fail(turn: Turn, code: str, message: str, now_s: float) -> None:
    """End a turn with an error of our own."""
    turn.reply.error, turn.reply.ended_s = Failed(turn.reply.instance_id, code, message), now_s
