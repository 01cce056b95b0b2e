"""An Olla configuration becomes a fleet file that is read, and says what it leaves out."""

from __future__ import annotations

from pathlib import Path

import pytest

from arena.errors import SettingsError
from arena.fleet.config import reload
from arena.fleet.document import parse
from arena.fleet.olla import STRATEGIES, fleet_file
from arena.fleet.spec import Auth
from arena.wire import Timeouts

OLLA = """\
server:
  host: 0.0.0.0
  port: 40114
  read_timeout: 30s
  shutdown_timeout: 10s
  request_logging: true
  request_limits: {max_body_size: 100MB, max_header_size: 1MiB}
  rate_limits: {global_requests_per_minute: 1000, trusted_proxy_cidrs: [10.0.0.0/8, 127.0.0.1]}
proxy:
  engine: sherpa
  load_balancer: least-connections
  response_header_timeout: 5m
  read_timeout: soon
  max_retries: 3
  retry: {enabled: true}
  sticky_sessions: {enabled: true, idle_ttl_seconds: 300, key_sources: [session_header]}
discovery:
  type: static
  static:
    endpoints:
      - url: http://gpu1:11434
        name: local
        type: ollama
        priority: 80
        health_check_url: /
        check_interval: 5s
        model_filter: {include: ["llama*"], exclude: ["*:70b"]}
      - url: http://vllm:8000
        name: 2nd vllm
        type: vllm
        auth: {type: bearer, token: hush-hush}
        headers: {X-Api-Key: hush-too, X-Team: a, X-Token: "${TOKEN}", X-Number: 7}
        colour: red
      - url: http://gpu3:11434
        auth: {type: basic, username: "${WHO}", password_file: secret}
model_aliases:
  Smart: [llama3, "qwen3:4b"]
translators: {anthropic: {enabled: true}}
logging: {level: warn, format: text}
nonsense: hush-hush
empty: {}
"""


def translated(text: str) -> str:
    return fleet_file(parse(text, "olla.yaml"))


def comment(text: str, key: str) -> str:
    """What the translation says of `key`."""
    return next(line.partition(f"# {key}: ")[2] for line in text.splitlines() if f"# {key}: " in line)


def test_the_translation_is_a_fleet_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_2ND_VLLM_TOKEN", "_2ND_VLLM_X_API_KEY", "TOKEN", "WHO"):
        monkeypatch.setenv(name, name.lower())
    (tmp_path / "secret").write_text("open")
    (tmp_path / "fleet.yaml").write_text(translated(OLLA))
    spec = reload(tmp_path / "fleet.yaml", Timeouts())
    assert (spec.strategy, spec.sticky.enabled, spec.sticky.idle_ttl_s) == ("least-outstanding", True, 300)
    assert spec.aliases == {"Smart": ("llama3", "qwen3:4b")}
    first, second, third = spec.endpoints
    assert (first.name, first.url, first.type, first.priority) == ("local", "http://gpu1:11434", "ollama", 80)
    assert (first.check_interval_s, first.include, first.exclude) == (5, ("llama*",), ("*:70b",))
    assert (second.name, second.type, second.auth) == ("2nd vllm", "openai", Auth.bearer("_2nd_vllm_token"))
    assert dict(second.headers) == {
        "X-Api-Key": "_2nd_vllm_x_api_key",
        "X-Team": "a",
        "X-Token": "token",
        "X-Number": "7",
    }
    assert (third.name, third.auth) == ("gpu3:11434", Auth.basic("who", "open"))


def test_secrets_are_not_printed() -> None:
    text = translated(OLLA)
    assert "hush" not in text
    assert "# set the variable _2ND_VLLM_TOKEN to the token that is written in the Olla file" in text


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("server.host", "set ARENA_HOST=0.0.0.0"),
        ("server.port", "set ARENA_PORT=40114"),
        ("server.shutdown_timeout", "set ARENA_DRAIN=10"),
        ("server.request_limits.max_body_size", "set ARENA_MAX_PROXY_BODY_BYTES=104857600"),
        ("server.rate_limits.trusted_proxy_cidrs", "set ARENA_TRUSTED_PROXIES=10.0.0.0/8,127.0.0.1"),
        ("proxy.response_header_timeout", "set ARENA_FIRST_BYTE_TIMEOUT=300"),
        ("proxy.read_timeout", "set ARENA_IDLE_TIMEOUT=soon"),
        ("logging.format", "set ARENA_LOG_FORMAT=console"),
        ("logging.level", "set ARENA_LOG_LEVEL=warning"),
        ("server.request_logging", "Olla reads it and does not use it"),
        ("proxy.retry.enabled", "Olla reads it and does not use it; here retry_on"),
        ("proxy.max_retries", "Olla reads it and does not use it; here"),
        ("server.read_timeout", "no counterpart: the server has limits of its own"),
        ("server.rate_limits.global_requests_per_minute", "no counterpart: limits are those of named keys"),
        ("proxy.engine", "no counterpart: there is one engine"),
        ("proxy.sticky_sessions.key_sources", "no counterpart: a conversation is known by"),
        ("translators.anthropic.enabled", "no counterpart: Anthropic's messages are passed"),
        ("health_check_url", "no counterpart: an endpoint is asked"),
        ("colour", "Olla has no such key"),
        ("nonsense", "Olla has no such key"),
        ("empty", "Olla has no such key"),
    ],
)
def test_every_setting_without_a_place_is_told(key: str, said: str) -> None:
    assert comment(translated(OLLA), key).startswith(said)


def test_a_secret_under_a_wrong_key_is_not_printed_either() -> None:
    text = translated(
        OLLA.replace("token: hush", "tokn: hush").replace("auth: {type: basic", "auth: {pasword: hush, type: basic")
    )
    assert "hush" not in text
    assert "tokn: ${_2ND_VLLM_TOKN}" in text


def test_what_has_found_its_place_is_not_told_again() -> None:
    told = [line for line in translated(OLLA).splitlines() if line.startswith("# ")]
    for key in ("proxy.load_balancer", "proxy.sticky_sessions.enabled", "model_aliases", "discovery.static"):
        assert not [line for line in told if line.startswith(f"# {key}")]


def test_no_value_gets_out_of_its_comment() -> None:
    text = translated('server: {host: "a\\nendpoints: [{url: http://evil}]"}\n"x\\ny: 1": 2\n')
    assert [line for line in text.splitlines() if line and not line.startswith("#")] == []


@pytest.mark.parametrize("balancer", STRATEGIES)
def test_balancers(balancer: str, tmp_path: Path) -> None:
    (tmp_path / "fleet.yaml").write_text(translated(f"proxy: {{load_balancer: {balancer}}}"))
    assert reload(tmp_path / "fleet.yaml").strategy == STRATEGIES[balancer]


def test_a_type_that_is_not_told_is_taken_for_ollama() -> None:
    assert "# type was auto, taken for ollama" in translated("discovery: {static: {endpoints: [{url: 'http://a'}]}}")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("proxy: {load_balancer: fastest}", "olla.yaml:1: proxy.load_balancer: must be one of least-connections"),
        ("discovery: {static: {endpoints: 3}}", "olla.yaml:1: discovery.static.endpoints: must be a list"),
        ("discovery: {static: {endpoints: [3]}}", "olla.yaml:1: discovery.static.endpoints.0: must be a mapping"),
        (
            "discovery: {static: {endpoints: [{url: 'http://a', auth: secret}]}}",
            "olla.yaml:1: discovery.static.endpoints.0.auth: must be a mapping",
        ),
        (
            "discovery: {static: {endpoints: [{url: 'http://me:hush@a'}]}}",
            "olla.yaml:1: discovery.static.endpoints.0.url: must not hold a user name or password; use auth",
        ),
        ("proxy: {load_balancer: {}}", "olla.yaml:1: proxy.load_balancer: must be one of"),
        ("a: [1", "olla.yaml:1: this is not YAML"),
    ],
)
def test_what_cannot_be_understood_is_refused(text: str, said: str) -> None:
    with pytest.raises(SettingsError) as error:
        translated(text)
    assert error.value.message.startswith(said)


def test_true_and_lists_are_written_as_variables_take_them() -> None:
    text = translated(
        "server: {host: [a, b], port: true, request_limits: {max_body_size: huge}}\nlogging: {format: json}"
    )
    assert comment(text, "server.host") == "set ARENA_HOST=a,b"
    assert comment(text, "server.port") == "set ARENA_PORT=true"
    assert comment(text, "server.request_limits.max_body_size") == "set ARENA_MAX_PROXY_BODY_BYTES=huge"
    assert comment(text, "logging.format") == "set ARENA_LOG_FORMAT=json"
