"""Every key of the fleet file, once: its type, its limits, its default, and the value it becomes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from msgspec import Struct
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, model_validator

from arena.errors import BadRequest
from arena.fleet.spec import Auth, EndpointSpec, FleetSpec, Management, QueueSpec, StickySpec, Strategy
from arena.names import checked
from arena.settings import endpoint_name_and_url
from arena.wire import Timeouts

UNITS_S: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
RESERVED: Final = {
    "all": "every endpoint",
    "missing": "those that lack a model",
    "engine": "the embedded engine",
}
SECRET_BYTES: Final = 16 * 1024
WEEK_S: Final = 7 * 86400.0
_AMOUNT = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)")
_VARIABLE = re.compile(r"\$(\$?)\{([^}]*)\}")
_VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
# these belong to the connection or to each message, and are not an operator's to set
_FRAMING = re.compile(
    "(proxy-)?connection|content-(encoding|length)|expect|host|keep-alive|te|trailer|transfer-encoding|upgrade", re.I
)


class Surroundings(Struct, frozen=True):
    """What a fleet file may refer to: the folder it lies in, and the environment."""

    folder: Path
    environment: Mapping[str, str]


def _around(info: ValidationInfo) -> Surroundings:
    assert isinstance(info.context, Surroundings)
    return info.context


def _expanded(text: str, info: ValidationInfo) -> str:
    """`${VAR}` and `${VAR:-default}` become what the environment says; `$${` stands for `${` itself."""
    environment = _around(info).environment

    def value(found: re.Match[str]) -> str:
        escaped, inside = found.groups()
        if escaped:
            return "${" + inside + "}"
        name, has_default, default = inside.partition(":-")
        if not _VARIABLE_NAME.fullmatch(name):
            raise ValueError("${...} must hold the name of a variable, such as ${GPU1_TOKEN}; write $${ for a plain ${")
        if there := environment.get(name):
            return str(there)
        if has_default:
            return default
        raise ValueError(f"the environment has no variable {name}; set it, or write ${{{name}:-default}}")

    return _VARIABLE.sub(value, text)


def seconds(value: Any) -> Any:
    """`"30s"`, `"1m30s"` or `"500ms"` as seconds; what is no text is returned as it is. Raises ValueError."""
    if not isinstance(value, str):
        return value
    if not re.fullmatch(f"({_AMOUNT.pattern})+", value):
        raise ValueError("must be seconds, or a time such as 500ms, 30s, 5m or 1h30m")
    return sum(float(amount) * UNITS_S[unit] for amount, unit in _AMOUNT.findall(value))


def _model_name(name: str) -> str:
    try:
        return checked(name, field="this")
    except BadRequest as error:
        raise ValueError(error.message) from None


def _listed(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _kind(value: object) -> object:
    if value not in ("ollama", "openai"):
        raise ValueError("must be ollama, or openai (vLLM, llama.cpp, LM Studio, all that speak OpenAI's API)")
    return value


def _visible(text: str) -> str:
    """What may be sent in a header."""
    if not text or not text.isascii() or not text.isprintable() or text != text.strip():
        raise ValueError("must be printable ASCII, not empty, without blanks around it")
    return text


def _endpoint_name(name: str) -> str:
    _visible(name)
    if len(name) > 64 or "," in name:
        raise ValueError("must have at most 64 characters and no comma")
    if name.lower() in RESERVED:
        raise ValueError(f"must not be {name}, which stands for {RESERVED[name.lower()]}")
    return name


def _url(text: str) -> str:
    if "://" not in text or any(mark in text for mark in "?#=") or not text.isprintable():
        raise ValueError("must look like http://host:11434, without a query")
    try:
        return endpoint_name_and_url(text)[1]
    except ValueError as error:
        remedy = "; use auth" if "password" in str(error) else ""
        raise ValueError(f"{error}{remedy}") from None


Expanded = Annotated[str, AfterValidator(_expanded)]
Header = Annotated[Expanded, AfterValidator(_visible)]
Seconds = Annotated[float, BeforeValidator(seconds), Field(gt=0, le=WEEK_S, allow_inf_nan=False)]
SecondsOrNever = Annotated[float, BeforeValidator(seconds), Field(ge=0, le=WEEK_S, allow_inf_nan=False)]
Model = Annotated[str, AfterValidator(_model_name)]
Glob = Annotated[str, Field(min_length=1, max_length=255)]
Count = Annotated[int, Field(ge=1, le=1_000_000)]


class _Body(BaseModel):
    """A mapping of the file. Nothing is converted, nothing unknown passes, and no error repeats a value."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)


class _Credential(_Body):
    """One that may be read from a file beside the fleet file."""

    def secret(self, key: str, info: ValidationInfo) -> str:
        """What `key` says, or the file that `key`_file names. Raises ValueError unless it is exactly one of them."""
        given, file = getattr(self, key), getattr(self, f"{key}_file")
        if (given is None) == (file is None):
            raise ValueError(f"needs {key} or {key}_file, and not both")
        return str(given) if file is None else _from_file(_around(info).folder / file, f"{key}_file")


class BearerAuth(_Credential):
    """`Authorization: Bearer ...`."""

    type: Literal["bearer"]
    token: Annotated[Header | None, Field(repr=False)] = None
    token_file: Expanded | None = None
    _made: Auth

    @model_validator(mode="after")
    def _make(self, info: ValidationInfo) -> Self:
        self._made = Auth.bearer(self.secret("token", info))
        return self


class ApiKeyAuth(_Credential):
    """A bare key in a header of its own."""

    type: Literal["api_key"]
    key: Annotated[Header | None, Field(repr=False)] = None
    key_file: Expanded | None = None
    header: str = "X-Api-Key"
    _made: Auth

    @model_validator(mode="after")
    def _make(self, info: ValidationInfo) -> Self:
        _check_header_name(self.header)
        self._made = Auth.api_key(self.secret("key", info), self.header)
        return self


class BasicAuth(_Credential):
    """A user's name and password."""

    type: Literal["basic"]
    username: Header | None = None
    username_file: Expanded | None = None
    password: Annotated[Header | None, Field(repr=False)] = None
    password_file: Expanded | None = None
    _made: Auth

    @model_validator(mode="after")
    def _make(self, info: ValidationInfo) -> Self:
        username = self.secret("username", info)
        if ":" in username:
            raise ValueError("username must not have a colon")
        self._made = Auth.basic(username, self.secret("password", info))
        return self


class TimeoutsBody(_Body):
    """Seconds a call may take: to connect, until it begins to answer, between two pieces, in all (null: no limit)."""

    connect: Seconds | None = None
    first_byte: Seconds | None = None
    idle: Seconds | None = None
    total: Seconds | None = None

    def over(self, usual: Timeouts) -> Timeouts:
        """The usual time-outs with what is said here."""
        return Timeouts(
            connect_s=self.connect or usual.connect_s,
            first_byte_s=self.first_byte or usual.first_byte_s,
            idle_s=self.idle or usual.idle_s,
            total_s=self.total if "total" in self.model_fields_set else usual.total_s,
        )


class EndpointBody(_Body):
    """One server."""

    url: Annotated[Expanded, AfterValidator(_url)]
    name: Annotated[str, AfterValidator(_endpoint_name)] | None = None
    type: Annotated[Literal["ollama", "openai"], BeforeValidator(_kind)] = "ollama"
    priority: Annotated[int, Field(ge=0, le=1_000_000)] = 100
    weight: Annotated[float, Field(gt=0, le=1000, allow_inf_nan=False)] = 1.0
    max_in_flight: Count | None = None
    check_interval: SecondsOrNever = 2.0
    check_timeout: Seconds = 2.0
    up_after: Annotated[int, Field(ge=1, le=100)] = 1
    down_after: Annotated[int, Field(ge=1, le=100)] = 2
    timeouts: TimeoutsBody = TimeoutsBody()
    headers: dict[str, Header] = {}
    auth: Annotated[BearerAuth | ApiKeyAuth | BasicAuth, Field(discriminator="type")] | None = None
    include: list[Glob] = []
    exclude: list[Glob] = []
    tls_verify: bool = True

    @model_validator(mode="after")
    def _headers_agree(self) -> Self:
        names = [name.lower() for name in self.headers]
        if self.auth is not None:
            names.append(self.auth._made.header.lower())
        for name in self.headers:
            _check_header_name(name)
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"the header {twice} is set twice by headers and auth")
        return self

    def spec(self, usual: Timeouts) -> EndpointSpec:
        """The endpoint as the fleet takes it."""
        return EndpointSpec(
            name=self.name or endpoint_name_and_url(self.url)[0],
            url=self.url,
            type=self.type,
            priority=self.priority,
            weight=self.weight,
            max_in_flight=self.max_in_flight,
            check_interval_s=self.check_interval,
            check_timeout_s=self.check_timeout,
            up_after=self.up_after,
            down_after=self.down_after,
            timeouts=self.timeouts.over(usual),
            headers=tuple(self.headers.items()),
            auth=self.auth._made if self.auth else None,
            include=tuple(self.include),
            exclude=tuple(self.exclude),
            tls_verify=self.tls_verify,
        )


class StickyBody(_Body):
    """Whether conversations stay where they were; `enabled` null leaves that to the strategy."""

    enabled: bool | None = None
    idle_ttl: Seconds = 600.0
    max_sessions: Count = 10_000


class QueueBody(_Body):
    """Requests that wait for a place on an endpoint with max_in_flight."""

    max_waiting: Annotated[int, Field(ge=0, le=1_000_000)] = 512
    max_wait: Seconds = 60.0


class FleetBody(_Body):
    """The whole file."""

    endpoints: Annotated[list[EndpointBody], Field(min_length=1)] | None = None
    strategy: Strategy = "warm-first"
    aliases: dict[Model, Annotated[list[Model], BeforeValidator(_listed), Field(min_length=1)]] = {}
    default_endpoint: str | None = None
    sticky: StickyBody = StickyBody()
    queue: QueueBody = QueueBody()
    retry_on: list[Annotated[int, Field(ge=400, le=599)]] = [429, 502, 503, 504]
    management: Management = "auto"

    def spec(self, usual: Timeouts, endpoints: tuple[EndpointSpec, ...]) -> FleetSpec:
        """The fleet; `endpoints` are those of a file that names none."""
        return FleetSpec(
            endpoints=endpoints if self.endpoints is None else tuple(body.spec(usual) for body in self.endpoints),
            strategy=self.strategy,
            aliases={alias: tuple(models) for alias, models in self.aliases.items()},
            default_endpoint=self.default_endpoint,
            sticky=StickySpec(
                enabled=self.sticky.enabled,
                idle_ttl_s=self.sticky.idle_ttl,
                max_sessions=self.sticky.max_sessions,
            ),
            queue=QueueSpec(max_waiting=self.queue.max_waiting, max_wait_s=self.queue.max_wait),
            retry_on=frozenset(self.retry_on),
            management=self.management,
        )


def known_keys(place: tuple[int | str, ...], kind: str = "") -> list[str]:
    """The keys of the mapping at `place`; those of credentials depend on their `kind`."""
    credentials: dict[str, type[BaseModel]] = {"api_key": ApiKeyAuth, "basic": BasicAuth}
    bodies: dict[tuple[str, ...], type[BaseModel]] = {
        (): FleetBody,
        ("endpoints",): EndpointBody,
        ("endpoints", "timeouts"): TimeoutsBody,
        ("endpoints", "auth"): credentials.get(kind, BearerAuth),
        ("sticky",): StickyBody,
        ("queue",): QueueBody,
    }
    return list(bodies[tuple(part for part in place if isinstance(part, str))].model_fields)


def _check_header_name(name: str) -> None:
    if not _HEADER_NAME.fullmatch(name) or _FRAMING.fullmatch(name):
        raise ValueError(f"{name!r} cannot be set as a header")


def _from_file(path: Path, key: str) -> str:
    """The secret in the file at `path`. Raises ValueError naming `key`."""
    try:
        with path.open("rb") as file:
            content = file.read(SECRET_BYTES)
    except OSError as error:
        raise ValueError(f"{key} {path} cannot be read: {error.strerror}") from None
    text = content.decode("latin-1").strip()
    try:
        return _visible(text)
    except ValueError as error:
        raise ValueError(f"{key} {path}: what it holds {error}") from None
