"""The battles of everyone who has the page open, kept by the server. A table holds one battle; before the vote it knows
no more than its player may know, so nothing that is drawn from it can give a model away.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from arena.battle import BattleView, Shown
from arena.ratings import Rating

Phase = Literal["idle", "answering", "ready", "failed", "voted"]
"""`idle`: nothing asked yet. `ready`: the vote is open. `failed`: over without a vote."""

MOST_TABLES = 1000
"""How many tables there may be in all. First go those without a battle under way, then those that were left, each time
the one that was left alone for longest: so nobody ends the battles of others by opening pages."""
MOST_SIDES = 4
"""Who can fight in one battle at most."""


@dataclass(slots=True)
class Table:
    """One open page's battle. `told` is what the user has to be told; times are on the page's clock, in seconds.

    `drawing` stands for a battle that is about to begin, `voting` for a vote on its way to the store. `most`: how many
    sides the next one can have, `repeats` how often the voter had compared these models on this prompt before, `again`
    the prompt of a turn that came to nothing.
    """

    owner: str = ""
    phase: Phase = "idle"
    battle_id: str = ""
    sides: tuple[str, ...] = ("a", "b")
    prompts: list[str] = field(default_factory=list)
    said: dict[str, list[str]] = field(default_factory=dict)
    asked_s: float = 0.0
    most: int = MOST_SIDES
    repeats: int = 0
    again: str = ""
    waiting: bool = False
    drawing: object | None = None
    voting: bool = False
    reading: asyncio.Task[None] | None = None
    told: str = ""
    tries: int = 0
    votes_left: int | None = None
    outcome: BattleView | None = None
    ratings: Mapping[str, Rating] = field(default_factory=dict)
    left: bool = False
    _whole: set[str] = field(default_factory=set)

    def draw(self) -> object:
        """Another battle is about to begin, and no further one. It may only while `drawing` is what this returns."""
        self.phase, self.drawing = "answering", object()
        return self.drawing

    def undraw(self, phase: Phase, why: str) -> None:
        """It could not begin: all is as it was before, in `phase`."""
        self.phase, self.drawing, self.told = phase, None, why

    def begin(self, battle_id: str, sides: tuple[str, ...], owner: str, votes_left: int | None = None) -> None:
        """Another battle; the last one is over for this page."""
        self.clear()
        self.battle_id, self.sides, self.owner, self.votes_left = battle_id, sides, owner, votes_left
        self.said = {side: [] for side in sides}

    def ask(self, prompt: str, now_s: float) -> None:
        """A further turn: every side is about to answer."""
        self.prompts.append(prompt)
        for texts in self.said.values():
            texts.append("")
        self._whole.clear()
        self.phase, self.waiting, self.asked_s, self.told, self.again = "answering", True, now_s, "", ""

    def unask(self, why: str) -> None:
        """The turn that was asked last came to nothing: all is as it was before."""
        self.again, self.waiting = self.prompts.pop(), False
        for texts in self.said.values():
            texts.pop()
        self.phase, self.told = "ready" if self.prompts else "failed", why

    def hear(self, shown: Shown) -> None:
        """What may be shown of one side."""
        if self.phase != "answering":  # the turn was taken back meanwhile
            return
        self.said[shown.side][-1] += shown.text
        if shown.done and not shown.failed:
            self._whole.add(shown.side)

    def settle(self) -> None:
        """The turn is over; only when all sides have ended well it is there to judge."""
        self.reading = None
        if self.phase != "answering":
            return
        if self._whole == set(self.sides):
            self.phase = "ready"
        else:
            self.take_back(self.told)

    def take_back(self, why: str) -> None:
        """The turn came to nothing: what was said before it can be voted on; without that the battle is over."""
        if self.drawing is not None or len(self.prompts) < 2:
            self.fail(f"{why} {ENDS}" if why else "")
        else:
            self.unask(f"{why or NOT_ALL} {BEFORE}")

    def fail(self, why: str) -> None:
        """The battle is over without a vote."""
        self.phase, self.told, self.waiting, self.drawing = "failed", why, False, None

    def stop(self, why: str) -> None:
        """End the battle if its sides answer just now."""
        if self.phase != "answering":
            return
        if self.reading is None:
            self.take_back(why)
        else:
            self.told = why
            self.reading.cancel()

    def clear(self) -> None:
        """Nothing has been asked yet."""
        self.phase, self.battle_id, self.prompts, self.said = "idle", "", [], {}
        self.told, self.tries, self.outcome, self.ratings, self.votes_left = "", 0, None, {}, None
        self.waiting, self.drawing, self.repeats, self.again = False, None, 0, ""

    @property
    def under_way(self) -> bool:
        """Is there a battle that can still get its vote?"""
        return self.phase in ("answering", "ready")


class Tables:
    """The tables of all open pages, by the page's session."""

    def __init__(self) -> None:
        self._tables: OrderedDict[str, Table] = OrderedDict()

    def __len__(self) -> int:
        return len(self._tables)

    def of(self, session: str | None) -> Table:
        """The table of an open page, new or come back."""
        name = session or ""
        table = self._tables.setdefault(name, Table())
        table.left = False
        self._tables.move_to_end(name)
        while len(self._tables) > MOST_TABLES:
            others = list(self._tables)[:-1]
            least = min(others, key=lambda other: _worth(self._tables[other]))  # of equals the first, so the oldest
            self._tables.pop(least).stop(LEFT)
        return table

    def leave(self, session: str | None) -> None:
        """The page was closed, reloaded or lost: free the models now; the answers are kept for its return."""
        table = self._tables.get(session or "")
        if table is not None:
            table.stop(LEFT)
            table.left = True

    def resume(self, session: str | None, battle_id: str, owner: str) -> Table:
        """The table that a reloaded page had before, if it was the same person's; else its own."""
        for name, table in self._tables.items():
            if battle_id and table.battle_id == battle_id and table.owner == owner and table.left:
                del self._tables[name]
                self._tables[session or ""] = table
                if table.phase == "answering":  # it is being stopped
                    table.take_back(LEFT)
                break
        return self.of(session)


def _worth(table: Table) -> int:
    return 0 if not table.under_way else 1 if table.left else 2


LEFT = "The page was left while the sides answered."
STOPPED = "You stopped the answers."
NOT_ALL = "Not every side could answer."
ENDS = "That ends a battle without a vote."
BEFORE = "That turn is left out: ask it again, or vote on what was said before."
