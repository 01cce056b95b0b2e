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

MAX_PARTS: Final = 64
"""A form is not looked through any further."""
MAX_MEMBERS: Final = 1000
"""A request with more keys than this is none."""
PART_BYTES: Final = 4096
"""How long the head of a part, and a name in it, may be."""

_BOUNDARY: Final = re.compile(rb'(?i);\s*boundary="?([^";,\s]{1,70})')
_FORM_MODEL: Final = re.compile(rb'[;\s](?i:name)="model"')
_FORM_FIELD: Final = re.compile(rb'(?i)\bname(?:\*[0-9*]*\s*=|\s*=\s*"?model\b)')
"""Whatever a server may take for the field `model`: also a name that is encoded, or told in pieces (RFC 2231)."""
_BLANK: Final = re.compile(r"[ \t\r\n]*")
_scan: Final = JSONDecoder(strict=False).scan_once  # type: ignore[attr-defined]


class Peek(Struct):
    """The little that is read of a body; all else is only checked for being JSON."""

    model: str | None = None
    name: str | None = None
    stream: Any = None


class Turn(Struct):
    """A message, as far as it tells conversations apart."""

    role: str = ""
    content: Raw = Raw(b"")


class Talk(Struct):
    """A body whose conversation is wanted too."""

    model: str | None = None
    name: str | None = None
    stream: Any = None
    messages: list[Turn] | None = None
    system: Raw = Raw(b"")


class Asked(Struct, frozen=True):
    """What was asked for. `source`: by what its conversation was recognised, "session_header", "prefix_hash" or "".

    `stream`: what the body says of wanting a stream; None where it says nothing.
    """

    model: str
    body: bytes
    conversation: str | None = None
    source: str = ""
    stream: Any = None


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
    stream = None if found is None else found.stream
    if not sticks:
        return Asked(model, body, stream=stream)
    if session:
        return Asked(model, body, f"s:{session[:MAX_NAME].decode('latin-1')}", SESSION_HEADER, stream)
    conversation = _conversation(inbound, found, model) if isinstance(found, Talk) else None
    return Asked(model, body, conversation, "prefix_hash" if conversation else "", stream)


def model_named(path: str, body: bytes) -> str | None:
    """Which model a refused request was about, by its path or its body; None where nobody could tell."""
    model: str | None = path.partition("/v1/models/")[2]
    if not model:
        try:
            found = _peek(body)
        except (ValueError, RecursionError):
            return None
        model = found.model or found.name
    return model if model and len(model) <= MAX_NAME else None


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
        why = "is it nested too deep, a number too long, or are there too many keys?"
        raise BadRequest(f"The request body is not plain JSON: {why}") from None
    spans = [span for key, span in members if key == "model"] or [span for key, span in members if key == "name"]
    name, parts, at = msgspec.json.encode(model).decode(), [], 0
    for start, end in spans:
        parts += [text[at:start], name]
        at = end
    return "".join([*parts, text[at:]]).encode("utf-8", "surrogateescape")


def _model_of(inbound: Inbound, body: bytes) -> str:
    """The careful way: forms, keys in other cases (servers take them), and the words for what is wrong."""
    content_type = header(inbound.headers, b"content-type") or b""
    if content_type.lower().startswith(b"multipart/"):
        model: Any = _model_in_form(content_type, body)
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


def _model_in_form(content_type: bytes, body: bytes) -> str | None:
    """The model that a form names; it may stand behind a file, which is skipped."""
    boundary = _BOUNDARY.search(content_type)
    mark = b"" if boundary is None else b"--" + boundary[1]
    at = body.find(mark) if mark else -1
    for _ in range(MAX_PARTS):
        if at < 0:
            break
        head, _, rest = body[at : at + PART_BYTES].partition(b"\r\n\r\n")
        if _FORM_MODEL.search(head):
            return rest.partition(b"\r\n")[0].decode("utf-8", "replace")
        at = body.find(mark, at + len(mark))
    return None


def _conversation(inbound: Inbound, talk: Talk, model: str) -> str | None:
    """A word for the conversation: its caller, model, instructions and the first thing the user said."""
    messages = talk.messages
    if not messages:
        return None
    first, instructions = b"", [bytes(talk.system)]
    for turn in messages:
        if turn.role == "user":
            first = bytes(turn.content)
            break
        instructions.append(bytes(turn.content))
    if not first:
        return None
    return f"{hash((inbound.caller.counted_as, model.lower(), *instructions, first)):x}"


def _members(text: str) -> list[tuple[str, tuple[int, int]]]:
    """The members of the JSON object in `text` whose values are strings, and where those stand."""
    found: list[tuple[str, tuple[int, int]]] = []
    at = text.find("{") + 1
    for _ in range(MAX_MEMBERS):
        if not 0 < at < len(text):
            return found
        at = _after_blank(text, at)
        if text[at] != '"':
            return found
        key, at = _scan(text, at)
        start = _after_blank(text, _after_blank(text, at) + 1)
        value, at = _scan(text, start)
        if isinstance(value, str):
            found.append((key, (start, at)))
        at = _after_blank(text, at)
        if text[at] != ",":
            return found
        at += 1
    raise ValueError("too many members")


def _after_blank(text: str, at: int) -> int:
    match = _BLANK.match(text, at)
    return match.end() if match else at
