"""One battle, sealed: only its own code sees who fights before the vote."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Final, Literal

import msgspec
from msgspec import Struct, to_builtins

from arena.battle.ballot import Ballot, Cast, question, verdicts, votes_on
from arena.battle.leaks import names_itself
from arena.battle.pace import SIDES, SideName
from arena.battle.reveal import configuration_of
from arena.errors import Conflict
from arena.store import Side, StoredBattle
from arena.streaming import Reply
from arena.types import ChatMessage, ChatRequest, Manifest, Metrics, ModelInstance, Vote

BattleState = Literal["open", "answering", "ready", "failed"]
Mode = Literal["installed", "chosen", "newcomers"]
"""Who could be drawn: all installed models, instances that the caller named, or one with few votes and the best."""

MAX_TURNS = 20

NOT_ITS_FAULT: Final = frozenset(
    {"busy", "rate_limited", "queue_full", "queue_timeout", "resting", "stopped", "bad_request"}
)
"""Codes of failures that say nothing of the model: it would do well another time, or with another prompt."""


class Answered(Struct, frozen=True):
    """What one side said in one turn."""

    text: str
    metrics: Metrics
    manifest: Manifest


class Battle:
    """A battle between its start and its vote. Times are on a monotonic clock, in seconds."""

    def __init__(
        self,
        battle_id: str,
        owner: str,
        address: str,
        lineup: Sequence[ModelInstance],
        *,
        mode: Mode,
        rated: bool,
        category: str,
        tags: tuple[str, ...],
        now_s: float,
    ) -> None:
        self.id = battle_id
        self.owner, self.address = owner, address
        self.mode = mode
        self.state: BattleState = "open"
        self.at = moment()
        self.touched_s = now_s
        self.voting = 0
        self.sides = SIDES[: len(lineup)]
        self._rated = rated
        self._category, self._tags = category, tags
        self._instances = {
            side: msgspec.structs.replace(instance, id=side) for side, instance in zip(self.sides, lineup, strict=True)
        }
        self._prompts: list[str] = []
        self._answers: dict[SideName, list[Answered]] = {side: [] for side in self.sides}
        self._leaked = False
        self._ready_s = now_s

    @property
    def turns(self) -> int:
        """Turns that all sides have answered."""
        return len(self._answers["a"])

    def asked(self, message: str) -> list[ChatRequest]:
        """A further turn: what each side is asked, with its own history. Raises Conflict where none may begin."""
        if self.state not in ("open", "ready") or self.voting:
            raise Conflict(_NO_TURN[self.state], code=f"battle_{self.state}")
        if self.turns >= MAX_TURNS:
            raise Conflict(f"A battle has at most {MAX_TURNS} turns: vote now", code="battle_full")
        return [ChatRequest(self._instances[side], self._history(side, message)) for side in self.sides]

    def begin(self, message: str) -> None:
        """The turn has begun: no vote until it has ended."""
        self._prompts.append(message)
        self.state = "answering"

    def settle(self, replies: dict[str, Reply], now_s: float) -> None:
        """The turn has ended; only when all answers are whole the vote is open."""
        told = {side: _answered(replies[side]) for side in self.sides}
        if not all(told.values()):
            self.state = "failed"
            return
        for side, answer in told.items():
            assert answer is not None
            self._answers[side].append(answer)
            names = (self._instances[side].model, answer.manifest.model)
            self._leaked = self._leaked or any(names_itself(answer.text, name) for name in names)
        self.state, self._ready_s = "ready", now_s

    def ended(self, replies: dict[str, Reply]) -> list[tuple[ModelInstance, bool]]:
        """Who has come to an end by itself, and whether well; nobody where the voter, a stranger, chose who fights."""
        if not self._rated:
            return []
        ends = [(self._instances[side], replies[side]) for side in self.sides]
        return [
            (instance, reply.error is None)
            for instance, reply in ends
            if reply.ended and (reply.error is None or reply.error.code not in NOT_ITS_FAULT)
        ]

    @property
    def manifests(self) -> list[Manifest]:
        """Of every answer."""
        return [answer.manifest for answers in self._answers.values() for answer in answers]

    def complete(self, completed: Callable[[Manifest], Manifest]) -> None:
        """Take over what has become known since the answers were given."""
        for answers in self._answers.values():
            answers[:] = [msgspec.structs.replace(each, manifest=completed(each.manifest)) for each in answers]

    def votes(
        self, ballot: Ballot, pseudonym: Callable[[str], str], address: str, now_s: float
    ) -> tuple[list[Vote], StoredBattle]:
        """The votes as they are to be kept, one for each pair of sides, and the battle with them.

        Raises Conflict while there is nothing to judge, BadRequest for a ballot that does not fit.
        """
        if self.state != "ready":
            raise Conflict(_NO_VOTE[self.state], code=f"battle_{self.state}")
        battle = StoredBattle(self.id, self.at, self.mode, tuple(self._prompts), {s: self._side(s) for s in self.sides})
        cast = Cast(
            at=moment(),
            voter=pseudonym(self.owner),
            address=pseudonym(address),
            prompt=pseudonym(question(self._prompts)),
            category=self._category,
            tags=self._tags,
            rated=self._rated and not self._leaked,
            dwell_s=round(now_s - self._ready_s, 3),
        )
        return votes_on(battle, verdicts(self.sides, ballot), cast), battle

    def _history(self, side: SideName, message: str) -> tuple[ChatMessage, ...]:
        told = [ChatMessage("assistant", answer.text) for answer in self._answers[side]]
        asked = [ChatMessage("user", prompt) for prompt in self._prompts]
        turns = [each for turn in zip(asked, told, strict=True) for each in turn]
        return (*turns, ChatMessage("user", message))

    def _side(self, side: SideName) -> Side:
        answers = self._answers[side]
        return Side(
            configuration_of(self._instances[side], answers[-1].manifest),
            tuple(answer.text for answer in answers),
            tuple(to_builtins(answer.metrics) for answer in answers),
            tuple(to_builtins(answer.manifest) for answer in answers),
        )


_NO_TURN: dict[BattleState, str] = {
    "open": "This battle is being voted on",
    "ready": "This battle is being voted on",
    "answering": "The answers to the last message are still under way",
    "failed": "This battle has ended without a result: begin another one",
}
_NO_VOTE: dict[BattleState, str] = {
    "open": "There is nothing to vote on yet: send a message first",
    "answering": "The vote opens when all answers are complete",
    "failed": "This battle cannot be voted on, since not all answers are whole: begin another one",
}


def _answered(reply: Reply) -> Answered | None:
    if reply.metrics is None or reply.manifest is None:
        return None
    return Answered(reply.text, reply.metrics, reply.manifest)


def moment() -> str:
    """Now, as the store writes it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
