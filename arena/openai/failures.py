"""What went wrong at an OpenAI-compatible server, told in its own words where it has any."""

from __future__ import annotations

from typing import Any

from arena.errors import ArenaError, ModelNotFound, UpstreamBroken, UpstreamError
from arena.upstream import MAX_TEXT, any_json, clean, error_text, known_status, unknown_status
from arena.wire import Headers


class Unsupported(ArenaError):
    """This kind of server cannot do that."""

    status = 501
    default_code = "not_supported"


def unsupported(endpoint: str, action: str) -> Unsupported:
    """The error for what OpenAI's API has no words for; `action` reads "load a model"."""
    return Unsupported(f"{endpoint} is an OpenAI-compatible server: it cannot be told to {action} from here")


def read_object(text: bytes, endpoint: str) -> dict[str, Any]:
    """The JSON object in `text`. Raises UpstreamBroken "malformed", or for a web page."""
    value = any_json(text)
    if isinstance(value, dict):
        return value
    if text.lstrip()[:1] == b"<":
        raise _web_page(endpoint)
    message = f"{endpoint} sent something that is not the JSON of OpenAI's API"
    raise UpstreamBroken(message, endpoint=endpoint, code="malformed")


def failed(value: Any, endpoint: str) -> UpstreamError:
    """The failure that an error object tells of, in the middle of an answer."""
    return UpstreamError(_text({"error": value}) or f"{endpoint} failed without saying why", endpoint=endpoint)


def refusal(status: int, headers: Headers, body: bytes, endpoint: str) -> ArenaError:
    """The error for an answer with `status` other than 200. The endpoint's 401 is never the caller's."""
    text = _text(any_json(body))
    known = known_status(status, headers, text, endpoint)
    if known is not None:
        return known
    if body.lstrip()[:1] == b"<":
        return _web_page(endpoint, status)
    if status == 404 and (text is None or "model" not in text.lower()):
        message = f"{endpoint} does not know this address: is the path in its URL right?"
        return UpstreamBroken(message, endpoint=endpoint, upstream_status=status, code="not_openai", details=text)
    if status == 404 and text is not None:
        return ModelNotFound(text)
    return unknown_status(status, body, text, endpoint)


def told(body: bytes) -> str | None:
    """The words of an error in the body of a refusal, if there are any."""
    return _text(any_json(body))


def _text(value: Any) -> str | None:
    """The words of an error, as OpenAI, vLLM and FastAPI wrap them."""
    if isinstance(value, dict) and isinstance(detail := value.get("detail"), str):
        return clean(detail)[:MAX_TEXT] or None
    return error_text(value)


def _web_page(endpoint: str, status: int | None = None) -> UpstreamBroken:
    message = f"{endpoint} is not an OpenAI-compatible server: it answered with a web page"
    return UpstreamBroken(message, endpoint=endpoint, upstream_status=status, code="not_openai")
