"""What visitors keep on request, each for themselves alone: presets of columns, and conversations."""

from __future__ import annotations

import asyncio
import logging
import secrets
from datetime import datetime, timedelta
from typing import Final, TypeVar

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from arena.errors import BadRequest, Forbidden, NotFound, PayloadTooLarge, StoreUnavailable
from arena.exchange import Caller
from arena.store import Document, Kind, Store
from arena.store.shelf import Room, expire, save, titles
from arena.store.store import now
from arena.types import Manifest, Metrics, ModelInstance, Order

log = logging.getLogger(__name__)

FORMAT: Final = "ollama-arena-comparison/1"
"""The shape of `Conversation.columns` in a file: the page exports what can be kept."""

MOST: Final = 200
"""Presets of one owner, and conversations."""

MAX_NAME: Final = 80
"""Longest name of a preset or title of a conversation, in characters."""

MAX_PRESET_BYTES: Final = 64 * 1024
MAX_CONVERSATION_BYTES: Final = 1024 * 1024
"""Largest ones, in bytes of JSON."""

THIS_MACHINE: Final = "this machine"
"""The owner where a server is for its own machine alone, and nobody has a key."""


class Preset(Struct, frozen=True):
    """Columns to come back to: who stands in them, with the system prompt that they share and how they run."""

    instances: tuple[ModelInstance, ...]
    system: str = ""
    order: Order = "together"


class KeptFile(Struct, frozen=True):
    """A file that was attached to a prompt. Text is a part of the prompt as it was sent; a picture is not kept."""

    name: str
    kind: str
    size_bytes: int
    sha256: str


class KeptError(Struct, frozen=True):
    """What an answer ended with, where it did not end well."""

    code: str
    error: str


class KeptTurn(Struct, frozen=True):
    """One prompt, as it was typed and as it was sent, and one column's answer to it with what that cost."""

    prompt: str
    sent_prompt: str
    attachments: tuple[KeptFile, ...]
    instance: ModelInstance
    answer: str
    thinking: str
    complete: bool
    error: KeptError | None
    metrics: Metrics | None
    manifest: Manifest | None


class KeptColumn(Struct, frozen=True):
    """One column's turns, the first one first."""

    id: str
    turns: tuple[KeptTurn, ...]


class Conversation(Struct, frozen=True):
    """What was asked and answered, side by side."""

    columns: tuple[KeptColumn, ...]

    @property
    def first_words(self) -> str:
        """The beginning of the first prompt, as a title."""
        prompts = [turn.prompt for column in self.columns for turn in column.turns[:1]]
        words = "".join(c if c.isprintable() else " " for c in next(iter(prompts), "")).split()
        text = " ".join(words)
        if len(text) <= MAX_NAME:
            return text or "Without words"
        return f"{text[: MAX_NAME - 1].rpartition(' ')[0] or text[: MAX_NAME - 1]}…"


class KeptTitle(Struct, frozen=True):
    """A kept conversation without what is in it. `kept_at` is ISO 8601 in UTC."""

    id: str
    title: str
    kept_at: str


K = TypeVar("K", Preset, Conversation)


class Kept:
    """Everybody's presets and conversations. Every method may raise Forbidden and StoreUnavailable.

    `shared`: the server is for others than its own machine. `in_all` may be kept for everybody together, and of that
    `per_address` for the browsers without a key at one; 0 is any number. What these saved last so many `days` ago is
    deleted, once a day (UTC) when somebody looks; 0 is never.
    """

    def __init__(self, store: Store, *, shared: bool, in_all: int = 0, per_address: int = 0, days: int = 0) -> None:
        self._store = store
        self._shared = shared
        self._room = Room(MOST, per_address, in_all)
        self._days = days
        self._swept = ""

    async def presets(self, caller: Caller) -> dict[str, Preset]:
        """The caller's presets by name, the latest first."""
        return await asyncio.to_thread(self._presets, self._owner(caller))

    async def save_preset(self, caller: Caller, name: str, preset: Preset) -> None:
        """Keep a preset; the one of that name is replaced.

        Raises BadRequest for the name, PayloadTooLarge, and Conflict where it would be one too many.
        """
        check_name(name, "name")
        if "/" in name or name in (".", ".."):
            raise BadRequest("name must not hold a slash, nor be . or ..: it is a part of an address")
        await self._save("preset", caller, name, name, preset, MAX_PRESET_BYTES)

    async def delete_preset(self, caller: Caller, name: str) -> None:
        """Forget a preset. Raises NotFound."""
        await asyncio.to_thread(self._delete, "preset", self._owner(caller), name)

    async def conversations(self, caller: Caller) -> list[KeptTitle]:
        """The caller's conversations, the latest first."""
        return await asyncio.to_thread(self._titles, self._owner(caller))

    async def keep(
        self, caller: Caller, conversation: Conversation, title: str = "", conversation_id: str = ""
    ) -> KeptTitle:
        """Keep a conversation under a title (by default its first words), in the place of another one of its own.

        Raises BadRequest for the title, PayloadTooLarge, and Conflict where it would be one too many.
        """
        if title:
            check_name(title, "title")
        title = title or conversation.first_words
        document_id = conversation_id or secrets.token_hex(16)
        return await self._save("conversation", caller, document_id, title, conversation, MAX_CONVERSATION_BYTES)

    async def conversation(self, caller: Caller, conversation_id: str) -> tuple[KeptTitle, Conversation]:
        """A kept conversation. Raises NotFound, also for that of somebody else."""
        return await asyncio.to_thread(self._conversation, self._owner(caller), conversation_id)

    async def delete_conversation(self, caller: Caller, conversation_id: str) -> None:
        """Forget a conversation. Raises NotFound."""
        await asyncio.to_thread(self._delete, "conversation", self._owner(caller), conversation_id)

    def _owner(self, caller: Caller) -> str:
        """Who the caller is for good: an address may be another's tomorrow, and a session ends.

        Raises Forbidden for callers of a server for others who have neither a key nor a browser's name.
        """
        if caller.key or caller.visitor:
            return caller.voter
        if self._shared:
            raise Forbidden(
                "Nothing can be kept for somebody unknown: reload the page, which gives your browser a name, or send a "
                "named key of your own",
                code="nobody",
            )
        return THIS_MACHINE

    async def _save(
        self, kind: Kind, caller: Caller, document_id: str, title: str, value: Struct, most: int
    ) -> KeptTitle:
        owner, content = self._owner(caller), msgspec.to_builtins(value)
        size = len(msgspec.json.encode(content))
        if size > most:
            raise PayloadTooLarge(
                f"This {kind} is too large to be kept: {size:,} bytes, and at most {most:,} are taken", code="too_large"
            )
        address = caller.address if caller.visitor and not caller.key else ""
        return await asyncio.to_thread(self._write, owner, address, Document(kind, "", document_id, "", title, content))

    # ---- these block; for a thread

    def _write(self, owner: str, address: str, new: Document) -> KeptTitle:
        self._there()
        store = self._store
        document = replace(new, owner=store.pseudonym(owner), at=now(), address=store.pseudonym(address))
        save(store, document, self._room)
        return KeptTitle(document.id, document.title, document.at)

    def _presets(self, owner: str) -> dict[str, Preset]:
        if not self._there():
            return {}
        found = self._store.documents("preset", self._store.pseudonym(owner))
        return {each.id: _read(each, Preset) for each in found}

    def _titles(self, owner: str) -> list[KeptTitle]:
        found = titles(self._store, "conversation", self._store.pseudonym(owner)) if self._there() else []
        return [KeptTitle(each.id, each.title, each.at) for each in found]

    def _conversation(self, owner: str, conversation_id: str) -> tuple[KeptTitle, Conversation]:
        found = None
        if self._there() and conversation_id.isprintable():  # PostgreSQL takes no NUL, not even to look for it
            found = self._store.document("conversation", self._store.pseudonym(owner), conversation_id)
        if found is None:
            raise NotFound("No such conversation: it was deleted, or it is kept for somebody else")
        return KeptTitle(found.id, found.title, found.at), _read(found, Conversation)

    def _delete(self, kind: Kind, owner: str, document_id: str) -> None:
        store = self._store
        there = store.exists and document_id.isprintable()
        if not there or not store.forget(kind, store.pseudonym(owner), document_id):
            raise NotFound(f"No such {kind}: it was deleted already, or it is kept for somebody else")

    def _there(self) -> bool:
        """Is there a store at all? What is too old goes from it first, if it can: the rest is to be read anyway."""
        moment = now()
        if self._store.exists and self._days and self._swept != moment[:10]:
            self._swept = moment[:10]
            oldest = datetime.fromisoformat(moment) - timedelta(days=self._days)
            try:
                expire(self._store, oldest.isoformat(timespec="milliseconds"))
            except StoreUnavailable as error:
                log.warning("what was kept too long is not deleted today: %s", error.message)
        return self._store.exists


def _read(document: Document, kind: type[K]) -> K:
    """What a document holds. Raises StoreUnavailable for a damaged one, which its owner can delete."""
    try:
        return msgspec.convert(document.content, kind)
    except msgspec.ValidationError as error:
        text = f"The {document.kind} {document.id} is damaged and cannot be read any more: delete it"
        raise StoreUnavailable(text, details=str(error)) from None


def check_name(name: str, field: str) -> None:
    """Raises BadRequest unless `name` is what people can read: printable, not too long, without blanks around it."""
    if not 0 < len(name) <= MAX_NAME or not name.isprintable() or name != name.strip():
        raise BadRequest(f"{field} must be 1 to {MAX_NAME} printable characters, without blanks at either end")
