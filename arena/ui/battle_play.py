"""What the battle tab does, without Gradio: begin, follow the answers, vote, look at the ratings.

Whoever reads a generator here closes it; closing ends the battle that it follows.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING

from arena.battle import Ballot, Contest, Turn
from arena.errors import ArenaError, NotFound, StoreUnavailable
from arena.exchange import Caller
from arena.ui import battle_parts as parts
from arena.ui.battle_table import LEFT, Table
from arena.ui.callers import voter_of
from arena.ui.drafts import Draft, Frame, renderer
from arena.ui.frames import HEARTBEAT_S, pause, tick_s

if TYPE_CHECKING:
    from arena.arena import Arena

log = logging.getLogger(__name__)

Frames = dict[str, Frame]
"""The growing answers, by the name that the page's elements have for a side. An empty one ends them."""

STILL = "The sides still answer. Wait, or stop with Esc."
VOTING = "Your vote is being kept. A moment, please."


class Playing:
    """Plays battles for the page."""

    def __init__(self, arena: Arena, clock: Callable[[], float] = time.monotonic) -> None:
        self._arena = arena
        self._clock = clock
        self._markdown = renderer()

    async def take(self, table: Table, caller: Caller, prompt: str, contest: Contest) -> str | None:
        """Accept a prompt: a further turn while the vote is open, else the first of another battle.

        Returns why not, if not; where that takes more than a word, it is "" and the table tells it.
        """
        prompt = prompt.strip()
        if table.phase == "answering":
            return STILL
        if table.voting:
            return VOTING
        if not prompt:
            return ""
        if table.phase != "ready":
            phase, drawing, voter = table.phase, table.draw(), voter_of(caller)
            try:
                await self._arena.started()
                drawn = await self._arena.battles.create(voter, contest, caller.models)
            except ArenaError as error:
                if table.drawing is drawing:
                    table.undraw(phase, parts.not_drawn(error, contest.sides))
                return ""
            if table.drawing is not drawing:  # stopped meanwhile, or the page was left
                return ""
            table.begin(drawn.id, drawn.sides, voter.name, drawn.votes_left)
        table.ask(prompt, self._clock())
        return None

    async def answer(self, table: Table, caller: Caller) -> AsyncGenerator[Frames, None]:
        """Follow the turn that waits, if one does, to its end; closing this frees the models."""
        if not table.waiting:
            return
        table.waiting = False
        try:
            turn = self._arena.battles.turn(
                table.battle_id, voter_of(caller), table.prompts[-1], caller=caller.counted_as, key=caller.key
            )
        except NotFound as error:
            table.fail(error.message)
            return
        except ArenaError as error:
            table.unask(error.message)
            return
        async with aclosing(turn), aclosing(self._follow(table, turn)) as frames:
            async for frame in frames:
                yield frame

    async def vote(self, table: Table, caller: Caller, ballot: Ballot) -> None:
        """Cast the vote. A store that cannot keep it leaves the vote open: nothing is lost, press again."""
        if table.phase != "ready" or table.voting:
            return
        table.voting = True
        try:
            outcome = await self._arena.battles.vote(table.battle_id, voter_of(caller), ballot)
        except StoreUnavailable as error:
            table.tries += 1
            table.told = parts.not_kept(error.message, table.tries)
        except NotFound as error:
            table.fail(error.message)
        except ArenaError as error:
            table.told = error.message
        else:
            table.phase, table.outcome, table.told = "voted", outcome, ""
        finally:
            table.voting = False

    async def rate(self, table: Table, caller: Caller) -> None:
        """Look up what the vote counts, and how the ratings of those who fought stand now.

        Without a store both stay unknown.
        """
        outcome = table.outcome
        if outcome is None or outcome.revealed is None:
            return
        try:
            votes, _ = await self._arena.battles.record(table.battle_id, voter_of(caller))
            board = await self._arena.rated(self._arena.leaderboard.board)
        except (NotFound, StoreUnavailable) as error:
            log.warning("no ratings beside the reveal: %s", error.message)
            return
        fought = {side.model for side in outcome.revealed.values()}
        if table.outcome is outcome:  # else the next battle has begun meanwhile
            table.ratings = {row.name: row for row in board.rows if row.name in fought}
            table.repeats = max(vote.repeats for vote in votes)

    async def _follow(self, table: Table, turn: Turn) -> AsyncGenerator[Frames, None]:
        news = asyncio.Event()
        reading = table.reading = asyncio.create_task(_read(turn, table, news), name="page battle")
        reading.add_done_callback(lambda _: news.set())
        drafts = {side: Draft(self._markdown) for side in table.sides}
        try:
            while not reading.done():
                news.clear()
                yield self._frames(table, drafts)
                tick = tick_s(sum(len(texts[-1]) for texts in table.said.values()), len(table.sides))
                await asyncio.wait([reading], timeout=tick)
                if not reading.done():
                    await pause(news, HEARTBEAT_S - tick)  # often enough to notice a page that has left
        finally:
            if not reading.done() and not table.told:  # nobody follows any more, and nobody pressed stop
                table.told = LEFT
            reading.cancel()
            await asyncio.shield(asyncio.wait([reading]))
            table.settle()
            if not reading.cancelled() and (error := reading.exception()) is not None:
                log.error("the answers of a battle broke off", exc_info=error)
        yield {}

    def _frames(self, table: Table, drafts: dict[str, Draft]) -> Frames:
        status = parts.status(table, self._clock())
        return {parts.element(side): self._frame(table, side, draft, status) for side, draft in drafts.items()}

    @staticmethod
    def _frame(table: Table, side: str, draft: Draft, status: str) -> Frame:
        draft.grow(table.said[side][-1])
        return Frame(table.asked_s, draft.blocks, draft.last, draft.rest, "", status)


async def _read(turn: Turn, table: Table, news: asyncio.Event) -> None:
    """Take what may be shown as it comes; never waits for the browser."""
    async for step in turn:
        for shown in step:
            table.hear(shown)
        news.set()
