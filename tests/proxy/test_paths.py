"""Paths of a host's disk are taken out of what it tells of a model, and nothing else is."""

from __future__ import annotations

import pytest

from arena.proxy.paths import shortened

BLOB = "sha256-" + "a1" * 32


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (f"FROM /usr/share/ollama/.ollama/models/blobs/{BLOB}", "FROM tiny:latest"),
        (f"FROM C:\\Users\\me\\.ollama\\models\\blobs\\{BLOB}", "FROM tiny:latest"),
        ("from ~/models/x.gguf", "from x.gguf"),
        ('FROM "/with blanks/my model.gguf"', "FROM my model.gguf"),
        ("FROM \\\\server\\share\\x.gguf", "FROM x.gguf"),
        ("# FROM /home/me/x.gguf  ", "# FROM x.gguf"),
        ("FROM file:///home/me/x.gguf", "FROM x.gguf"),
        ("FROM /a/folder/", "FROM folder"),
        ("ADAPTER /home/me/lora.bin", "ADAPTER lora.bin"),
        (f"ADAPTER /usr/share/ollama/.ollama/models/blobs/{BLOB}", f"ADAPTER {BLOB}"),
        ("# FROM tiny:latest", "# FROM tiny:latest"),
        ("FROM hf.co/org/name:Q4_0", "FROM hf.co/org/name:Q4_0"),
        ("FROM ./x.gguf", "FROM ./x.gguf"),
        ("FROM '/home/me/x.gguf'\t", "FROM x.gguf"),
        ('FROM "/home/me/x.gguf', "FROM x.gguf"),
        (" \t # \tADAPTER\t/x/y", " \t # \tADAPTER\ty"),
        ("SYSTEM read it FROM /etc/motd", "SYSTEM read it FROM /etc/motd"),
    ],
)
def test_lines_of_a_modelfile(line: str, expected: str) -> None:
    told = {"modelfile": f'# Modelfile\r\n{line}\nTEMPLATE """{{{{ .Prompt }}}}"""\n', "license": "x"}
    expected_file = f'# Modelfile\r\n{expected}\nTEMPLATE """{{{{ .Prompt }}}}"""\n'
    assert shortened(told, "tiny:latest") == {"modelfile": expected_file, "license": "x"}


def test_without_a_model_a_blob_keeps_its_name() -> None:
    assert shortened({"modelfile": f"FROM /blobs/{BLOB}"}) == {"modelfile": f"FROM {BLOB}"}


def test_the_parent_of_a_model_may_be_a_file() -> None:
    told = {"details": {"parent_model": "/home/me/x.gguf", "format": "gguf"}}
    assert shortened(told) == {"details": {"parent_model": "x.gguf", "format": "gguf"}}


@pytest.mark.parametrize(
    "told", [{}, {"details": None}, {"details": {"parent_model": "llama3.2"}}, {"modelfile": None}]
)
def test_what_holds_no_path_is_left_as_it_is(told: dict[str, object]) -> None:
    assert shortened(told) is told
