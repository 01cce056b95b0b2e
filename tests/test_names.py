"""Model names: what is legal, which spellings are equal, which name a registry."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arena.errors import BadRequest
from arena.names import MAX_BYTES, canonical, checked, registry_host


@pytest.mark.parametrize(
    "name",
    [
        "llama3",
        "llama3.2:3b",
        "smollm2:135m-instruct-q4_K_M",
        "user/model",
        "user/model:tag",
        "hf.co/bartowski/Llama-3.2-3B-Instruct-GGUF:Q4_K_M",
        "registry.local:5000/team/model",
        "localhost:5000/model",
        "_internal",
        "a" * 80,
    ],
)
def test_checked_legal_name_is_returned_unchanged(name: str) -> None:
    assert checked(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        " ",
        "two words",
        "Hello!",
        "model:",
        ":tag",
        "a:b:c",
        "a/b/c/d",
        "/model",
        "model/",
        "a//b",
        "../model",
        ".hidden",
        "-option",
        "model\n",
        "model\r\nHost: x",
        "mod\x00el",
        "modèle",
        "http://host/model",
        "a" * 81,
        "host:123456/ns/model",
    ],
)
def test_checked_illegal_name_is_refused(name: str) -> None:
    with pytest.raises(BadRequest, match="model"):
        checked(name)


@pytest.mark.parametrize("value", [None, 7, b"llama3", ["llama3"], {}])
def test_checked_other_type_is_refused(value: object) -> None:
    with pytest.raises(BadRequest, match="must be a model name"):
        checked(value)


def test_checked_error_names_the_field_but_not_the_value() -> None:
    with pytest.raises(BadRequest) as caught:
        checked("sec ret", field="models[2]")
    assert caught.value.message.startswith("models[2] ")
    assert "sec ret" not in caught.value.message


def test_checked_counts_bytes_of_the_whole_name() -> None:
    longest = "/".join(["h" * 80, "n" * 80, "m" * 80 + ":" + "t" * 12])
    assert len(longest) == MAX_BYTES
    assert checked(longest) == longest
    with pytest.raises(BadRequest):
        checked(longest + "t")


@given(st.text())
def test_checked_text_is_returned_or_refused_and_never_holds_white_space(text: str) -> None:
    try:
        assert checked(text) == text
    except BadRequest:
        return
    assert text.isascii()
    assert not any(char.isspace() for char in text)


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("llama3", "llama3:latest"),
        ("LLama3:8B", "llama3:8b"),
        ("user/model", "user/model:latest"),
        ("host:5000/user/model", "host:5000/user/model:latest"),
        ("host:5000/user/model:q8", "host:5000/user/model:q8"),
    ],
)
def test_canonical_is_lower_case_with_a_tag(name: str, form: str) -> None:
    assert canonical(name) == form
    assert canonical(form) == form


def test_canonical_ignores_case_and_a_missing_latest() -> None:
    assert canonical("Llama3") == canonical("llama3:latest")
    assert canonical("llama3") != canonical("llama3:8b")


@pytest.mark.parametrize(
    ("name", "host"),
    [
        ("llama3", None),
        ("user/model", None),
        ("hf.co/model", "hf.co"),
        ("localhost/model", "localhost"),
        ("host:5000/model", "host:5000"),
        ("plain/user/model", "plain"),
    ],
)
def test_registry_host_is_found_where_a_name_points_to_one(name: str, host: str | None) -> None:
    assert registry_host(name) == host
