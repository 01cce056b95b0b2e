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
"""How many tables there may be in all; the one that was left alone for longest goes first."""
MOST_SIDES = 4
"""Who can fight in one battle at most."""


@dataclass(slots=True)
class Table:
    """One open page's battle. `told` is what the user has to be told; times are on the page's clock, in seconds.

    `drawing` stands for a battle that is about to begin, `voting` for a vote on its way to the store.
    """

    owner: str = ""
    phase: Phase = "idle"
    battle_id: str = ""
    sides: tuple[str, ...] = ("a", "b")
    prompts: list[str] = field(default_factory=list)
    said: dict[str, list[str]] = field(default_factory=dict)
    asked_s: float = 0.0
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
        self.phase, self.waiting, self.asked_s, self.told = "answering", True, now_s, ""

    def unask(self, why: str) -> None:
        """The turn that was asked last could not begin: all is as it was before."""
        self.prompts.pop()
        for texts in self.said.values():
            texts.pop()
        self.phase, self.told = "ready" if self.prompts else "failed", why

    def hear(self, shown: Shown) -> None:
        """What may be shown of one side."""
        self.said[shown.side][-1] += shown.text
        if shown.done and not shown.failed:
            self._whole.add(shown.side)

    def settle(self) -> None:
        """The turn is over; only when all sides have ended well there is something to judge."""
        self.reading = None
        if self.phase == "answering":
            self.phase = "ready" if self._whole == set(self.sides) else "failed"

    def fail(self, why: str) -> None:
        """The battle is over without a vote."""
        self.phase, self.told, self.waiting, self.drawing = "failed", why, False, None

    def stop(self, why: str) -> None:
        """End the battle if its sides answer just now."""
        if self.phase != "answering":
            return
        self.told = why
        if self.reading is None:
            self.fail(why)
        else:
            self.reading.cancel()

    def clear(self) -> None:
        """Nothing has been asked yet."""
        self.phase, self.battle_id, self.prompts, self.said = "idle", "", [], {}
        self.told, self.tries, self.outcome, self.ratings, self.votes_left = "", 0, None, {}, None
        self.waiting, self.drawing = False, None


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
            _, oldest = self._tables.popitem(last=False)
            oldest.stop(LEFT)
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
                    table.fail(LEFT)
                break
        return self.of(session)


LEFT = "The page was left while the sides answered, which ends a battle."
