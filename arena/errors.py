"""Every error a user can meet, with its HTTP status and a stable word for programs.

ArenaError                500 internal
  BadRequest              400 bad_request
    PayloadTooLarge       413 payload_too_large
    UnsupportedMedia      415 unsupported_media_type
  Unauthorized            401 unauthorized
  Forbidden               403 forbidden
  NotFound                404 not_found
    ModelNotFound         404 model_not_found
  MethodNotAllowed        405 method_not_allowed
  Conflict                409 conflict
  TooManyRequests         429 too_many_requests
  Busy                    503 busy
    ShuttingDown          503 server_shutting_down
    NoEndpoint            503 no_endpoint
      NoSuchEndpoint      503 no_endpoint        (and there will be none: asking again is no use)
    StoreUnavailable      503 store_unavailable  (disk full, locked, damaged, gone: nothing was saved)
  Stopped                 499 stopped            (the user's own wish; never an HTTP answer)
  UpstreamError           502 upstream_error     (carries endpoint and upstream_status)
    Unreachable           502 backend_unreachable
    UpstreamTimeout       504 timeout
    UpstreamBroken        502 upstream_broken    (upstream_eof, upstream_reset, line_too_long ...)
    BudgetExceeded        502 budget_exceeded
  SettingsError           exit status 2 at start
"""

from __future__ import annotations

from typing import ClassVar


class ArenaError(Exception):
    """Base of all errors meant to be read by a user.

    `message` is one plain sentence; `code` a stable word for programs; `details` the cause in another
    program's words (Ollama's text, for one). Neither ever repeats a secret or the request's own content.
    """

    status: ClassVar[int] = 500
    default_code: ClassVar[str] = "internal"

    def __init__(self, message: str, *, code: str | None = None, details: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code
        self.details = details


class BadRequest(ArenaError):
    """The request itself is wrong; the message names the field and the remedy."""

    status = 400
    default_code = "bad_request"


class PayloadTooLarge(BadRequest):
    """The request body is over the limit."""

    status = 413
    default_code = "payload_too_large"


class UnsupportedMedia(BadRequest):
    """The request body is not JSON, or is compressed."""

    status = 415
    default_code = "unsupported_media_type"


class Unauthorized(ArenaError):
    """No token, or a wrong one."""

    status = 401
    default_code = "unauthorized"


class Forbidden(ArenaError):
    """Known caller, but not from this host, origin, or not on this server."""

    status = 403
    default_code = "forbidden"


class NotFound(ArenaError):
    """No such thing."""

    status = 404
    default_code = "not_found"


class ModelNotFound(NotFound):
    """No endpoint has the model."""

    default_code = "model_not_found"


class MethodNotAllowed(ArenaError):
    """The path exists, but not for this method."""

    status = 405
    default_code = "method_not_allowed"


class Conflict(ArenaError):
    """The thing exists already or is in another state."""

    status = 409
    default_code = "conflict"


class TooManyRequests(ArenaError):
    """A limit per caller was reached. `retry_after_s` is how long to wait, where that is known."""

    status = 429
    default_code = "too_many_requests"

    def __init__(self, message: str, *, code: str | None = None, retry_after_s: float | None = None) -> None:
        super().__init__(message, code=code)
        self.retry_after_s = retry_after_s


class Busy(ArenaError):
    """The server cannot take more now; try again, after `retry_after_s` where that is known."""

    status = 503
    default_code = "busy"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        details: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message, code=code, details=details)
        self.retry_after_s = retry_after_s


class ShuttingDown(Busy):
    """The server is stopping."""

    default_code = "server_shutting_down"


class NoEndpoint(Busy):
    """No endpoint is configured, or none answers."""

    default_code = "no_endpoint"


class NoSuchEndpoint(NoEndpoint):
    """No endpoint is of the type that it takes: only another fleet could serve it."""


class StoreUnavailable(Busy):
    """The store cannot be read or written now. What was asked for is not saved; asking again is safe."""

    default_code = "store_unavailable"


class Stopped(ArenaError):
    """The user stopped this answer."""

    status = 499
    default_code = "stopped"


class UpstreamError(ArenaError):
    """An Ollama endpoint failed. `upstream_status` is its HTTP status, when it sent one."""

    status = 502
    default_code = "upstream_error"

    def __init__(
        self,
        message: str,
        *,
        endpoint: str = "",
        upstream_status: int | None = None,
        code: str | None = None,
        details: str | None = None,
    ) -> None:
        super().__init__(message, code=code, details=details)
        self.endpoint = endpoint
        self.upstream_status = upstream_status


class Unreachable(UpstreamError):
    """The endpoint does not accept connections."""

    default_code = "backend_unreachable"


class UpstreamTimeout(UpstreamError):
    """The endpoint was silent for longer than the limit of that phase."""

    status = 504
    default_code = "timeout"


class UpstreamBroken(UpstreamError):
    """The endpoint's answer ended early or is not what Ollama sends."""

    default_code = "upstream_broken"


class BudgetExceeded(UpstreamError):
    """The answer grew over the arena's own limit of tokens, bytes or time."""

    default_code = "budget_exceeded"


class SettingsError(ArenaError):
    """A setting is wrong; the message names the variable and the remedy."""

    default_code = "settings"
