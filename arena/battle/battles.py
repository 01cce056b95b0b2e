"""All battles under way: who may do what with them, and their way into the store."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from functools import partial
from typing import Final

import msgspec
from msgspec import Struct

from arena.battle.ballot import Ballot, Cast, question, verdicts
from arena.battle.battle import Battle, Mode
from arena.battle.digests import Digests
from arena.battle.direct import Column, preferred
from arena.battle.draw import Drawing, can_chat, drawn, lineup
from arena.battle.pace import SIDES, TICK_S, Pace, Shown, SideName
from arena.battle.resting import Resting
from arena.battle.reveal import BattleView, revealed
from arena.compare import Compare, Run
from arena.errors import BadRequest, Conflict, NotFound, StoreUnavailable, TooManyRequests
from arena.fleet import Fleet
from arena.keys import allows, check_model
from arena.store import Store, StoredBattle
from arena.store.store import now
from arena.streaming import Transcript
from arena.types import Batch, Delta, Failed, Finished, ModelInstance, StreamEvent, Vote

log = logging.getLogger(__name__)

IDLE_S = 2 * 3600.0
"""A battle that nobody has touched for so long is forgotten."""

MAX_BATTLES = 1000
MAX_PER_VOTER = 20
MAX_PER_ADDRESS = 200
"""Battles that wait for their vote: in all, of one voter, whose oldest one is forgotten for a further one, and from one
address, whose browsers may be many."""

FEW_LEFT = 10
"""With fewer votes left of a day, the voter is told how many."""

_Sides = tuple[ModelInstance, ...]
_SIDE_OF: Final[dict[str, SideName]] = {side: side for side in SIDES}


class Voter(Struct, frozen=True):
    """Who fights and votes: an identity, and the network it comes from at the moment; both are kept as pseudonyms."""

    name: str
    address: str = ""


class Contest(Struct, frozen=True):
    """What a battle is to be about. Without `contestants` all installed models are drawn from.

    `mode` follows from that, unless it is "newcomers": one with few votes against the best, among either.
    """

    contestants: tuple[ModelInstance, ...] | None = None
    category: str = ""
    tags: tuple[str, ...] = ()
    sides: int = 2
    mode: Mode | None = None


class Turn:
    """What may be shown of one turn, step by step. Close it (aclosing), whether it was read or not."""

    def __init__(
        self, battle: Battle, pace: Pace, transcript: Transcript, steps: AsyncGenerator[list[Shown], None]
    ) -> None:
        self._battle = battle
        self._pace = pace
        self._transcript = transcript
        self._steps = steps

    @property
    def vote_open(self) -> bool:
        """Is there something to vote on now? After a turn that failed, what the turns before it have said."""
        return self._battle.state == "ready"

    def __aiter__(self) -> AsyncGenerator[list[Shown], None]:
        return self._steps

    def __anext__(self) -> Awaitable[list[Shown]]:
        return anext(self._steps)

    async def aclose(self) -> None:
        """Free the models; a turn that is not over is taken back. After that the next one may be under way."""
        await self._steps.aclose()
        if not self._pace.over:
            self._pace.over = True
            self._battle.take_back(self._transcript.replies)


class Battles:
    """Starts battles, runs their turns, takes the votes. What is not voted on is kept in memory only.

    `choose` picks who fights, and `newcomers` in battles of that mode: they may block, so each runs `in_thread`.
    Without one any are drawn, at once.
    `rate_chosen`: do battles count for the ratings for which the caller chose whom to draw from, or saw who fought?
    `answer_tokens`: the most that a side may say, and think, in one turn; a side that repeats itself must not hold the
    others for hours.
    """

    def __init__(
        self,
        compare: Compare,
        fleet: Fleet,
        store: Store,
        *,
        choose: Drawing | None = None,
        newcomers: Drawing | None = None,
        in_thread: Callable[[Callable[[], _Sides]], Awaitable[_Sides]] = asyncio.to_thread,
        rate_chosen: bool = True,
        answer_tokens: int | None = None,
        clock: Callable[[], float] = time.monotonic,
        tick: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._compare = compare
        self._fleet = fleet
        self._store = store
        self._choose, self._newcomers, self._in_thread = choose, newcomers, in_thread
        self._rate_chosen = rate_chosen
        self._answer_tokens = answer_tokens
        self._clock = clock
        self._tick = tick or _next_tick
        self._battles: dict[str, Battle] = {}
        self._resting = Resting(clock)
        self._digests = Digests(fleet)

    async def create(
        self,
        voter: Voter,
        contest: Contest,
        models: tuple[str, ...] | None = None,
    ) -> BattleView:
        """Draw who fights and seal it. `models`: what the voter may use (globs; None: all).

        Raises BadRequest for fewer contestants than sides, Forbidden for one that the voter may not use, and
        TooManyRequests while too many battles are under way, or where no vote of theirs would be taken today.
        """
        mode, contestants = _mode(contest), contest.contestants
        if contestants is None:
            contestants = await self._installed(models)
        else:
            for contestant in contestants:
                check_model(models, contestant.model)
        choose = self._newcomers if mode == "newcomers" else self._choose
        votes_left = await asyncio.to_thread(self._votes_left, voter)
        fit = self._resting.fit(contestants, contest.sides)
        if choose is None:
            sides = lineup(fit, contest.sides, drawn)
        else:
            sides = await self._in_thread(partial(lineup, fit, contest.sides, choose))
        self._make_room(voter)
        battle = Battle(
            secrets.token_hex(16),
            voter.name,
            voter.address,
            sides,
            mode=mode,
            rated=mode == "installed" or self._rate_chosen,
            category=contest.category,
            tags=contest.tags,
            now_s=self._clock(),
            answer_tokens=self._answer_tokens,
        )
        self._battles[battle.id] = battle
        return msgspec.structs.replace(_view(battle), votes_left=votes_left)

    def turn(self, battle_id: str, voter: Voter, message: str, *, caller: str | bytes = "", key: str = "") -> Turn:
        """Ask all sides; gives what may be shown, step by step. Whoever reads it closes it, which frees the models.

        Raises NotFound, Conflict where no turn may begin, ShuttingDown; nothing runs before the first step.
        """
        battle = self._of(battle_id, voter)
        run = self._compare.start(battle.asked(message), caller=caller, key=key)
        battle.begin(message)
        pace, transcript = Pace(battle.sides), Transcript(battle.sides)
        return Turn(battle, pace, transcript, self._answers(battle, run, pace, transcript))

    async def vote(self, battle_id: str, voter: Voter, ballot: Ballot) -> BattleView:
        """Keep the ballot and tell who fought. The same again gives the same.

        Raises NotFound, BadRequest for ranks that do not fit the sides, Conflict for another ballot or unfinished
        answers, and StoreUnavailable: then it is not kept.
        """
        battle = self._battles.get(battle_id)
        if battle is None or battle.owner != voter.name:
            return await asyncio.to_thread(self._kept, battle_id, voter, ballot)
        battle.voting += 1
        try:
            await self._digests.told(battle.manifests)
            battle.complete(self._digests.completed)
            view = await asyncio.to_thread(self._keep, battle, voter, ballot)
        finally:
            battle.voting -= 1
        self._battles.pop(battle_id, None)  # from now on the store tells
        return view

    async def prefer(self, voter: Voter, prompts: Sequence[str], columns: Sequence[Column], best: int) -> int:
        """Keep that `voter` found the column at the place `best` better than the others, all names in sight.

        These votes stand apart: they are not blind, so the ratings leave them out unless they are asked to take them,
        and always where `rate_chosen` is not set. The same again is kept once. Returns the number of votes. Raises
        Conflict for another choice among the same answers.
        """
        return await asyncio.to_thread(self._prefer, voter, prompts, columns, best)

    async def view(self, battle_id: str, voter: Voter) -> BattleView:
        """Where a battle stands; after the vote, who fought. Raises NotFound, also for the battle of somebody else."""
        battle = self._battles.get(battle_id)
        if battle is not None and battle.owner == voter.name:
            return _view(battle)
        return await asyncio.to_thread(self._kept, battle_id, voter, None)

    async def record(self, battle_id: str, voter: Voter) -> tuple[tuple[Vote, ...], StoredBattle]:
        """A battle that `voter` has voted on, with the vote. Raises NotFound, and Conflict before the vote."""
        battle = self._battles.get(battle_id)
        if battle is not None and battle.owner == voter.name:
            raise Conflict("There is nothing to share before the vote", code=f"battle_{battle.state}")
        return await asyncio.to_thread(self._record, battle_id, voter)

    async def _answers(
        self, battle: Battle, run: Run, pace: Pace, transcript: Transcript
    ) -> AsyncGenerator[list[Shown], None]:
        news = asyncio.Event()

        def hear(batch: Batch) -> None:
            transcript.apply(batch, self._clock())
            for event in batch:
                _tell(pace, event)
            news.set()

        try:
            run.push(hear)
            while not pace.over:
                news.clear()
                shown = pace.take(self._clock())
                if pace.over:
                    battle.settle(transcript.replies, self._clock())
                    for instance, well in battle.ended(transcript.replies):
                        self._resting.heard(instance, well=well)
                if shown:
                    yield shown
                if not pace.over:
                    await (self._tick() if shown else news.wait())
        finally:
            run.cancel()
            battle.touched_s = self._clock()

    def _votes_left(self, voter: Voter) -> int | None:
        """How many votes more are taken today, if that is worth a word. Blocks; for a thread."""
        store = self._store
        try:
            if not store.exists:
                return None
            left = store.votes_left(store.pseudonym(voter.name), store.pseudonym(voter.address))
        except StoreUnavailable as error:
            log.warning("a battle begins though its vote may not be kept: %s", error.message)
            return None
        return left if left is not None and left < FEW_LEFT else None

    def _keep(self, battle: Battle, voter: Voter, ballot: Ballot) -> BattleView:
        """Blocks; for a thread."""
        votes, kept = battle.votes(ballot, self._store.pseudonym, voter.address, self._clock())
        return revealed(self._store.add_ballot(votes, kept), kept)

    def _prefer(self, voter: Voter, prompts: Sequence[str], columns: Sequence[Column], best: int) -> int:
        pseudonym = self._store.pseudonym
        cast = Cast(
            at=now(),
            voter=pseudonym(voter.name),
            address=pseudonym(voter.address),
            prompt=pseudonym(question(prompts)),
            blind=False,
            rated=self._rate_chosen,
        )
        votes, battle = preferred(prompts, columns, best, cast)
        try:
            return len(self._store.add_ballot(votes, battle))
        except Conflict:
            told = "You have voted on these answers already, and for another one."
            raise Conflict(told, code="voted") from None

    def _kept(self, battle_id: str, voter: Voter, ballot: Ballot | None) -> BattleView:
        """The reveal of a battle that `voter` has voted on, maybe before a restart. Blocks; for a thread."""
        kept, battle = self._record(battle_id, voter)
        if ballot is not None and verdicts(tuple(battle.sides), ballot) != {vote.pair: vote.verdict for vote in kept}:
            raise Conflict("This battle has your vote already, and it was another one.", code="voted")
        return revealed(kept, battle)

    def _record(self, battle_id: str, voter: Voter) -> tuple[tuple[Vote, ...], StoredBattle]:
        """Blocks; for a thread."""
        # PostgreSQL takes no NUL, not even to say that it does not have it
        kept = () if "\0" in battle_id else self._store.ballot(battle_id, self._store.pseudonym(voter.name))
        battle = self._store.battle(battle_id) if kept else None
        if battle is None:
            raise NotFound("No such battle, or it has expired: begin another one")
        return kept, battle

    def _of(self, battle_id: str, voter: Voter) -> Battle:
        battle = self._battles.get(battle_id)
        if battle is None or battle.owner != voter.name:
            raise NotFound("No such battle, or it is over: begin another one")
        battle.touched_s = self._clock()
        return battle

    async def _installed(self, models: tuple[str, ...] | None) -> tuple[ModelInstance, ...]:
        """Every model that can chat, and that the voter may use, with its own defaults."""
        found = [model.name for model in await self._fleet.models() if can_chat(model)]
        return tuple(ModelInstance(name, name) for name in found if allows(models, name))

    def _make_room(self, voter: Voter) -> None:
        """Forget what is idle, and the voter's oldest battles beyond MAX_PER_VOTER. Raises TooManyRequests."""
        now_s = self._clock()
        resting = {name: each for name, each in self._battles.items() if each.state != "answering" and not each.voting}
        own = [name for name, each in resting.items() if each.owner == voter.name]
        idle = [name for name, each in resting.items() if now_s - each.touched_s > IDLE_S]
        for name in {*idle, *own[: max(0, len(own) - MAX_PER_VOTER + 1)]}:
            del self._battles[name]
        at_address = sum(each.address == voter.address for each in self._battles.values())
        if len(self._battles) >= MAX_BATTLES or (voter.address and at_address >= MAX_PER_ADDRESS):
            raise TooManyRequests("Too many battles are under way: vote on some, or try again later")


def _mode(contest: Contest) -> Mode:
    """Who is drawn from. Raises BadRequest for a mode that contradicts the rest."""
    named: Mode = "installed" if contest.contestants is None else "chosen"
    mode = contest.mode or named
    if mode not in (named, "newcomers"):
        remedy = "name the models" if mode == "chosen" else "name no models"
        raise BadRequest(f"mode {mode} does not fit: {remedy}, or leave mode out")
    return mode


async def _next_tick() -> None:
    await asyncio.sleep(TICK_S)


def _tell(pace: Pace, event: StreamEvent) -> None:
    """What a model thinks is not shown: that it thinks at all would tell much."""
    side = _SIDE_OF[event.instance_id]
    match event:
        case Delta():
            pace.put(side, event.text)
        case Finished():
            pace.end(side)
        case Failed():
            pace.end(side, failed=True)


def _view(battle: Battle) -> BattleView:
    return BattleView(battle.id, battle.state, battle.turns, battle.state == "ready", battle.sides)
