"""The fleet file: what it may say, what it becomes, and how it is refused."""

from __future__ import annotations

import base64
import logging
import random
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from arena.errors import SettingsError
from arena.fleet.config import fleet_file, fleet_spec, reload
from arena.fleet.schema import known_keys
from arena.fleet.spec import Auth, EndpointSpec, FleetSpec, QueueSpec, StickySpec
from arena.settings import load as settings_of
from arena.wire import Timeouts

Write = Callable[[str], Path]

FULL = """\
strategy: priority
default_endpoint: gpu1
retry_on: [503]
management: closed
aliases:
  smart: [llama3.3:70b, "qwen3:32b"]
  Fast: qwen3:0.6b
sticky: {enabled: true, idle_ttl: 5m, max_sessions: 7}
queue: {max_waiting: 0, max_wait: 1m30s}
endpoints:
  - url: http://gpu1:11434/
    name: gpu1
    priority: 200
    weight: 2
    max_in_flight: 4
    check_interval: 500ms
    check_timeout: 1
    up_after: 2
    down_after: 3
    timeouts: {connect: 1s, first_byte: 10m, idle: 90, total: null}
    headers: {X-Team: "${TEAM:-research}"}
    auth: {type: bearer, token: "${GPU1_TOKEN}"}
    include: ["llama*"]
    exclude: ["*:70b"]
    tls_verify: false
  - url: https://gpu2:8000
    type: openai
"""


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes the fleet file."""
    monkeypatch.setenv("GPU1_TOKEN", "hush-hush")
    monkeypatch.delenv("TEAM", raising=False)

    def written(text: str) -> Path:
        path = tmp_path / "fleet.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return written


def refused(path: Path) -> str:
    """The one line that refuses the file, without the folder."""
    with pytest.raises(SettingsError) as error:
        reload(path)
    assert "\n" not in error.value.message
    return error.value.message.removeprefix(f"{path.parent}/")


# What it becomes


def test_every_key_arrives(write: Write) -> None:
    assert reload(write(FULL), Timeouts(connect_s=9, first_byte_s=8, idle_s=7, total_s=6)) == FleetSpec(
        endpoints=(
            EndpointSpec(
                name="gpu1",
                url="http://gpu1:11434",
                priority=200,
                weight=2.0,
                max_in_flight=4,
                check_interval_s=0.5,
                check_timeout_s=1.0,
                up_after=2,
                down_after=3,
                timeouts=Timeouts(connect_s=1, first_byte_s=600, idle_s=90, total_s=None),
                headers=(("X-Team", "research"),),
                auth=Auth.bearer("hush-hush"),
                include=("llama*",),
                exclude=("*:70b",),
                tls_verify=False,
            ),
            EndpointSpec(
                name="gpu2:8000",
                url="https://gpu2:8000",
                type="openai",
                timeouts=Timeouts(connect_s=9, first_byte_s=8, idle_s=7, total_s=6),
            ),
        ),
        strategy="priority",
        aliases={"smart": ("llama3.3:70b", "qwen3:32b"), "Fast": ("qwen3:0.6b",)},
        default_endpoint="gpu1",
        sticky=StickySpec(enabled=True, idle_ttl_s=300, max_sessions=7),
        queue=QueueSpec(max_waiting=0, max_wait_s=90),
        retry_on=frozenset({503}),
        management="closed",
    )


def test_what_is_not_said_is_the_default_of_the_spec(write: Write) -> None:
    assert reload(write("endpoints: [{url: 'http://a:1', name: a}]\n")) == FleetSpec(
        endpoints=(EndpointSpec(name="a", url="http://a:1"),)
    )


def test_a_file_without_endpoints_is_about_those_that_are_given(write: Write) -> None:
    given = (EndpointSpec(name="a", url="http://a:1"),)
    assert reload(write("strategy: round-robin\ndefault_endpoint: a\n"), endpoints=given) == FleetSpec(
        endpoints=given, strategy="round-robin", default_endpoint="a"
    )


def test_an_alias_may_bear_the_name_of_its_first_model(write: Write) -> None:
    assert reload(write("aliases: {llama3: [llama3, qwen3]}")).aliases == {"llama3": ("llama3", "qwen3")}


@pytest.mark.parametrize(
    ("said", "seconds"), [("30", 30), ("0.5", 0.5), ("500ms", 0.5), ("30s", 30), ("1h30m", 5400), ("1.5m", 90)]
)
def test_times(write: Write, said: str, seconds: float) -> None:
    assert reload(write(f"queue: {{max_wait: {said}}}")).queue.max_wait_s == pytest.approx(seconds)


def test_documentation_names_every_key() -> None:
    guide = (Path(__file__).parents[2] / "docs" / "fleet.md").read_text(encoding="utf-8")
    places = [(), ("endpoints", 0), ("endpoints", 0, "timeouts"), ("endpoints", 0, "auth"), ("sticky",), ("queue",)]
    for place in places:
        for key in {key for kind in ("bearer", "api_key", "basic") for key in known_keys(place, kind)}:
            assert f"`{key}`" in guide, f"docs/fleet.md does not explain {key} of {place}"
    for sample in re.findall(r"```yaml\n(.*?)```", guide, re.DOTALL):
        assert sample


# Credentials


def endpoint(more: str) -> str:
    return f"endpoints:\n  - url: http://gpu1:11434\n    name: gpu1\n{more}"


@pytest.mark.parametrize(
    ("auth", "header", "value"),
    [
        ("{type: bearer, token: abc}", "Authorization", "Bearer abc"),
        ("{type: bearer, token: '${GPU1_TOKEN}'}", "Authorization", "Bearer hush-hush"),
        ("{type: bearer, token: '${NONE:-spare}'}", "Authorization", "Bearer spare"),
        ("{type: bearer, token: 'a${GPU1_TOKEN}b'}", "Authorization", "Bearer ahush-hushb"),
        ("{type: bearer, token: '$${NOT}'}", "Authorization", "Bearer ${NOT}"),
        ("{type: bearer, token: 'pa$$word'}", "Authorization", "Bearer pa$$word"),
        ("{type: bearer, token_file: secret.txt}", "Authorization", "Bearer from-a-file"),
        ("{type: api_key, key: abc}", "X-Api-Key", "abc"),
        ("{type: api_key, key_file: '${FOLDER}/secret.txt', header: X-Auth}", "X-Auth", "from-a-file"),
        (
            "{type: basic, username: me, password: a:b}",
            "Authorization",
            "Basic " + base64.b64encode(b"me:a:b").decode(),
        ),
        (
            "{type: basic, username_file: name.txt, password_file: secret.txt}",
            "Authorization",
            "Basic " + base64.b64encode(b"me:from-a-file").decode(),
        ),
    ],
)
def test_credentials(write: Write, monkeypatch: pytest.MonkeyPatch, auth: str, header: str, value: str) -> None:
    path = write(endpoint(f"    auth: {auth}"))
    monkeypatch.setenv("FOLDER", str(path.parent))
    (path.parent / "secret.txt").write_text("from-a-file\n")
    (path.parent / "name.txt").write_text("me\n")
    made = reload(path).endpoints[0].auth
    assert made is not None
    assert (made.header, made.value.reveal()) == (header, value)
    assert value.split()[-1] not in repr(made)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("auth: {type: bearer, token: '${NONE}'}", "auth.token: the environment has no variable NONE; set it, or"),
        ("auth: {type: bearer, token: '${EMPTY}'}", "auth.token: the environment has no variable EMPTY"),
        ("auth: {type: bearer, token: '${NO NAME}'}", "auth.token: ${...} must hold the name of a variable"),
        ("auth: {type: bearer, token: '${NONE:-}'}", "auth.token: must be printable ASCII, not empty"),
        ("headers: {X-Key: '${NONE}'}", "headers.X-Key: the environment has no variable NONE"),
        ("auth: {type: bearer}", "auth: needs token or token_file, and not both"),
        ("auth: {type: bearer, token: a, token_file: b}", "auth: needs token or token_file, and not both"),
        (
            "auth: {type: api_key, token: hush-hush}",
            "auth.token: there is no such key; known are type, key, key_file, header",
        ),
        ("auth: {type: bearer, tokn: hush-hush}", "auth.tokn: there is no such key; did you mean token?"),
        ('auth: {type: bearer, token: "hush\\nhush"}', "auth.token: must be printable ASCII"),
        ("auth: {type: bearer, token: 12345}", "auth.token: must be text; put it into quotes"),
        ("auth: {type: bearr, token: hush-hush}", "auth.type: must be 'bearer', 'api_key', 'basic'"),
        ("auth: {token: hush-hush}", "auth: type is missing: bearer, api_key or basic"),
        ("auth: hush-hush", "auth: must be a"),
        ("auth: {type: basic, username: 'a:b', password: hush-hush}", "auth: username must not have a colon"),
        ("auth: {type: basic, password: hush-hush}", "auth: needs username or username_file, and not both"),
        ("auth: {type: api_key, key: hush-hush, header: Host}", "auth: 'Host' cannot be set as a header"),
        ("auth: {type: api_key, key: hush-hush, header: 'a b'}", "auth: 'a b' cannot be set as a header"),
        ("auth: {type: bearer, token_file: nowhere}", "auth: token_file {folder}/nowhere cannot be read: No such file"),
        ("auth: {type: bearer, token_file: empty}", "auth: token_file {folder}/empty: what it holds must be printable"),
        ("auth: {type: bearer, token_file: two-lines}", "auth: token_file {folder}/two-lines: what it holds must be"),
        ("headers: {Content-Length: hush-hush}", " 'Content-Length' cannot be set as a header"),
        ("headers: {X-A: hush-hush, x-a: other}", " the header x-a is set twice by headers and auth"),
        ("headers: {authorization: hush-hush}\n    auth: {type: bearer, token: a}", " the header authorization is set"),
        ('headers: {X-A: "hush-hush\\r\\nX-B: c"}', "headers.X-A: must be printable ASCII"),
    ],
)
def test_wrong_credentials_are_told_and_never_shown(
    write: Write, monkeypatch: pytest.MonkeyPatch, more: str, said: str
) -> None:
    monkeypatch.setenv("EMPTY", "")
    path = write(endpoint(f"    {more}\n"))
    (path.parent / "empty").write_text("\n")
    (path.parent / "two-lines").write_text("hush\nhush\n")
    message = refused(path)
    assert said.replace("{folder}", str(path.parent)) in message
    assert message.startswith("fleet.yaml:")
    assert "endpoints[gpu1]" in message
    assert "hush" not in message
    assert "12345" not in message


def test_credentials_in_an_address_are_refused_and_not_shown(write: Write) -> None:
    message = refused(write("endpoints: [{url: 'http://me:hush-hush@gpu1'}]"))
    assert message == (
        "fleet.yaml:1: endpoints[#1].url: an endpoint's address must not hold a user name or password; use auth"
    )


# What is refused


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("strategy:", "stratgy:", "fleet.yaml:1: stratgy: there is no such key; did you mean strategy?"),
        ("strategy:", "zebra:", "fleet.yaml:1: zebra: there is no such key; known are endpoints, strategy, aliases"),
        ("strategy: priority", "strategy: fastest", "fleet.yaml:1: strategy: must be 'warm-first', 'priority',"),
        (
            "default_endpoint: gpu1",
            "default_endpoint: gpu3",
            "fleet.yaml:2: default_endpoint: no endpoint is called gpu3; did",
        ),
        ("default_endpoint: gpu1", "default_endpoint: zebra", "known are gpu1, gpu2:8000"),
        ("[503]", "[200]", "fleet.yaml:3: retry_on[#1]: must be greater than or equal to 400"),
        ("closed", "off", "fleet.yaml:4: management: must be 'open', 'closed' or 'auto'"),
        ("smart", "'s mart'", "fleet.yaml:6: aliases.s mart: this is not a valid model name"),
        ('"qwen3:32b"', '"qwen 3"', "fleet.yaml:6: aliases.smart[#2]: this is not a valid model name"),
        ('[llama3.3:70b, "qwen3:32b"]', "[]", "fleet.yaml:6: aliases.smart: must hold at least one"),
        ("Fast", "SMART:latest", "fleet.yaml:7: aliases.SMART:latest: is the same name as smart"),
        ("qwen3:0.6b", "Smart", "fleet.yaml:7: aliases.Fast: Smart is an alias too"),
        ("enabled: true", "enabled: 1", "fleet.yaml:8: sticky.enabled: must be a valid boolean"),
        ("idle_ttl: 5m", "idle_ttl: 5 minutes", "fleet.yaml:8: sticky.idle_ttl: must be seconds, or a time such as"),
        ("idle_ttl: 5m", "idle_ttl: -1", "fleet.yaml:8: sticky.idle_ttl: must be greater than 0"),
        ("idle_ttl: 5m", "idle_ttl: .inf", "fleet.yaml:8: this is neither text nor a plain number"),
        (
            "max_waiting",
            "max_wating",
            "fleet.yaml:9: queue.max_wating: there is no such key; did you mean max_waiting?",
        ),
        ("url: http://gpu1:11434/", "url: gpu1", "fleet.yaml:11: endpoints[gpu1].url: must look like http://host"),
        ("url: http://gpu1:11434/", "url: http://gpu1?x", "endpoints[gpu1].url: must look like http://host:11434"),
        ("url: http://gpu1:11434/", "url: ftp://gpu1", "endpoints[gpu1].url: endpoint address must look like"),
        ("url: http://gpu1:11434/", "url: http://gpu1:99999", "endpoints[gpu1].url: port out of range"),
        (
            "url: http://gpu1:11434/",
            "url: https://gpu2:8000/",
            "fleet.yaml:26: endpoints[#2].url: the endpoint gpu1 has",
        ),
        ("url: http://gpu1:11434/", "type: ollama", "fleet.yaml:11: endpoints[gpu1].url: is missing"),
        ("name: gpu1", "name: 7", "fleet.yaml:12: endpoints[#1].name: must be text; put it into quotes"),
        ("name: gpu1", "name: All", "fleet.yaml:12: endpoints[All].name: must not be All, which stands for every end"),
        ("name: gpu1", "name: engine", "endpoints[engine].name: must not be engine, which stands for the embedded"),
        ("name: gpu1", "name: 'a, b'", "fleet.yaml:12: endpoints[a, b].name: must have at most"),
        (
            "type: openai",
            "name: GPU1",
            "fleet.yaml:27: endpoints[GPU1].name: the endpoint gpu1 has the same name",
        ),
        ("priority: 200", "priority: '200'", "fleet.yaml:13: endpoints[gpu1].priority: must be a valid integer"),
        ("priority: 200", "priority: yes", "fleet.yaml:13: endpoints[gpu1].priority: must be a valid integer"),
        ("weight: 2", "weight: 0", "fleet.yaml:14: endpoints[gpu1].weight: must be greater than 0"),
        ("max_in_flight: 4", "max_in_flight: 0", "endpoints[gpu1].max_in_flight: must be greater than or equal to 1"),
        (
            "max_in_flight: 4",
            "max_in_flght: 4",
            "endpoints[gpu1].max_in_flght: there is no such key; did you mean max_in_fl",
        ),
        ("connect: 1s", "conect: 1s", "endpoints[gpu1].timeouts.conect: there is no such key; did you mean connect?"),
        ("connect: 1s", "connect: true", "endpoints[gpu1].timeouts.connect: must be"),
        ("exclude:", "exlude:", "endpoints[gpu1].exlude: there is no such key; did you mean exclude?"),
        ('["*:70b"]', '[""]', "endpoints[gpu1].exclude[#1]: "),
        ('["*:70b"]', "x", "endpoints[gpu1].exclude: must be a valid list"),
        ("type: openai", "type: vllm", "fleet.yaml:27: endpoints[#2].type: must be ollama, or openai (vLLM"),
        ("endpoints:", "endpoints: []\nx:", "fleet.yaml:10: endpoints: must hold at least one"),
        ("endpoints:", "endpoints: {}\nx:", "fleet.yaml:10: endpoints: must be a valid list"),
    ],
)
def test_a_mistake_is_one_line_with_its_place(write: Write, old: str, new: str, said: str) -> None:
    assert old in FULL
    assert said in refused(write(FULL.replace(old, new, 1)))


def test_whatever_is_in_the_file_it_is_read_or_refused_in_one_line(write: Write) -> None:
    chance = random.Random(7)
    words = [
        "[]",
        "{}",
        "~",
        "-1",
        "true",
        "''",
        "[[1]]",
        "{a: 1}",
        "*",
        "&a",
        "!!str x",
        "  ",
        "- ",
        ": ",
        '"',
        "1e999",
    ]
    said: list[str] = []
    for _ in range(40):
        lines = FULL.split("\n")
        for _ in range(chance.randint(1, 3)):
            at = chance.randrange(len(lines))
            cut = chance.randint(0, len(lines[at]))
            lines[at] = lines[at][:cut] + chance.choice(words) + lines[at][cut + chance.randint(0, 8) :]
        path = write("\n".join(lines))
        try:
            reload(path)
        except SettingsError as error:
            said.append(error.message.removeprefix(str(path)))
    assert 0 < len(said) < 40
    assert all(line.startswith(":") and "\n" not in line and "hush" not in line for line in said)


def test_several_mistakes_are_the_first_and_a_count(write: Write) -> None:
    text = FULL.replace("weight: 2", "weight: x").replace("max_wait:", "max_wate:").replace("idle: 90", "idle: soon")
    assert refused(write(text)).startswith("fleet.yaml:9: queue.max_wate: there is no such key; did you mean max_wait?")
    assert refused(write(text)).endswith("(and 2 more errors)")


# Where the fleet is found


def test_the_simple_case_needs_no_file(tmp_path: Path) -> None:
    settings = settings_of(data=tmp_path, endpoints=("a=http://gpu1", "gpu2"), connect_timeout_s=1, total_timeout_s=9)
    timeouts = Timeouts(connect_s=1, first_byte_s=300, idle_s=120, total_s=9)
    assert fleet_file(settings) is None
    assert fleet_spec(settings) == FleetSpec(
        endpoints=(
            EndpointSpec(name="a", url="http://gpu1", timeouts=timeouts),
            EndpointSpec(name="gpu2:11434", url="http://gpu2:11434", timeouts=timeouts),
        )
    )
    assert fleet_spec(settings_of(data=tmp_path)) == FleetSpec()


def test_the_file_in_the_data_folder_is_found(write: Write) -> None:
    path = write("strategy: weighted\n")
    settings = settings_of(data=path.parent)
    assert fleet_file(settings) == path
    assert fleet_spec(settings).strategy == "weighted"


def test_the_file_that_is_named_goes_first_and_must_be_there(write: Write, tmp_path: Path) -> None:
    write("strategy: weighted\n")
    named = tmp_path / "other.yaml"
    settings = settings_of(data=tmp_path, fleet=named)
    with pytest.raises(SettingsError, match=r"other\.yaml: the file cannot be read"):
        fleet_spec(settings)
    named.write_text("strategy: priority\n")
    assert fleet_spec(settings).strategy == "priority"


def test_endpoints_of_the_file_win_and_the_log_says_so(write: Write, caplog: pytest.LogCaptureFixture) -> None:
    path = write("endpoints: [{url: 'http://b'}]\n")
    with caplog.at_level(logging.WARNING):
        spec = fleet_spec(settings_of(data=path.parent, endpoints=("http://a",)))
    assert [endpoint.url for endpoint in spec.endpoints] == ["http://b"]
    assert "ARENA_ENDPOINTS is not used" in caplog.text


def test_endpoints_of_the_settings_serve_a_file_that_names_none(write: Write, caplog: pytest.LogCaptureFixture) -> None:
    path = write("strategy: weighted\ndefault_endpoint: one\n")
    spec = fleet_spec(settings_of(data=path.parent, endpoints=("one=http://a",)))
    assert ([endpoint.name for endpoint in spec.endpoints], spec.default_endpoint) == (["one"], "one")
    assert not caplog.records


def test_a_default_endpoint_may_be_the_one_that_is_found_later(write: Write) -> None:
    path = write("default_endpoint: engine\n")
    assert fleet_spec(settings_of(data=path.parent)).default_endpoint == "engine"
