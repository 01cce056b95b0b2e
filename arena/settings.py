"""Every environment variable of the arena, once: name, default, sentence. Read at start, never again.

Values come from the environment, then from a `.env` file in the working folder, then from the default here.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

from dotenv.parser import parse_stream
from pydantic import AfterValidator, AliasChoices, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from arena.errors import SettingsError

log = logging.getLogger(__name__)

OLLAMA_DEFAULT = "http://127.0.0.1:11434"
OURS: Final = ("ARENA_", "WEB_CHAT_")
"""How the arena's own variables begin; such a name that is none of them is misspelt."""
OF_THE_ENGINE: Final = ("OLLAMA_", "HF_")
"""How those begin that the embedded engine reads, from the environment alone."""
NO_SETTINGS: Final = ("ARENA_TEST_", "ARENA_BENCH_")
"""How the variables of the tests and the measurements begin."""
_ENV_FILE_ENCODING: Final = "utf-8-sig"
"""Editors of Windows mark the byte order; the mark is no part of the first name."""
Place = Annotated[Path, AfterValidator(lambda path: Path(os.path.expanduser(path)))]
"""A ~ is the home folder also where no shell has seen it, as in .env."""


def _names(*aliases: str) -> AliasChoices:
    return AliasChoices(*aliases)


class Settings(BaseSettings):
    """The arena's settings. The first alias of a field is its documented name; the others are accepted too."""

    model_config = SettingsConfigDict(
        env_file=".env",
        env_file_encoding=_ENV_FILE_ENCODING,
        extra="ignore",
        frozen=True,
        populate_by_name=True,
        env_prefix="=",  # a field's own name is for callers: HOST or DATA in an environment are not meant for us
        env_ignore_empty=True,
    )

    host: str = Field(
        "127.0.0.1",
        validation_alias=_names("ARENA_HOST", "GRADIO_SERVER_NAME", "WEB_BIND"),
        description="Address to listen on. Any other than loopback needs WEB_CHAT_TOKEN.",
    )
    port: int = Field(
        7860,
        ge=0,
        le=65535,
        validation_alias=_names("ARENA_PORT", "GRADIO_SERVER_PORT", "WEB_PORT"),
        description="Port to listen on; 0 picks a free one.",
    )
    token: SecretStr | None = Field(
        None,
        validation_alias=_names("WEB_CHAT_TOKEN"),
        description="Bearer token that guards the page, the API and everything else. Unset: no sign-in.",
    )
    allow_open: bool = Field(
        False,
        validation_alias=_names("ARENA_ALLOW_OPEN"),
        description="Set to 1 to listen on a public address without a token. Anyone can then use your models.",
    )
    endpoints: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        validation_alias=_names("ARENA_ENDPOINTS", "OLLAMA_BASE_URLS", "OLLAMA_BASE_URL", "OLLAMA_HOST"),
        description="Ollama servers, separated by commas: url or name=url. "
        "Default: the local Ollama, or the embedded engine if none answers.",
    )
    fleet: Place | None = Field(
        None,
        validation_alias=_names("ARENA_FLEET"),
        description="YAML file that describes the servers in full (docs/fleet.md). "
        "Default: fleet.yaml in ARENA_DATA, if there is one.",
    )
    engine: Literal["auto", "on", "off"] = Field(
        "auto",
        validation_alias=_names("ARENA_ENGINE"),
        description="The embedded llama.cpp engine: auto (only if no Ollama answers), on, or off.",
    )
    data: Place = Field(
        Path("data"),
        validation_alias=_names("ARENA_DATA"),
        description="Folder for downloaded models and everything the arena keeps.",
    )
    database_url: SecretStr | None = Field(
        None,
        validation_alias=_names("ARENA_DATABASE_URL"),
        description="PostgreSQL database for votes and battles, postgresql://user:password@host/name. "
        "Default: arena.sqlite3 in ARENA_DATA.",
    )
    votes_per_voter: int = Field(
        1000,
        ge=0,
        validation_alias=_names("ARENA_VOTES_PER_VOTER"),
        description="Votes that one voter may cast a day; 0 for any number.",
    )
    votes_per_address: int = Field(
        3000,
        ge=0,
        validation_alias=_names("ARENA_VOTES_PER_ADDRESS"),
        description="Votes that may come from one address (IPv6: one /64 network) a day; 0 for any number.",
    )
    kept_in_all: int = Field(
        1000,
        ge=0,
        validation_alias=_names("ARENA_KEPT_IN_ALL"),
        description="Presets and conversations kept for all visitors together, up to 1 MiB each; 0 for any number.",
    )
    kept_per_address: int = Field(
        200,
        ge=0,
        validation_alias=_names("ARENA_KEPT_PER_ADDRESS"),
        description="Of these, for browsers without a key at one address (IPv6: one /64 network); 0 for any number.",
    )
    kept_days: int = Field(
        365,
        ge=0,
        le=36500,
        validation_alias=_names("ARENA_KEPT_DAYS"),
        description="Days after which what a browser without a key saved last is deleted; 0 for never. "
        "Such a browser loses its name, and with it all it keeps, after a year.",
    )
    engine_models: Annotated[tuple[Place, ...], NoDecode] = Field(
        (),
        validation_alias=_names("ARENA_MODELS"),
        description="Further GGUF files, or folders of them, for the embedded engine, separated as in PATH.",
    )
    engine_threads: int | None = Field(
        None,
        ge=1,
        validation_alias=_names("ARENA_ENGINE_THREADS"),
        description="Threads of the embedded engine for one model, never more than the cores it may use. "
        "Default: these cores, at most 4.",
    )
    root_path: str = Field(
        "",
        validation_alias=_names("ARENA_ROOT_PATH", "GRADIO_ROOT_PATH"),
        description="Path prefix under which a reverse proxy serves the arena, for example /arena.",
    )
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        validation_alias=_names("ARENA_ALLOWED_HOSTS"),
        description="Further host names under which the arena may be reached, separated by commas.",
    )
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        validation_alias=_names("ARENA_CORS_ORIGINS"),
        description="Web origins that may call the API from a browser, separated by commas. Default: none.",
    )
    trusted_proxies: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        validation_alias=_names("ARENA_TRUSTED_PROXIES"),
        description="Addresses or networks of reverse proxies whose X-Forwarded-For, -Proto and -Host are believed, "
        "separated by commas.",
    )
    management: bool | None = Field(
        None,
        validation_alias=_names("ARENA_MANAGEMENT"),
        description="Allow pull, delete and unload (1 or 0). Default: yes, but no on a Hugging Face Space; "
        "through the proxy also no on a public address.",
    )
    registry_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        ("registry.ollama.ai", "hf.co", "huggingface.co"),
        validation_alias=_names("ARENA_REGISTRY_HOSTS"),
        description="Registries that a model name may point to in a pull, separated by commas.",
    )
    requests_per_minute: int = Field(
        120,
        ge=0,
        validation_alias=_names("ARENA_REQUESTS_PER_MINUTE"),
        description="Requests a minute from one caller; 0 for any number. Counts on a public address and behind "
        "ARENA_TRUSTED_PROXIES only, and not for who has the token or an admin's key.",
    )
    request_burst: int = Field(
        30,
        ge=1,
        validation_alias=_names("ARENA_REQUEST_BURST"),
        description="How many of these requests may come at once.",
    )
    answers_per_caller: int = Field(
        8,
        ge=0,
        validation_alias=_names("ARENA_ANSWERS_PER_CALLER"),
        description="Answers at a time for one caller, counted where requests are; 0 for any number.",
    )
    max_columns: int = Field(
        6, ge=1, le=12, validation_alias=_names("ARENA_MAX_COLUMNS"), description="Columns on the page."
    )
    max_instances: int = Field(
        16,
        ge=1,
        le=256,
        validation_alias=_names("ARENA_MAX_INSTANCES"),
        description="Model instances in one API request.",
    )
    history_limit: int = Field(
        1000,
        ge=1,
        validation_alias=_names("ARENA_HISTORY_LIMIT"),
        description="Messages kept of a longer history (system messages always stay).",
    )
    max_body_bytes: int = Field(
        1024 * 1024,
        ge=1024,
        validation_alias=_names("ARENA_MAX_BODY_BYTES"),
        description="Largest request body of the API, in bytes.",
    )
    max_proxy_body_bytes: int = Field(
        32 * 1024 * 1024,
        ge=1024,
        validation_alias=_names("ARENA_MAX_PROXY_BODY_BYTES"),
        description="Largest request body that the proxy hands on, in bytes (files of models may be of any size).",
    )
    max_upload_bytes: int = Field(
        20 * 1024 * 1024,
        ge=1024,
        validation_alias=_names("ARENA_MAX_UPLOAD_BYTES"),
        description="Largest file attached on the page, in bytes.",
    )
    connect_timeout_s: float = Field(
        3,
        gt=0,
        validation_alias=_names("ARENA_CONNECT_TIMEOUT"),
        description="Seconds to wait for a connection to an endpoint.",
    )
    first_byte_timeout_s: float = Field(
        300,
        gt=0,
        validation_alias=_names("ARENA_FIRST_BYTE_TIMEOUT"),
        description="Seconds to wait for a stream to begin (a model may have to load). Whole answers have "
        "ARENA_TOTAL_TIMEOUT.",
    )
    idle_timeout_s: float = Field(
        120,
        gt=0,
        validation_alias=_names("ARENA_IDLE_TIMEOUT"),
        description="Seconds of silence after which a running answer is given up.",
    )
    total_timeout_s: float = Field(
        1800, gt=0, validation_alias=_names("ARENA_TOTAL_TIMEOUT"), description="Seconds one answer may take in all."
    )
    max_answer_tokens: int = Field(
        32768,
        ge=1,
        validation_alias=_names("ARENA_MAX_ANSWER_TOKENS"),
        description="Pieces of text one answer may have before it is cut.",
    )
    battle_answer_tokens: int = Field(
        2048,
        ge=16,
        validation_alias=_names("ARENA_BATTLE_ANSWER_TOKENS"),
        description="Tokens an answer in a battle may have, thoughts included. Raise it where models think at length.",
    )
    max_answer_bytes: int = Field(
        64 * 1024 * 1024,
        ge=1024,
        validation_alias=_names("ARENA_MAX_ANSWER_BYTES"),
        description="Bytes one answer may have before it is cut.",
    )
    drain_s: float = Field(
        5,
        ge=0,
        validation_alias=_names("ARENA_DRAIN"),
        description="Seconds that clients get, when the server stops, to take the last line of their answers. "
        "The answers themselves end at once, with what they have said so far.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", validation_alias=_names("ARENA_LOG_LEVEL", "LOG_LEVEL"), description="How much to log."
    )
    log_format: Literal["console", "json"] = Field(
        "console", validation_alias=_names("ARENA_LOG_FORMAT"), description="Log lines for people or for programs."
    )
    space_id: str | None = Field(
        None,
        validation_alias=_names("SPACE_ID"),
        description="Set by Hugging Face Spaces; listens on all addresses and turns management off.",
    )
    space_host: str | None = Field(
        None,
        validation_alias=_names("SPACE_HOST"),
        description="Set by Hugging Face Spaces: the host name under which the Space is reached.",
    )

    @field_validator("endpoints", "allowed_hosts", "cors_origins", "trusted_proxies", "registry_hosts", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return tuple(filter(None, re.split(r"[,;\s]+", value))) if isinstance(value, str) else value

    @field_validator("engine_models", mode="before")
    @classmethod
    def _split_paths(cls, value: Any) -> Any:
        return tuple(filter(None, value.split(os.pathsep))) if isinstance(value, str) else value

    @field_validator("data")
    @classmethod
    def _folder(cls, value: Path) -> Path:
        if os.path.isfile(value):
            raise ValueError("is a file; name a folder, which need not be there yet")
        return value

    @field_validator("root_path")
    @classmethod
    def _one_slash_before(cls, value: str) -> str:
        path = value.strip("/")
        if not re.fullmatch(r"[A-Za-z0-9._~/-]*", path):
            raise ValueError("must be a path such as /arena")
        return f"/{path}" if path else ""

    @field_validator("host")
    @classmethod
    def _address_alone(cls, value: str) -> str:
        host = value.strip().removeprefix("[").removesuffix("]")
        if "/" in host or (":" in host and _ip(host) is None):
            raise ValueError("give the address only, such as 127.0.0.1, without http:// and port (see ARENA_PORT)")
        return host

    @field_validator("token", mode="before")
    @classmethod
    def _without_blanks(cls, value: Any) -> Any:
        """The blanks around a token come from files and shells; a header cannot carry them. Blanks alone are none."""
        if not isinstance(value, str):
            return value
        if not value.strip():
            raise ValueError("is blank; set it to a secret, or leave it out")
        if not value.strip().isprintable():
            raise ValueError("holds a line break or another character that nobody can see; mend its quotes")
        return value.strip()

    @field_validator("endpoints")
    @classmethod
    def _check_endpoints(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        names = [endpoint_name_and_url(part)[0] for part in value]
        if len(set(names)) < len(names):
            raise ValueError("two endpoints have the same name or address; name them: a=http://...,b=http://...")
        return value

    @model_validator(mode="before")
    @classmethod
    def _on_a_space(cls, values: Any) -> Any:
        """A Space is reached through its own proxy: it must listen on all addresses."""
        given = {name.lower() for name, value in values.items() if value}
        names = {"host", *(variable.lower() for variable in variables("host"))}
        return {**values, "ARENA_HOST": "0.0.0.0"} if "space_id" in given and not names & given else values

    @property
    def public(self) -> bool:
        """Does the server listen on more than loopback?"""
        ip = _ip(self.host)
        return self.host != "localhost" if ip is None else not ip.is_loopback

    @property
    def shared(self) -> bool:
        """Is the server for others: reached from other machines, by itself or through a reverse proxy?"""
        return self.public or bool(self.trusted_proxies)

    @property
    def management_allowed(self) -> bool:
        """May models be pulled, deleted and unloaded?"""
        return self.management if self.management is not None else self.space_id is None

    def check_bind(self) -> None:
        """Refuse a public address without a token, unless that is explicitly wanted. Raises SettingsError."""
        if self.public and self.token is None and not self.allow_open and self.space_id is None:
            raise SettingsError(
                f"ARENA_HOST={self.host} can be reached from other machines, but no token is set. "
                "Set WEB_CHAT_TOKEN to a secret, or ARENA_HOST=127.0.0.1, or ARENA_ALLOW_OPEN=1."
            )


def endpoint_name_and_url(text: str) -> tuple[str, str]:
    """Split `name=url` or `url`, spelled by Ollama's own rules, into (name, base url without a slash at the end).

    No scheme means http and port 11434; `http://h` means port 80; 0.0.0.0 and :: mean loopback. Raises ValueError.
    """
    name, equals, address = text.partition("=")
    if not equals or "/" in name:
        name, address = "", text
    if "://" not in address:
        address = f"http://{address}"
        default_port: int | None = 11434
    else:
        default_port = None
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"endpoint {name or 'address'} must look like http://host:11434")
    if parts.username or parts.password:
        raise ValueError("an endpoint's address must not hold a user name or password")
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(parts.hostname, parts.hostname)
    port = parts.port or default_port
    netloc = (f"[{host}]" if ":" in host else host) + (f":{port}" if port else "")
    return name or netloc, f"{parts.scheme}://{netloc}{parts.path.rstrip('/')}"


def load(**overrides: Any) -> Settings:
    """Read the settings; a wrong one raises SettingsError naming the variable and the reason, never its value."""
    _names_in_env_file()  # before anything is believed: what cannot be read in the file may be the token
    try:
        return Settings(**overrides)
    except ValidationError as error:
        lines = [
            f"{_variable(item['loc'])}: {item['msg'].removeprefix('Value error, ')}"
            for item in error.errors(include_input=False)
        ]
        raise SettingsError("; ".join(lines)) from None


def warn_of_unknown() -> None:
    """Log one warning for each variable that is not used where it stands.

    Those that begin like the arena's own and are none, with the name probably meant; and the engine's in `.env`.
    """
    known = [variable for field in Settings.model_fields for variable in variables(field)]
    around, in_file = ({name.upper() for name in names} for names in (os.environ, _names_in_env_file()))
    for name in sorted(in_file.difference(known, around)):
        if name.startswith(OF_THE_ENGINE):
            log.warning("%s in .env is not read: set it in the environment itself", name)
    for name in sorted((around | in_file).difference(known)):
        if name.startswith(OURS) and not name.startswith(NO_SETTINGS):
            log.warning("%s is no setting and is not used%s", name, _meant(name, known))


def _meant(name: str, known: Sequence[str]) -> str:
    """The question after the setting that `name` was probably meant to be, if any is near."""
    bare = next(name.removeprefix(prefix) for prefix in OURS if name.startswith(prefix))
    near = [each for each in known if each.endswith(f"_{bare}")] or get_close_matches(name, known, n=1, cutoff=0.6)
    return f"; did you mean {near[0]}?" if near else ""


def _names_in_env_file() -> Iterable[str]:
    """The names in the `.env` file, if there is one. Raises SettingsError for a file or a line that cannot be read."""
    file = Settings.model_config.get("env_file")
    if not isinstance(file, str):
        return ()
    path = Path(file).absolute()
    try:
        with path.open(encoding=_ENV_FILE_ENCODING) as text:
            bindings = list(parse_stream(text))
    except FileNotFoundError:
        return ()
    except UnicodeDecodeError:
        raise SettingsError(f"{path} is not UTF-8 text. Save it as UTF-8, or remove it.") from None
    except OSError as error:
        raise SettingsError(
            f"{path} cannot be read ({error.strerror}). Make it a file that this user may read, or remove it."
        ) from None
    for key, value, original, wrong in bindings:
        if wrong or (key is not None and value is None):
            blank = len(original.string) - len(original.string.lstrip())
            line = original.line + original.string[:blank].count("\n")
            raise SettingsError(
                f"{path}, line {line}: cannot be read. Write NAME=value, with both quotes or none around the value."
            )
    return [key for key, *_ in bindings if key is not None]


def _ip(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None


def _variable(loc: tuple[int | str, ...]) -> str:
    """The name under which the user knows a field: the alias that is set, else the documented one."""
    if not loc:
        return "settings"
    key = str(loc[0])
    for name in Settings.model_fields:
        aliases = variables(name)
        if key == name or key.upper() in aliases:
            return next((alias for alias in aliases if alias in os.environ), aliases[0])
    return key


def variables(field: str) -> tuple[str, ...]:
    """All environment names of a field; the first is the documented one."""
    alias = Settings.model_fields[field].validation_alias
    return tuple(str(choice) for choice in alias.choices) if isinstance(alias, AliasChoices) else (field,)
