"""YAML as plain values: where each key is, and all that is not read."""

from __future__ import annotations

from pathlib import Path

import pytest

from arena.errors import SettingsError
from arena.fleet import document
from arena.fleet.document import Problem, parse, read


def test_values_and_their_lines() -> None:
    found = parse("a: 1\n# note\nb:\n  - x: 2.5\n    'y': '3'\n  - on\nc: ~\nd: 2020-01-01\n", "fleet.yaml")
    assert found.data == {"a": 1, "b": [{"x": 2.5, "y": "3"}, True], "c": None, "d": "2020-01-01"}
    assert found.line(("a",)) == 1
    assert found.line(("b",)) == 3
    assert found.line(("b", 0, "y")) == 5
    assert found.line(("b", 1)) == 6
    assert found.line(("b", 0, "nowhere", 3)) == 4
    assert found.line(("nowhere",)) is None


@pytest.mark.parametrize("text", ["---\na: 1\n...\n", "\ufeffa: 1", "a: 1\r\n"])
def test_marks_around_the_document_do_not_matter(text: str, tmp_path: Path) -> None:
    path = tmp_path / "fleet.yaml"
    path.write_bytes(text.encode())
    assert read(path).data == {"a": 1}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "f.yaml: the file is empty"),
        ("# only a note\n", "f.yaml: the file is empty"),
        ("~", "f.yaml: the file is empty"),
        ("- a\n", "f.yaml: the file must be a mapping"),
        ("a: 1\nb: 2\na: 3\n", "f.yaml:3: the key a is there twice, first in line 1"),
        ("x:\n  b: {c: 1, c: 2}\n", "f.yaml:2: the key c is there twice, first in line 2"),
        ("a: &x 1\n", "f.yaml:1: anchors and aliases"),
        ("a: [1]\nb: *x\n", "f.yaml:2: anchors and aliases"),
        ("&k a: 1\n", "f.yaml:1: a key must be plain text"),
        ("? [a]\n: 1\n", "f.yaml:1: a key must be plain text"),
        ("a: !!python/name:os.system x\n", "f.yaml:1: this is neither text nor a plain number"),
        ("a: !thing {b: 1}\n", "f.yaml:1: tags"),
        ("a: 1:30\n", "f.yaml:1: this is neither text nor a plain number; put it into quotes"),
        ("a: 0x1f\n", "f.yaml:1: this is neither"),
        ("a: " + "9" * 31, "f.yaml:1: this is neither"),
        ("a: 1\n---\nb: 2\n", "f.yaml:2: the file holds more than one document"),
        ("a: [1,\n", "f.yaml:2: this is not YAML"),
        ("a: b: c\n", "f.yaml:1: this is not YAML"),
        ("a: [*:70b]\n", "f.yaml:1: this is not YAML: put a value that begins with * or & into quotes"),
        ("a: &\n", "f.yaml:1: this is not YAML: put a value that begins with * or & into quotes"),
        ("a: \x07\n", "f.yaml: this is not YAML: it holds characters that are not text"),
        ("a: " + "[" * 5_000, "f.yaml:1: this is nested too deeply"),
        ("".join(f"{' ' * n}a:\n" for n in range(300)), "f.yaml:13: this is nested too deeply"),
    ],
)
def test_what_is_not_read_is_told_in_one_line(text: str, said: str) -> None:
    with pytest.raises(SettingsError) as error:
        parse(text, "f.yaml")
    assert error.value.message.startswith(said)
    assert "\n" not in error.value.message


def test_a_few_lines_cannot_stand_for_gigabytes() -> None:
    bomb = "a: &a [x, x]\n" + "".join(
        f"{name}: &{name} [*{old}, *{old}]\n" for old, name in zip("ab", "bc", strict=True)
    )
    with pytest.raises(SettingsError, match="anchors"):
        parse(bomb, "f.yaml")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"nowhere.yaml: the file cannot be read: No such file"):
        read(tmp_path / "nowhere.yaml")
    with pytest.raises(SettingsError, match="cannot be read"):
        read(tmp_path)
    path = tmp_path / "fleet.yaml"
    path.write_bytes(b"a: \xff\n")
    with pytest.raises(SettingsError, match="not UTF-8"):
        read(path)
    path.write_bytes(b"a: 1\n" + b"#" * document.MAX_BYTES)
    with pytest.raises(SettingsError, match="larger than 256 KiB"):
        read(path)


def test_the_first_of_several_problems_is_told_with_a_count() -> None:
    found = parse("a: 1\nb: 2\n", "f.yaml")
    second, first, nowhere = Problem(2, "b", "is wrong"), Problem(1, "a", "is bad"), Problem(None, "", "is odd")
    assert found.refuse([second, first]).message == "f.yaml:1: a: is bad (and 1 more error)"
    assert found.refuse([second, first, second]).message == "f.yaml:1: a: is bad (and 2 more errors)"
    assert found.refuse([nowhere]).message == "f.yaml: is odd"
