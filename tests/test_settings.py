"""Settings: names and aliases, Ollama's rules for addresses, refusals that name the variable and hide the value."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from arena.errors import SettingsError
from arena.settings import Settings, endpoint_name_and_url, load, variables

EVERY_VARIABLE = [variable for field in Settings.model_fields for variable in variables(field)]


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No variable of the arena is set, and no .env lies in the working folder."""
    for variable in EVERY_VARIABLE:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.chdir(tmp_path)


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


def test_documented_name_wins_over_an_alias(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEB_PORT", "1111")
    monkeypatch.setenv("ARENA_PORT", "2222")
    assert load().port == 2222


def test_override_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARENA_PORT", "2222")
    assert load(port=3333).port == 3333


def test_dotenv_is_read_and_the_environment_wins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(Settings.model_config, "env_file", ".env")
    (tmp_path / ".env").write_text("ARENA_PORT=4444\nARENA_ENGINE=off\n", encoding="utf-8")
    monkeypatch.setenv("ARENA_PORT", "5555")
    settings = load()
    assert (settings.port, settings.engine) == (5555, "off")


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
    "text", ["ftp://gpu", "http://", "name=", "http://user:secret@gpu", "http://gpu:port", "http://gpu:99999"]
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
