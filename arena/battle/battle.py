"""One battle, sealed: only its own code sees who fights before the vote."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal

from msgspec import Struct, to_builtins
from msgspec.structs import replace

from arena.battle.ballot import Ballot, Cast, question, verdicts, votes_on
from arena.battle.leaks import names_itself
from arena.battle.pace import SIDES, SideName
from arena.battle.reveal import configuration_of
from arena.errors import Conflict
from arena.store import Side, StoredBattle
from arena.store.store import now
from arena.streaming import Reply
from arena.types import ChatMessage, ChatRequest, Manifest, Metrics, ModelInstance, Vote

BattleState = Literal["open", "answering", "ready", "failed"]
Mode = Literal["installed", "chosen", "newcomers"]
"""Who could be drawn: all installed models, instances that the caller named, or one with few votes and the best."""

MAX_TURNS = 20
"""Those that failed or were left included."""

NOT_ITS_FAULT: Final = frozenset(
    {"busy", "rate_limited", "queue_full", "queue_timeout", "resting", "stopped", "bad_request", "no_more_connections"}
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
        answer_tokens: int | None = None,
    ) -> None:
        self.id = battle_id
        self.owner, self.address = owner, address
        self.mode = mode
        self.state: BattleState = "open"
        self.at = now()
        self.touched_s = now_s
        self.voting = 0
        self.sides = SIDES[: len(lineup)]
        self._rated = rated
        self._category, self._tags = category, tags
        self._instances = {side: replace(instance, id=side) for side, instance in zip(self.sides, lineup, strict=True)}
        self._prompts: list[str] = []
        self._answers: dict[SideName, list[Answered]] = {side: [] for side in self.sides}
        self._taken_back: list[dict[SideName, str]] = []
        self._answer_tokens = answer_tokens
        self._ready_s = now_s

    @property
    def turns(self) -> int:
        """Turns that all sides have answered in full."""
        return len(self._answers["a"])

    def asked(self, message: str) -> list[ChatRequest]:
        """A further turn: what each side is asked, with its own history. Raises Conflict where none may begin."""
        if self.state not in ("open", "ready") or self.voting:
            raise Conflict(_NO_TURN[self.state], code=f"battle_{self.state}")
        if self.turns + len(self._taken_back) >= MAX_TURNS:
            raise Conflict(f"A battle has at most {MAX_TURNS} turns: vote now", code="battle_full")
        limited = {side: _limited(instance, self._answer_tokens) for side, instance in self._instances.items()}
        return [ChatRequest(limited[side], self._history(side, message)) for side in self.sides]

    def begin(self, message: str) -> None:
        """The turn has begun: no vote until it has ended."""
        self._prompts.append(message)
        self.state = "answering"

    def settle(self, replies: Mapping[str, Reply], now_s: float) -> None:
        """The turn has ended; only when all answers are whole the vote is open, else the turn is taken back."""
        told = {side: answer for side in self.sides if (answer := _answered(replies[side])) is not None}
        if len(told) < len(self.sides):
            self.take_back(replies)
            return
        for side, answer in told.items():
            self._answers[side].append(answer)
        self.state, self._ready_s = "ready", now_s

    def take_back(self, replies: Mapping[str, Reply]) -> None:
        """The turn was left, or failed: the turns before it can be voted on, and its message may be sent again."""
        self._prompts.pop()
        self._taken_back.append({side: replies[side].text for side in self.sides})
        self.state = "ready" if self.turns else "failed"

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
            answers[:] = [replace(each, manifest=completed(each.manifest)) for each in answers]

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
            at=now(),
            voter=pseudonym(self.owner),
            address=pseudonym(address),
            prompt=pseudonym(question(self._prompts)),
            category=self._category,
            tags=self._tags,
            rated=self._rated and not self._gave_away and not self._cut_unsaid,
            dwell_s=round(now_s - self._ready_s, 3),
        )
        return votes_on(battle, verdicts(self.sides, ballot), cast), battle

    @property
    def _gave_away(self) -> bool:
        """Has a side named itself, be it in a turn that was taken back and may have been read?"""
        for side, answers in self._answers.items():
            told = {name for each in answers for name in (each.manifest.model, each.manifest.family or "")}
            texts = [*(each.text for each in answers), *(turn[side] for turn in self._taken_back)]
            if any(names_itself(text, self._instances[side].model, *told) for text in texts):
                return True
        return False

    @property
    def _cut_unsaid(self) -> bool:
        """Has a side spent all that it may say on thoughts? That tells of the limit, not of the model."""
        every = (answer for answers in self._answers.values() for answer in answers)
        return any(answer.metrics.cut_by_limit and not answer.text.strip() for answer in every)

    def _history(self, side: SideName, message: str) -> tuple[ChatMessage, ...]:
        told = [ChatMessage("assistant", answer.text) for answer in self._answers[side]]
        asked = [ChatMessage("user", prompt) for prompt in self._prompts]
        turns = [each for turn in zip(asked, told, strict=True) for each in turn]
        return (*turns, ChatMessage("user", message))

    def _side(self, side: SideName) -> Side:
        answers, instance = self._answers[side], self._instances[side]
        return Side(
            configuration_of(instance, _unlimited(answers[-1].manifest, instance)),
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


def _limited(instance: ModelInstance, tokens: int | None) -> ModelInstance:
    """`instance`, which says no more than `tokens` at a time; None sets it no other limit than its own."""
    own = instance.options.num_predict
    if tokens is None or (own is not None and 0 <= own <= tokens):
        return instance
    return replace(instance, options=replace(instance.options, num_predict=tokens))


def _unlimited(manifest: Manifest, instance: ModelInstance) -> Manifest:
    """`manifest` as the contestant's own settings make it: the battle's limit makes no other contestant of a model."""
    sent, own = dict(manifest.options_sent), instance.options.num_predict
    if sent.pop("num_predict", None) is not None and own is not None:
        sent["num_predict"] = own
    return replace(manifest, options_sent=sent)


def _answered(reply: Reply) -> Answered | None:
    if reply.metrics is None or reply.manifest is None:
        return None
    return Answered(reply.text, reply.metrics, reply.manifest)
