"""What the compare tab does, without Gradio: plain values in, views out.

Whoever reads a generator here closes it; closing stops the answers that it feeds.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from arena.errors import ArenaError, Conflict, Forbidden
from arena.exchange import Caller
from arena.keys import check_model
from arena.names import canonical
from arena.types import ChatRequest, EndpointStatus, LoadedModel, ModelInfo, Order, PullJob
from arena.ui import messages, parts
from arena.ui.attachments import read
from arena.ui.direct import comparable, control, judged, last
from arena.ui.drafts import Draft, Frame, renderer
from arena.ui.frames import frames
from arena.ui.lineup import LETTERS, PRESETS, ColumnChoice, Lineup, summary
from arena.ui.sessions import Asking, Opened, Session, Turn, again, begin, fail

if TYPE_CHECKING:
    from arena.arena import Arena
    from arena.battle import Voter
    from arena.compare import Run

LISTING_WAIT_S = 2.0
"""How long the page waits for the list of models before it shows what it knows, in seconds."""
ABILITY_WAIT_S = 0.5
"""The same for what a model can do, where a column's settings or its answer wait for it, in seconds."""
POLL_S = 0.4
"""How often a column looks at the download it waits for, in seconds."""


class View(Struct, frozen=True):
    """What one column shows; None leaves it as it is. An answer that grows is not in it: that goes through `Frames`."""

    chat: list[messages.Message] | None = None
    status: str | None = None
    notice: str | None = None


Views = dict[str, View]
Frames = dict[str, Frame]
"""The growing answers by column. A column that was in it and is no more has ended."""


class Conversations:
    """The compare tab's work: starts runs, follows them, and says what every column shows."""

    def __init__(self, arena: Arena, clock: Callable[[], float] = time.monotonic) -> None:
        self._arena = arena
        self._clock = clock
        self._listed: dict[str, ModelInfo] = {}
        self._listing_error: ArenaError | None = None
        self._markdown = renderer()

    @property
    def most_columns(self) -> int:
        """How many columns the page may show."""
        return min(self._arena.settings.max_columns, len(LETTERS))

    @property
    def listing_error(self) -> ArenaError | None:
        """Why the models could not be listed, if they could not."""
        return self._listing_error

    async def models(self) -> tuple[ModelInfo, ...]:
        """The installed models as far as they are known after a short wait; never raises, never hangs."""
        try:
            async with asyncio.timeout(LISTING_WAIT_S):
                listed = await self._arena.catalog.models()
        except TimeoutError:
            return tuple(self._listed.values())
        except ArenaError as error:
            self._listed, self._listing_error = {}, error
            return ()
        self._listing_error = None
        self._listed = {canonical(info.name): info for info in listed}
        return listed

    async def loaded(self) -> tuple[LoadedModel, ...]:
        """The models in memory as far as they are known after a short wait; never raises, never hangs."""
        try:
            async with asyncio.timeout(LISTING_WAIT_S):
                return await self._arena.catalog.loaded()
        except (TimeoutError, ArenaError):
            return ()

    async def statuses(self) -> tuple[EndpointStatus, ...]:
        """Who answers; an endpoint that has not said so after a short wait counts as silent."""
        endpoints = self._arena.fleet.endpoints
        asking = [asyncio.create_task(endpoint.status()) for endpoint in endpoints]
        if not asking:
            return ()
        try:
            answered, _ = await asyncio.wait(asking, timeout=LISTING_WAIT_S)
        finally:
            for task in asking:
                task.cancel()
        return tuple(
            task.result()
            if task in answered
            else EndpointStatus(endpoint.name, endpoint.url, endpoint.kind, False, error="has not answered yet")
            for endpoint, task in zip(endpoints, asking, strict=True)
        )

    def facts(self, choice: ColumnChoice) -> str:
        """The line under a column's model."""
        return parts.facts_line(self.known(choice.model), summary(choice))

    def known(self, model: str) -> ModelInfo | None:
        """What was last listed of `model`; never asks."""
        return self._listed.get(canonical(model)) if model else None

    async def described(self, model: str) -> ModelInfo | None:
        """`model` with its capabilities, where an older server tells them one model at a time; never raises or hangs.

        A server that has no word for them leaves them unknown.
        """
        info = self.known(model)
        if info is None or info.capabilities is not None:
            return info
        try:
            async with asyncio.timeout(ABILITY_WAIT_S):
                told = await self._arena.catalog.describe(model)
        except (TimeoutError, ArenaError):
            return info
        info = msgspec.structs.replace(info, capabilities=told.capabilities or None)
        self._listed[canonical(model)] = info
        return info

    def take(self, session: Session, asking: Asking, paths: Sequence[str] = ()) -> str | None:
        """Accept the next prompt; returns why not, if not. Reads the attached files."""
        waiting = [letter for letter in session.taking_part if session.columns[letter].busy]
        if waiting:
            return f"{' and '.join(waiting)} still answer{'s' if len(waiting) == 1 else ''}. Wait, or stop with Esc."
        try:
            attachments = read(paths)
        except ArenaError as error:
            return error.message
        if not asking.text.strip() and not attachments:
            return ""
        session.asking = Asking(asking.text.strip(), attachments, asking.choices, asking.system, asking.order)
        return None

    async def open(self, session: Session) -> Views:
        """Open a turn for what was taken in every column that takes part; `answer` then asks the models."""
        asking, session.asking = session.asking, None
        if asking is None:
            return {}
        letters = session.taking_part
        if any(item.kind == "image" for item in asking.attachments):
            for model in {asking.choices[letter].model for letter in letters}:
                await self.described(model)  # can it see?
        requests = begin(session, asking, self.known, self._clock())
        session.opened = Opened(tuple(requests), asking.order)
        return {letter: self.view(session, letter) for letter in letters}

    def reopen(self, session: Session, letter: str, system: str) -> Views:
        """Open one column's last turn anew, with its settings as they are now, beside whatever else runs."""
        column = session.columns[letter]
        request = again(column, session.choices[letter], system, self.known, self._clock())
        column.opened = Opened((request,)) if request is not None else None
        return {letter: self.view(session, letter)}

    async def answer(self, session: Session, caller: Caller, letter: str | None = None) -> AsyncGenerator[Frames, None]:
        """Ask what was opened, in all columns or in column `letter`, and follow the answers to their end."""
        place = session if letter is None else session.columns[letter]
        opened, place.opened = place.opened, None
        waiting = (
            [request for request in opened.requests if session.columns[request.instance.id].busy] if opened else []
        )
        if opened and waiting:
            async with aclosing(self._follow(session, waiting, opened.order, caller)) as frames_:
                async for frame in frames_:
                    yield frame

    def ended(self, session: Session) -> Views:
        """The columns whose answers have ended since this was asked last; once all have, every status line anew.

        Only then is the scale of their time bars known.
        """
        fresh = [column for column in session.columns.values() if column.turns and not column.busy and not column.shown]
        for column in fresh:
            column.shown = True
        views = self.figures_again(session) if fresh and not session.busy else {}
        return views | {column.letter: self.view(session, column.letter) for column in fresh}

    async def pull(self, session: Session, letter: str) -> AsyncGenerator[str, None]:
        """Pull the model that column `letter` misses; yields its notice. The download goes on when the page leaves."""
        turn = session.columns[letter].last
        if turn is None:
            return
        try:
            self._arena.catalog.check_management()
            job = self._arena.catalog.pull(turn.instance.model)
            while job.state == "downloading":
                yield parts.pulling(job)
                await asyncio.sleep(POLL_S)
                job = self._arena.catalog.job(job.id)
        except ArenaError as error:
            job = PullJob("", turn.instance.model, "", "failed", error=error.message)
        yield parts.pulling(job)

    async def prefer(self, session: Session, letter: str, voter: Voter) -> int:
        """Keep that `voter` finds the answer of column `letter` the best; with how many others was it compared?

        Raises Conflict where there is nothing to compare, and StoreUnavailable.
        """
        letters = comparable(session)
        if letter not in letters:
            raise Conflict("There is nothing to compare this answer with any more.", code="not_comparable")
        place, turns, (prompts, columns) = letters.index(letter), last(session, letters), judged(session, letters)
        others = await self._arena.battles.prefer(voter, prompts, columns, place)
        for turn in turns:  # one that is asked for again is another answer, and may be voted on
            turn.ballot = "best" if turn is turns[place] else "other"
        return others

    def view(self, session: Session, letter: str) -> View:
        """What column `letter` shows now."""
        column, now_s = session.columns[letter], self._clock()
        return View(
            messages.chat(column.turns),
            parts.status(column.last, now_s, self._scale_s(session), control(session, letter)),
            parts.notice(column.last, may_pull=self._arena.settings.management_allowed),
        )

    def figures_again(self, session: Session) -> Views:
        """The status lines of all answers that have ended, with the scale that their time bars share."""
        scale_s, now_s = self._scale_s(session), self._clock()
        last = {letter: session.columns[letter].last for letter in session.visible if not session.columns[letter].busy}
        return {
            letter: View(status=parts.status(turn, now_s, scale_s, control(session, letter)))
            for letter, turn in last.items()
        }

    @staticmethod
    def _scale_s(session: Session) -> float:
        turns = [session.columns[letter].last for letter in session.visible]
        return max((parts.length_s(turn.figures) for turn in turns if turn is not None), default=0.0)

    async def _follow(
        self, session: Session, requests: Sequence[ChatRequest], order: Order, caller: Caller
    ) -> AsyncGenerator[Frames, None]:
        turns = {request.instance.id: self._last(session, request.instance.id) for request in requests}
        may = []
        for request in requests:
            try:
                check_model(caller.models, request.instance.model)
            except Forbidden as error:
                fail(turns.pop(request.instance.id), error.code, error.message, self._clock())
            else:
                may.append(request)
        try:
            run = self._arena.compare.start(may, order=order, caller=caller.counted_as, key=caller.key)
        except ArenaError as error:
            for turn in turns.values():
                fail(turn, error.code, error.message, self._clock())
            return
        for letter in turns:
            session.columns[letter].run = run
        drafts = {letter: Draft(self._markdown) for letter in turns}
        async with aclosing(frames(run, turns, self._clock)) as changes:
            async for letters in changes:
                if session.left_s is not None:
                    break  # the page left before the run had begun, when there was nothing to stop yet
                growing = [letter for letter in letters if not turns[letter].reply.ended]
                yield {letter: self._frame(turns[letter], drafts[letter]) for letter in growing}
        self._forget(session, run)
        replies = [turn.reply for turn in turns.values()]
        whole = ((each.manifest, each.metrics) for each in replies if each.manifest and each.metrics)
        self._arena.leaderboard.ran(whole)

    def _frame(self, turn: Turn, draft: Draft) -> Frame:
        draft.grow(turn.reply.text)
        status = parts.status(turn, self._clock())
        return Frame(turn.asked_s, draft.blocks, draft.last, draft.rest, turn.reply.thinking, status)

    @staticmethod
    def _forget(session: Session, run: Run) -> None:
        for column in session.columns.values():
            if column.run is run:
                column.run = None

    @staticmethod
    def _last(session: Session, letter: str) -> Turn:
        return session.columns[letter].turns[-1]


def first_lineup(models: Sequence[ModelInfo]) -> Lineup:
    """The columns of a first visit: the two smallest models that can chat, or one of them with two settings."""
    chatting = [info for info in models if info.capabilities is None or "completion" in info.capabilities]
    chosen = sorted(chatting, key=lambda info: (info.size_bytes, info.name))[:2]
    columns = [ColumnChoice(info.name) for info in chosen]
    if len(columns) == 1:
        columns.append(ColumnChoice(columns[0].model, PRESETS["Precise"].options))
    return Lineup(tuple(columns) or (ColumnChoice(), ColumnChoice()))


def with_defaults(lineup: Lineup, models: Sequence[ModelInfo]) -> Lineup:
    """`lineup` with its models spelled as they are listed, or a first visit's where it names no model at all."""
    if any(choice.model for choice in lineup.columns):
        listed = {canonical(info.name): info.name for info in models}
        columns = tuple(
            msgspec.structs.replace(choice, model=listed.get(canonical(choice.model), choice.model))
            for choice in lineup.columns
        )
        return msgspec.structs.replace(lineup, columns=columns)
    first = first_lineup(models)
    return Lineup(first.columns, lineup.system, lineup.order, lineup.prompt)
