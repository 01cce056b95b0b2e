"""Settings: names and aliases, Ollama's rules for addresses, refusals that name the variable and hide the value."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from arena.errors import SettingsError
from arena.settings import Settings, endpoint_name_and_url, load, variables, warn_of_unknown

EVERY_VARIABLE = [variable for field in Settings.model_fields for variable in variables(field)]


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No variable of the arena is set, and no .env lies in the working folder."""
    for variable in EVERY_VARIABLE:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def env_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where the `.env` of the working folder would lie; it is read here, and is not there yet."""
    monkeypatch.setitem(Settings.model_config, "env_file", ".env")
    return tmp_path / ".env"


def test_defaults_listen_on_loopback_without_endpoints() -> None:
    settings = load()
    assert (settings.host, settings.port, settings.public) == ("127.0.0.1", 7860, False)
    assert settings.endpoints == ()
    assert settings.token is None
    assert settings.management_allowed
    settings.check_bind()


def test_variables_no_name_is_used_twice() -> None:
    assert len(set(EVERY_VARIABLE)) == len(EVERY_VARIABLE)


def test_variables_unknown_validation_alias_is_the_field_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Settings.model_fields["host"], "validation_alias", None)
    assert variables("host") == ("host",)


@pytest.mark.parametrize("variable", ["ARENA_HOST", "GRADIO_SERVER_NAME", "WEB_BIND"])
def test_host_every_alias_is_accepted(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "127.0.0.7")
    settings = load()
    assert settings.host == "127.0.0.7"
    assert not settings.public


@pytest.mark.parametrize("path", ["https://example.com/arena", "/a b", "/a?b"])
def test_root_path_must_be_a_path(path: str) -> None:
    with pytest.raises(SettingsError, match="ARENA_ROOT_PATH: must be a path such as /arena"):
        load(root_path=path)


@pytest.mark.parametrize(
    ("host", "public"),
    [("localhost", False), ("[::1]", False), ("0:0::1", False), ("::", True), ("127.example.com", True)],
)
def test_public_is_whatever_is_not_loopback(host: str, public: bool) -> None:
    assert load(host=host).public is public


@pytest.mark.parametrize("host", ["http://127.0.0.1", "127.0.0.1/", "127.0.0.1:7860", "[::1]:7860", "localhost:80"])
def test_host_is_an_address_and_nothing_else(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    monkeypatch.setenv("ARENA_HOST", host)
    with pytest.raises(
        SettingsError, match=r"^ARENA_HOST: give the address only, such as 127\.0\.0\.1, without http://"
    ):
        load()


def test_host_may_have_blanks_around_it() -> None:
    assert load(host=" 127.0.0.1 ").host == "127.0.0.1"


def test_documented_name_wins_over_an_alias(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEB_PORT", "1111")
    monkeypatch.setenv("ARENA_PORT", "2222")
    assert load().port == 2222


def test_override_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARENA_PORT", "2222")
    assert load(port=3333).port == 3333


def test_dotenv_is_read_and_the_environment_wins(monkeypatch: pytest.MonkeyPatch, env_file: Path) -> None:
    assert load().port == 7860
    env_file.write_text("# ours\n\nexport ARENA_PORT=4444\nARENA_ENGINE='off' # always\n", encoding="utf-8")
    monkeypatch.setenv("ARENA_PORT", "5555")
    settings = load()
    assert (settings.port, settings.engine) == (5555, "off")


@pytest.mark.parametrize("before", ["", "# ours\n"])
def test_dotenv_of_an_editor_that_marks_the_byte_order_loses_no_token(
    env_file: Path, caplog: pytest.LogCaptureFixture, before: str
) -> None:
    env_file.write_text(f"{before}WEB_CHAT_TOKEN=secret\nARENA_PORT=4444\n", encoding="utf-8-sig")
    settings = load()
    assert settings.token is not None
    assert (settings.token.get_secret_value(), settings.port) == ("secret", 4444)
    warn_of_unknown()
    assert not caplog.messages


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("WEB_CHAT_TOKEN='hunter2", 1),
        ('# ours\n\n\nWEB_CHAT_TOKEN="hunter2\nARENA_PORT=1\n', 4),
        ("ARENA_PORT=1\r\n\r\nWEB_CHAT_TOKEN='hunter2'2\r\n", 3),
        ("ARENA_PORT=1\nWEB_CHAT_TOKEN:hunter2\n", 2),
        ("ARENA_PORT=1\nWEB_CHAT_TOKEN hunter2\n", 2),
    ],
)
def test_dotenv_line_that_cannot_be_read_could_be_the_token_and_ends_the_start(
    env_file: Path, text: str, line: int
) -> None:
    env_file.write_bytes(text.encode())
    with pytest.raises(SettingsError) as caught:
        load()
    assert caught.value.message.startswith(f"{env_file}, line {line}: cannot be read. Write NAME=value")
    assert "hunter2" not in caught.value.message


def test_dotenv_that_is_no_text_is_refused(env_file: Path) -> None:
    env_file.write_bytes(b"\xff\xfe\x00A")
    with pytest.raises(SettingsError, match=r"\.env is not UTF-8 text\. Save it as UTF-8"):
        load()


def test_dotenv_that_cannot_be_opened_is_refused(env_file: Path) -> None:
    env_file.mkdir()
    with pytest.raises(SettingsError, match=r"\.env cannot be read \(.+\)\. Make it a file"):
        load()


def test_names_of_our_code_are_no_variables(monkeypatch: pytest.MonkeyPatch, env_file: Path) -> None:
    env_file.write_text("ENGINE=off\ntoken=theirs\n", encoding="utf-8")
    for name in ("HOST", "DATA", "host"):
        monkeypatch.setenv(name, "theirs")
    assert load() == load(host="127.0.0.1", token=None, engine="auto", data=Path("data"))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("ARENA_PROT", "; did you mean ARENA_PORT?"),
        ("arena_max_column", "; did you mean ARENA_MAX_COLUMNS?"),
        ("ARENA_TOKEN", "; did you mean WEB_CHAT_TOKEN?"),
        ("WEB_CHAT_TOKN", "; did you mean WEB_CHAT_TOKEN?"),
        ("WEB_CHAT_PORT", "; did you mean ARENA_PORT?"),
        ("WEB_CHAT_HOST", "; did you mean ARENA_HOST?"),
        ("WEB_CHAT_ENGINE_THREADS", "; did you mean ARENA_ENGINE_THREADS?"),
        ("ARENA_XYZZY", ""),
    ],
)
@pytest.mark.parametrize("from_file", [False, True])
def test_unknown_variable_is_told_with_the_one_that_was_meant(
    monkeypatch: pytest.MonkeyPatch,
    env_file: Path,
    caplog: pytest.LogCaptureFixture,
    name: str,
    said: str,
    from_file: bool,
) -> None:
    if from_file:
        env_file.write_text(f"ARENA_PORT=1\n{name}=hunter2\n", encoding="utf-8")
    else:
        monkeypatch.setenv(name, "hunter2")
    warn_of_unknown()
    assert caplog.messages == [f"{name.upper()} is no setting and is not used{said}"]


def test_variables_of_the_engine_are_not_read_from_the_file_and_that_is_told(
    monkeypatch: pytest.MonkeyPatch, env_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names = ("OLLAMA_KEEP_ALIVE", "HF_HOME", "OLLAMA_HOST", "PATH", "OLLAMA_MODELS")
    env_file.write_text("".join(f"{name}=x\n" for name in names), encoding="utf-8")
    monkeypatch.setenv("OLLAMA_MODELS", "there")
    warn_of_unknown()
    told = "in .env is not read: set it in the environment itself"
    assert caplog.messages == [f"HF_HOME {told}", f"OLLAMA_KEEP_ALIVE {told}"]


def test_variables_of_others_and_of_the_tests_are_not_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in (*EVERY_VARIABLE, "arena_port", "ARENA_TEST_X", "ARENA_BENCH_X", "OLLAMA_KEEP_ALIVE", "WEB_X", "ARENA"):
        monkeypatch.setenv(name, "1")
    warn_of_unknown()
    assert not caplog.messages


def test_empty_variable_means_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARENA_PORT", "")
    monkeypatch.setenv("WEB_CHAT_TOKEN", "")
    assert load().port == 7860
    assert load().token is None


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        load().port = 1


def test_token_blanks_around_it_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEB_CHAT_TOKEN", " secret\n")
    token = load().token
    assert token is not None
    assert token.get_secret_value() == "secret"


def test_token_of_blanks_is_refused_instead_of_locking_everybody_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEB_CHAT_TOKEN", "  ")
    with pytest.raises(SettingsError, match="WEB_CHAT_TOKEN: is blank"):
        load()


def test_token_over_two_lines_is_refused_for_a_quote_that_was_left_open(env_file: Path) -> None:
    env_file.write_text("WEB_CHAT_TOKEN='hunter2\nARENA_MODELS=models'\n", encoding="utf-8")
    with pytest.raises(SettingsError, match=r"^WEB_CHAT_TOKEN: holds a line break") as caught:
        load()
    assert "hunter2" not in caught.value.message


def test_token_is_not_shown() -> None:
    assert "hunter2" not in repr(load(token="hunter2"))


@pytest.mark.parametrize(
    ("text", "endpoints"),
    [
        ("http://a:1,http://b:2", ("http://a:1", "http://b:2")),
        ("http://a:1;http://b:2", ("http://a:1", "http://b:2")),
        (" a , b ,", ("a", "b")),
        ("fast=http://a:1 slow=http://a:2", ("fast=http://a:1", "slow=http://a:2")),
    ],
)
def test_endpoints_are_split_by_comma_semicolon_or_space(
    monkeypatch: pytest.MonkeyPatch, text: str, endpoints: tuple[str, ...]
) -> None:
    monkeypatch.setenv("ARENA_ENDPOINTS", text)
    assert load().endpoints == endpoints


def test_endpoints_sequence_is_taken_as_it_is() -> None:
    assert load(endpoints=("http://a:1",)).endpoints == ("http://a:1",)


@pytest.mark.parametrize("text", ["a,a", "x=http://a:1,x=http://b:1", "http://a:11434,a"])
def test_endpoints_two_of_one_name_are_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("ARENA_ENDPOINTS", text)
    with pytest.raises(SettingsError, match=r"ARENA_ENDPOINTS: two endpoints have the same name"):
        load()


def test_lists_are_split_by_comma(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARENA_ALLOWED_HOSTS", "arena.example, www.arena.example,")
    assert load().allowed_hosts == ("arena.example", "www.arena.example")
    assert load(allowed_hosts=("a",)).allowed_hosts == ("a",)


def test_a_tilde_is_the_home_folder_where_no_shell_has_seen_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("ARENA_DATA", "~/arena")
    monkeypatch.setenv("ARENA_FLEET", "~/fleet.yaml")
    monkeypatch.setenv("ARENA_MODELS", os.pathsep.join(["~/x.gguf", "/y"]))
    settings = load()
    assert (settings.data, settings.fleet) == (tmp_path / "arena", tmp_path / "fleet.yaml")
    assert settings.engine_models == (tmp_path / "x.gguf", Path("/y"))
    assert load(fleet=None).fleet is None


def test_a_data_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(SettingsError, match=r"^ARENA_DATA: is a file; name a folder"):
        load(data=file)


@pytest.mark.parametrize(
    ("text", "name", "url"),
    [
        ("localhost", "localhost:11434", "http://localhost:11434"),
        ("10.0.0.5:8080", "10.0.0.5:8080", "http://10.0.0.5:8080"),
        ("http://gpu", "gpu", "http://gpu"),
        ("https://gpu", "gpu", "https://gpu"),
        ("https://gpu:8443/ollama/", "gpu:8443", "https://gpu:8443/ollama"),
        ("0.0.0.0", "127.0.0.1:11434", "http://127.0.0.1:11434"),
        ("http://[::]:11434", "[::1]:11434", "http://[::1]:11434"),
        ("big=gpu1:11434", "big", "http://gpu1:11434"),
        ("http://gpu/?a=b", "gpu", "http://gpu"),
    ],
)
def test_endpoint_address_follows_ollamas_rules(text: str, name: str, url: str) -> None:
    assert endpoint_name_and_url(text) == (name, url)


@pytest.mark.parametrize(
    "text",
    [
        "ftp://gpu",
        "http://",
        "name=",
        "http://user:secret@gpu",
        "http://user@gpu",
        "http://gpu:port",
        "http://gpu:99999",
    ],
)
def test_endpoint_wrong_address_is_refused_without_its_secret(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        endpoint_name_and_url(text)
    assert "secret" not in str(caught.value)
    monkeypatch.setenv("ARENA_ENDPOINTS", text)
    with pytest.raises(SettingsError, match=r"^ARENA_ENDPOINTS: "):
        load()


@pytest.mark.parametrize(
    ("variable", "value"),
    [("ARENA_PORT", "65536"), ("WEB_PORT", "no number"), ("ARENA_MAX_COLUMNS", "13"), ("ARENA_ENGINE", "perhaps")],
)
def test_wrong_value_is_told_by_the_name_the_user_wrote(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError, match=rf"^{variable}: ") as caught:
        load()
    assert value not in caught.value.message.removeprefix(f"{variable}: ")


def test_wrong_override_is_told_by_the_documented_name() -> None:
    with pytest.raises(SettingsError, match=r"^ARENA_PORT: "):
        load(port=-1)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.4", "arena.example"])
def test_public_address_without_a_token_is_refused(host: str) -> None:
    settings = load(host=host)
    assert settings.public
    with pytest.raises(SettingsError, match="WEB_CHAT_TOKEN"):
        settings.check_bind()


@pytest.mark.parametrize("given", [{"token": "secret"}, {"allow_open": True}, {"space_id": "user/space"}])
def test_public_address_with_a_token_or_on_purpose_is_allowed(given: dict[str, object]) -> None:
    load(host="0.0.0.0", **given).check_bind()


def test_space_listens_everywhere_and_closes_management(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPACE_ID", "user/space")
    settings = load()
    assert (settings.host, settings.management_allowed) == ("0.0.0.0", False)
    settings.check_bind()


def test_space_keeps_a_chosen_address_and_opened_management(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPACE_ID", "user/space")
    monkeypatch.setenv("ARENA_HOST", "127.0.0.1")
    monkeypatch.setenv("ARENA_MANAGEMENT", "1")
    settings = load()
    assert (settings.host, settings.management_allowed) == ("127.0.0.1", True)
