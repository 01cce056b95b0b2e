"""One battle, sealed: only its own code sees who fights before the vote."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal

import msgspec
from msgspec import Struct, to_builtins

from arena.battle.leaks import names_itself
from arena.battle.pace import SIDES, SideName
from arena.battle.reveal import configuration_of
from arena.errors import Conflict
from arena.store import Side, StoredBattle
from arena.streaming import Reply
from arena.style import counted
from arena.types import ChatMessage, ChatRequest, Manifest, Metrics, ModelInstance, Verdict, Vote

BattleState = Literal["open", "answering", "ready", "failed"]
Mode = Literal["installed", "chosen"]
"""Who could be drawn: all installed models, or instances that the caller named."""

MAX_TURNS = 20


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
        pair: tuple[ModelInstance, ModelInstance],
        *,
        mode: Mode,
        rated: bool,
        category: str,
        tags: tuple[str, ...],
        now_s: float,
    ) -> None:
        self.id = battle_id
        self.owner = owner
        self.mode = mode
        self.state: BattleState = "open"
        self.at = moment()
        self.touched_s = now_s
        self.voting = 0
        self._rated = rated
        self._category, self._tags = category, tags
        self._instances = {
            side: msgspec.structs.replace(instance, id=side) for side, instance in zip(SIDES, pair, strict=True)
        }
        self._prompts: list[str] = []
        self._answers: dict[SideName, list[Answered]] = {side: [] for side in SIDES}
        self._leaked = False

    @property
    def turns(self) -> int:
        """Turns that both sides have answered."""
        return len(self._answers["a"])

    def asked(self, message: str) -> list[ChatRequest]:
        """A further turn: what each side is asked, with its own history. Raises Conflict where none may begin."""
        if self.state not in ("open", "ready") or self.voting:
            raise Conflict(_NO_TURN[self.state], code=f"battle_{self.state}")
        if self.turns >= MAX_TURNS:
            raise Conflict(f"A battle has at most {MAX_TURNS} turns: vote now", code="battle_full")
        return [ChatRequest(self._instances[side], self._history(side, message)) for side in SIDES]

    def begin(self, message: str) -> None:
        """The turn has begun: no vote until it has ended."""
        self._prompts.append(message)
        self.state = "answering"

    def settle(self, replies: dict[str, Reply]) -> None:
        """The turn has ended; only when both answers are whole the vote is open."""
        told = {side: _answered(replies[side]) for side in SIDES}
        if not all(told.values()):
            self.state = "failed"
            return
        for side, answer in told.items():
            assert answer is not None
            self._answers[side].append(answer)
            names = (self._instances[side].model, answer.manifest.model)
            self._leaked = self._leaked or any(names_itself(answer.text, name) for name in names)
        self.state = "ready"

    def ballot(self, verdict: Verdict, voter: str, address: str) -> tuple[Vote, StoredBattle]:
        """The vote as it is to be kept, and the battle with it. Raises Conflict while there is nothing to judge."""
        if self.state != "ready":
            raise Conflict(_NO_VOTE[self.state], code=f"battle_{self.state}")
        battle = StoredBattle(self.id, self.at, self.mode, tuple(self._prompts), {s: self._side(s) for s in SIDES})
        a, b = (battle.sides[side].configuration for side in SIDES)
        styles = [counted(battle.sides[side].answers) for side in SIDES]
        vote = Vote(
            battle_id=self.id,
            at=moment(),
            configuration_a=a.id,
            configuration_b=b.id,
            model_a=a.model,
            model_b=b.model,
            verdict=verdict,
            rated=self._rated and not self._leaked and a.id != b.id,
            voter=voter,
            address=address,
            category=self._category,
            tags=self._tags,
            turns=self.turns,
            style_a=styles[0],
            style_b=styles[1],
        )
        return vote, battle

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
    "ready": "This battle is being voted on",
    "answering": "The answers to the last message are still under way",
    "failed": "This battle has ended without a result: begin another one",
}
_NO_VOTE: dict[BattleState, str] = {
    "open": "There is nothing to vote on yet: send a message first",
    "answering": "The vote opens when both answers are complete",
    "failed": "This battle cannot be voted on, since not both answers are whole: begin another one",
}


def _answered(reply: Reply) -> Answered | None:
    if reply.metrics is None or reply.manifest is None:
        return None
    return Answered(reply.text, reply.metrics, reply.manifest)


def moment() -> str:
    """Now, as the store writes it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
