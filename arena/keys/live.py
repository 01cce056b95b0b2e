"""The keys of a running server: found by what a request brings, held to their limits, counted."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from hashlib import sha256
from math import ceil
from pathlib import Path
from typing import Final

import msgspec

from arena.errors import ArenaError, SettingsError, TooManyRequests
from arena.keys.file import read, read_use, replace, usage_path
from arena.keys.key import DAY_S, Key, Scope, Tally, Use, check_model, check_scope, day_of, tokens_of_day
from arena.keys.window import Window

log = logging.getLogger(__name__)

LOOK_S: Final = 1.0
"""Seconds between two looks at whether the file of keys has changed."""
FLUSH_S: Final = 1.0
"""Seconds of counters that a crash may lose."""
MAX_MODELS: Final = 1000
OTHER_MODELS: Final = "(other models)"
OTHER_HOSTS: Final = "(other hosts)"

Later = Callable[[float, Callable[[], None]], object]


class _Running:
    """What is known of a key while the server runs and need not outlive it."""

    __slots__ = ("answers", "requests", "tokens")

    def __init__(self) -> None:
        self.answers = 0
        self.requests = Window()
        self.tokens = Window()


class Keys:
    """The keys of a running server. `clock` tells seconds since 1970; `later(seconds, call)` calls back once.

    Raises SettingsError if the file at `path` cannot be read. A file that turns bad later is told in the log, and the
    keys known so far stay.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.time, later: Later | None = None) -> None:
        self._path = path
        self._usage_path = usage_path(path)
        self._clock = clock
        self._later = later or _on_the_loop
        self._by_digest: dict[str, Key] = {}
        self._by_name: dict[str, Key] = {}
        self._running: dict[str, _Running] = {}
        self._use = read_use(path)
        self._required = False
        self._unsaved = False
        self._signature = _signature(path)
        self._looked_s = clock()
        self._adopt(read(path))

    @property
    def required(self) -> bool:
        """Must every request bring a credential? Yes from the first key on, until the server stops.

        A key that is removed, or a file that is lost, must not open a server that was closed.
        """
        if not 0 <= self._clock() - self._looked_s < LOOK_S:
            self._look()
        return self._required

    def find(self, candidate: bytes) -> Key | None:
        """The key that `candidate` is, or None.

        It is looked up by its digest: the time taken tells how far a digest matches, which helps nobody to a key.
        """
        self._look()
        return self._by_digest.get(sha256(candidate).hexdigest())

    def has(self, digest: str) -> bool:
        """Is there (still) a key with this digest?"""
        self._look()
        return digest in self._by_digest

    def named(self, name: str) -> Key | None:
        """The key called `name`, or None if it has been removed."""
        self._look()
        return self._by_name.get(name)

    def admit(self, key: Key, scope: Scope | None = None, model: str | None = None) -> None:
        """Count one request in. `scope` None needs no more than a valid key, `model` None names none.

        Raises Forbidden, or TooManyRequests with `retry_after_s`; the message tells the remedy.
        """
        now = self._clock()
        use, running = self._of(key)
        try:
            check_scope(key, scope)
            check_model(key.models, model)
            self._check_limits(key, use, running, now)
        except ArenaError:
            use.refused += 1
            self._changed()
            raise
        running.requests.add(1, now)
        use.requests += 1
        use.last_s = now
        self._changed()

    def begin(self, key: Key) -> None:
        """Count one answer as under way. Raises TooManyRequests when the key has all it may have at a time."""
        use, running = self._of(key)
        if key.concurrent is not None and running.answers >= key.concurrent:
            use.refused += 1
            self._changed()
            text = f"This key may have {key.concurrent} answers under way at a time; wait for one to end, or stop one"
            raise TooManyRequests(text, retry_after_s=5)
        running.answers += 1

    def end(self, key: Key) -> None:
        """Count it out again."""
        if (running := self._running.get(key.digest)) is not None and running.answers:
            running.answers -= 1

    def spent(self, name: str, model: str, host: str, tokens: int) -> None:
        """Count an answer of `model` on `host`, and its tokens (prompts included), to the key `name`, if it exists."""
        key = self._by_name.get(name)
        if key is None:
            return
        now = self._clock()
        use, running = self._of(key)
        _count(use.models, model, OTHER_MODELS, tokens)
        _count(use.hosts, host, OTHER_HOSTS, tokens)
        use.tokens += tokens
        use.day_tokens = tokens_of_day(use, now) + tokens
        use.day = day_of(now)
        running.tokens.add(tokens, now)
        self._changed()

    def use(self, key: Key) -> Use:
        """What `key` has used so far, for reading only."""
        return self._use.get(key.digest) or Use()

    def in_flight(self, key: Key) -> int:
        """Its answers under way."""
        running = self._running.get(key.digest)
        return running.answers if running else 0

    def all(self) -> tuple[Key, ...]:
        """Every key, in the order of the file."""
        self._look()
        return tuple(self._by_name.values())

    def flush(self) -> None:
        """Write the counters, if they have changed. A disk that is full or gone is told in the log."""
        if not self._unsaved:
            return
        self._unsaved = False
        try:
            # no fsync: it would hold up every answer, and only a crash of the machine needs it
            replace(self._usage_path, msgspec.json.encode(self._use), durable=False)
        except OSError as error:
            log.warning("the use of keys could not be written: %s", error.strerror)

    def _of(self, key: Key) -> tuple[Use, _Running]:
        use = self._use.get(key.digest)
        if use is None:
            use = self._use[key.digest] = Use()
        running = self._running.get(key.digest)
        if running is None:
            running = self._running[key.digest] = _Running()
        return use, running

    def _check_limits(self, key: Key, use: Use, running: _Running, now: float) -> None:
        if key.per_minute is not None and (wait_s := running.requests.wait_s(key.per_minute, now)):
            raise _too_many(f"This key may send {key.per_minute} requests a minute", wait_s)
        if key.tokens_per_minute is not None and (wait_s := running.tokens.wait_s(key.tokens_per_minute, now)):
            raise _too_many(f"This key has used its {key.tokens_per_minute} tokens of this minute", wait_s)
        if key.tokens_per_day is not None and tokens_of_day(use, now) >= key.tokens_per_day:
            raise _too_many(f"This key has used its {key.tokens_per_day} tokens of today (UTC)", DAY_S - now % DAY_S)

    def _changed(self) -> None:
        if not self._unsaved:
            self._unsaved = True
            self._later(FLUSH_S, self.flush)

    def _look(self) -> None:
        """Read the file again if it has changed, at most once in LOOK_S."""
        now = self._clock()
        if 0 <= now - self._looked_s < LOOK_S:
            return
        self._looked_s = now
        signature = _signature(self._path)
        if signature == self._signature:
            return
        self._signature = signature
        try:
            self._adopt(read(self._path))
        except SettingsError as error:
            log.error("the keys stay as they were: %s", error.message)
        else:
            log.info("the keys were read again", extra={"keys": len(self._by_name)})

    def _adopt(self, keys: tuple[Key, ...]) -> None:
        self._by_digest = {key.digest: key for key in keys}
        self._by_name = {key.name: key for key in keys}
        self._required = self._required or bool(keys)
        # answers under way keep what they count in: it goes when the key and its last answer have gone
        self._running = {
            digest: running for digest, running in self._running.items() if running.answers or digest in self._by_digest
        }
        self._use = {digest: use for digest, use in self._use.items() if digest in self._by_digest}


def _signature(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _too_many(text: str, wait_s: float) -> TooManyRequests:
    return TooManyRequests(f"{text}; wait {ceil(wait_s)} seconds", retry_after_s=wait_s)


def _on_the_loop(delay_s: float, call: Callable[[], None]) -> None:
    asyncio.get_running_loop().call_later(delay_s, call)


def _count(tallies: dict[str, Tally], name: str, other: str, tokens: int) -> None:
    """Count an answer under `name`, or under `other` where there are MAX_MODELS names already."""
    if name not in tallies and len(tallies) >= MAX_MODELS:
        name = other
    tally = tallies.setdefault(name, Tally())
    tally.answers += 1
    tally.tokens += tokens
