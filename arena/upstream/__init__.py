"""What clients of every kind of server share: how a chat is asked, how its answer is read, what a refusal means.

A dialect (`ollama`, `openai`) says how bytes become text, when an answer is complete, and what its errors look like.
"""

from arena.upstream.answer import ERROR_BYTES, MOST, Budget, Stopwatch, StreamedAnswer, count, measured
from arena.upstream.client import LIST_BYTES, ChatClient, ClientSettings, encoded
from arena.upstream.refusals import (
    MAX_TEXT,
    any_json,
    believed_wait_s,
    clean,
    error_text,
    known_status,
    unknown_status,
)

__all__ = [
    "ERROR_BYTES",
    "LIST_BYTES",
    "MAX_TEXT",
    "MOST",
    "Budget",
    "ChatClient",
    "ClientSettings",
    "Stopwatch",
    "StreamedAnswer",
    "any_json",
    "believed_wait_s",
    "clean",
    "count",
    "encoded",
    "error_text",
    "known_status",
    "measured",
    "unknown_status",
]
