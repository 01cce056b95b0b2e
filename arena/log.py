"""Log lines: for people (console) or programs (json), one format for us, uvicorn and every library.

A line never holds the token or another credential, and nobody outside can start a new line or steer a terminal.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import sys
import time
from collections.abc import Iterable
from contextvars import ContextVar
from typing import Final, TextIO

import structlog
from structlog.types import EventDict, Processor, WrappedLogger

from arena.errors import ArenaError
from arena.settings import Settings

request_id: Final[ContextVar[str]] = ContextVar("request_id", default="")

REDACTED = "[redacted]"
# what our own lines tell apart from their text: programs look for failures by these
FIELDS: Final = ("endpoint", "model", "code", "elapsed_s", "instance_id", "job")
# control characters, line separators, and the marks that turn the direction of text
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_BEARER = re.compile(r"(?i)\bbearer +[^\s\"',\[]+")
_USERINFO = re.compile(r"://[^\s/@\"']{1,512}@")


def configure(settings: Settings, stream: TextIO | None = None) -> None:
    """Send all log lines to `stream` (standard error), in the settings' format and from their level on."""
    target = stream if stream is not None else sys.stderr
    handler = logging.StreamHandler(target)
    handler.addFilter(_is_no_cancellation)
    handler.setFormatter(_formatter(settings, colors=target.isatty()))
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    root = logging.getLogger()
    root.handlers = [handler]
    # libraries tell of every file and connection; only their warnings are worth a line
    root.setLevel(max(level, logging.WARNING))
    for name in ("arena", "uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi"):
        logger = logging.getLogger(name)
        logger.handlers = []
        logger.propagate = True
        # our own lines tell where the arena is and when it stops
        steps = name in ("uvicorn.error", "uvicorn.asgi") and level > logging.DEBUG
        logger.setLevel(max(level, logging.WARNING) if steps else level)


def warn_failed(logger: logging.Logger, what: str, error: ArenaError, began_s: float, **where: str) -> None:
    """Tell of a failure in one line: what failed and why, its code, the seconds since `began_s`, and `where`."""
    fields = {"code": error.code, "elapsed_s": f"{time.monotonic() - began_s:.3f}", **where}
    logger.warning("%s failed: %s", what, error.message, extra=fields)


def _is_no_cancellation(record: logging.LogRecord) -> bool:
    """A request that was cancelled, when its client left or the server stops, has not failed."""
    return not (record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError))


def _formatter(settings: Settings, *, colors: bool) -> logging.Formatter:
    secrets = [settings.token.get_secret_value()] if settings.token else []
    renderer: Processor
    if settings.log_format == "json":
        renderer = structlog.processors.JSONRenderer(ensure_ascii=True, sort_keys=False)
    else:
        renderer = structlog.dev.ConsoleRenderer(
            colors=colors, exception_formatter=structlog.dev.plain_traceback, pad_event_to=0
        )
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[
            structlog.stdlib.add_log_level,
            structlog.stdlib.add_logger_name,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.stdlib.ExtraAdder(FIELDS),
            _add_request_id,
            structlog.processors.format_exc_info,
        ],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            escape_control,
            Line(renderer, secrets),
        ],
    )


def _add_request_id(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    current = request_id.get()
    if current:
        event["request_id"] = current
    return event


def escape_control(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Spell out every control character; only a traceback keeps its lines, each of them set in."""
    for key, value in event.items():
        if key == "exception":
            event[key] = "\n".join(f"    {_escaped(line)}" for line in str(value).split("\n"))
        else:
            event[key] = _escaped(str(value))
    return event


def _escaped(text: str) -> str:
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), text)


class Line:
    """The last step: render the event with `renderer`, then blank out secrets, bearer tokens and URL credentials."""

    def __init__(self, renderer: Processor, secrets: Iterable[str]) -> None:
        spellings = {form for secret in secrets for form in (secret, json.dumps(secret)[1:-1], _escaped(secret))}
        self._renderer = renderer
        self._secrets = sorted(filter(None, spellings), key=len, reverse=True)

    def __call__(self, logger: WrappedLogger, method: str, event: EventDict) -> str:
        """One finished line."""
        line = str(self._renderer(logger, method, event))
        for secret in self._secrets:
            line = line.replace(secret, REDACTED)
        return _USERINFO.sub(f"://{REDACTED}@", _BEARER.sub(f"Bearer {REDACTED}", line))
