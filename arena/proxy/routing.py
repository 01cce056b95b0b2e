"""What a body asks for: the model, and which conversation it belongs to. The body itself stays as it came.

Whatever the content type says, a body with a model or a name in it is understood.
"""

from __future__ import annotations

import re
from json import JSONDecoder
from typing import Any, Final

import msgspec
from msgspec import Raw, Struct

from arena.errors import BadRequest
from arena.exchange import Inbound
from arena.proxy.headers import header

MAX_NAME: Final = 1024
SESSION_HEADER: Final = "session_header"

_FORM_MODEL: Final = re.compile(rb'name="model"[^\r\n]*\r\n(?:[^\r\n]+\r\n)*\r\n([^\r\n]*)\r\n')
_FORM_FIELD: Final = re.compile(rb'(?i)\bname\*?\s*=\s*"?model\b')
_BLANK: Final = re.compile(r"[ \t\r\n]*")
_scan: Final = JSONDecoder(strict=False).scan_once  # type: ignore[attr-defined]


class Peek(Struct):
    """The little that is read of a body; all else is only checked for being JSON."""

    model: str | None = None
    name: str | None = None


class Turn(Struct):
    """A message, as far as it tells conversations apart."""

    role: str = ""
    content: Raw = Raw(b"")


class Talk(Struct):
    """A body whose conversation is wanted too."""

    model: str | None = None
    name: str | None = None
    messages: list[Turn] | None = None
    system: Raw = Raw(b"")


class Asked(Struct, frozen=True):
    """What was asked for. `source`: by what its conversation was recognised, "session_header", "prefix_hash" or ""."""

    model: str
    body: bytes
    conversation: str | None = None
    source: str = ""


_peek: Final = msgspec.json.Decoder(Peek).decode
_members_of: Final = msgspec.json.Decoder(dict[str, Raw]).decode
_talk: Final = msgspec.json.Decoder(Talk).decode


def asked_in(inbound: Inbound, body: bytes, session: bytes = b"", *, sticks: bool) -> Asked:
    """Read the request; with `sticks`, its conversation too: its `session`, or what the body tells of it.

    Raises BadRequest for what no endpoint could answer.
    """
    found: Peek | Talk | None
    try:
        found = _talk(body) if sticks else _peek(body)
    except (ValueError, RecursionError):
        found = None
    model = None if found is None else found.model or found.name
    if not model:
        model = _model_of(inbound, body)
    if len(model) > MAX_NAME or not model.isprintable():
        raise BadRequest("model is not a name that any host could have")
    if inbound.caller.models is not None:
        _check_sole(body)
    if not sticks:
        return Asked(model, body)
    if session:
        return Asked(model, body, f"s:{session[:MAX_NAME].decode('latin-1')}", SESSION_HEADER)
    conversation = _conversation(inbound, found, model) if isinstance(found, Talk) else None
    return Asked(model, body, conversation, "prefix_hash" if conversation else "")


def _check_sole(body: bytes) -> None:
    """Who may use some models only must not name two, of which the host reads another one than we do.

    Ollama reads `Model` as `model`, and of two the last. Raises BadRequest.
    """
    try:
        sole = all(key.islower() for key in _members_of(body) if key.lower() in ("model", "name"))
    except (ValueError, RecursionError):
        sole = len(_FORM_FIELD.findall(body)) == 1
    if not sole:
        raise BadRequest("The request must name its model once, under the key model")


def respelled(body: bytes, model: str) -> bytes:
    """`body` with another model in it; every other byte stays. What is no JSON (a form) is left alone.

    Raises BadRequest for a body that cannot be read closely enough: nested too deep, a number too long, half a form.
    """
    if not body.lstrip().startswith(b"{"):
        return body
    text = body.decode("utf-8", "surrogateescape")
    try:
        members = [(key.lower(), span) for key, span in _members(text)]
    except (ValueError, RecursionError, StopIteration, IndexError):
        raise BadRequest("The request body is not plain JSON: is it nested too deep, or a number too long?") from None
    spans = [span for key, span in members if key == "model"] or [span for key, span in members if key == "name"]
    for start, end in reversed(spans):
        text = f"{text[:start]}{msgspec.json.encode(model).decode()}{text[end:]}"
    return text.encode("utf-8", "surrogateescape")


def _model_of(inbound: Inbound, body: bytes) -> str:
    """The careful way: forms, keys in other cases (servers take them), and the words for what is wrong."""
    if (header(inbound.headers, b"content-type") or b"").lower().startswith(b"multipart/"):
        match = _FORM_MODEL.search(body)
        model: Any = match[1].decode("utf-8", "replace") if match else None
    else:
        if not body.strip():
            raise BadRequest("missing request body")
        try:
            value = msgspec.json.decode(body)
        except (ValueError, RecursionError):
            raise BadRequest("The request body is not valid JSON") from None
        if not isinstance(value, dict):
            raise BadRequest("The request body must be a JSON object")
        names = {key.lower(): given for key, given in value.items()}
        model = value.get("model") or value.get("name") or names.get("model") or names.get("name")
    if not model:
        raise BadRequest("model is required")
    if not isinstance(model, str):
        raise BadRequest("model must be a string")
    return model.strip()


def _conversation(inbound: Inbound, talk: Talk, model: str) -> str | None:
    """A word for the conversation: its caller, model, instructions and the first thing the user said."""
    messages = talk.messages
    if not messages:
        return None
    first = instructions = b""
    for turn in messages:
        if turn.role == "user":
            first = bytes(turn.content)
            break
        instructions += bytes(turn.content)
    if not first:
        return None
    return f"{hash((inbound.caller.counted_as, model.lower(), bytes(talk.system), instructions, first)):x}"


def _members(text: str) -> list[tuple[str, tuple[int, int]]]:
    """The members of the JSON object in `text` whose values are strings, and where those stand."""
    found = []
    at = text.find("{") + 1
    while 0 < at < len(text):
        at = _after_blank(text, at)
        if text[at] != '"':
            break
        key, at = _scan(text, at)
        start = _after_blank(text, _after_blank(text, at) + 1)
        value, at = _scan(text, start)
        if isinstance(value, str):
            found.append((key, (start, at)))
        at = _after_blank(text, at)
        if text[at] != ",":
            break
        at += 1
    return found


def _after_blank(text: str, at: int) -> int:
    match = _BLANK.match(text, at)
    return match.end() if match else at
