"""The documents match the code. `make docs` (this file, run as a program) rewrites what is generated from Settings."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import NoneType
from typing import get_args

import pytest
from pydantic import SecretStr

from arena import __version__
from arena.cli import app
from arena.settings import Settings, variables

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
ENV_EXAMPLE = ROOT / ".env.example"
DOCUMENTS = [README, ROOT / "SECURITY.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
DECISIONS = sorted((ROOT / "docs" / "decisions").glob("*.md"))
BEGIN, END = "<!-- settings: written by `make docs` -->", "<!-- end of settings -->"
ENV_HEAD = """\
# Every setting of the arena, with its default. Copy this file to .env and take the # off the lines you change.
# Variables of the environment win over .env, options of the command line win over both.
"""


def spelled(default: object) -> str:
    """A default as one would write it in .env."""
    if default is None:
        return ""
    if isinstance(default, tuple):
        return ",".join(map(str, default))
    if isinstance(default, bool):
        return str(int(default))
    return f"{default:.12g}" if isinstance(default, int | float) else str(default)


def settings_rows() -> Iterator[tuple[str, str, str, tuple[str, ...]]]:
    """Name, default, sentence and other names of every setting."""
    for field, info in Settings.model_fields.items():
        name, *others = variables(field)
        assert info.description, f"{field} has no description"
        yield name, spelled(info.default), info.description, tuple(others)


def env_example() -> str:
    """The whole of .env.example."""
    parts = [ENV_HEAD]
    for name, default, sentence, others in settings_rows():
        also = f"# Also read as {', '.join(others)}.\n" if others else ""
        parts.append(f"# {sentence}\n{also}#{name}={default}\n")
    return "\n".join(parts)


def settings_table() -> str:
    """The settings of the README, between its two marks."""
    rows = [
        f"| `{name}` | {f'`{default}`' if default else ''} | {sentence}"
        f"{' Also read as ' + ', '.join(f'`{other}`' for other in others) + '.' if others else ''} |"
        for name, default, sentence, others in settings_rows()
    ]
    return "\n".join([BEGIN, "", "| variable | default | what it does |", "| --- | --- | --- |", *rows, "", END])


def front_matter() -> dict[str, str]:
    """The Space's configuration at the head of the README."""
    _, head, _ = README.read_text(encoding="utf-8").split("---\n", 2)
    return {key: value.strip().strip('"') for key, _, value in (line.partition(":") for line in head.splitlines())}


def undocumented(source: ast.Module) -> Iterator[str]:
    """Public classes, functions and methods without a docstring. A Protocol's methods are told by its own."""
    kinds = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    for node in source.body:
        if not isinstance(node, kinds) or node.name.startswith("_"):
            continue
        if ast.get_docstring(node) is None:
            yield node.name
        if isinstance(node, ast.ClassDef) and not any(
            isinstance(b, ast.Name) and b.id == "Protocol" for b in node.bases
        ):
            for inner in node.body:
                if isinstance(inner, kinds) and not inner.name.startswith("_") and ast.get_docstring(inner) is None:
                    yield f"{node.name}.{inner.name}"


def test_env_example_lists_exactly_the_settings() -> None:
    assert ENV_EXAMPLE.read_text(encoding="utf-8") == env_example(), "run `make docs`"


def test_env_example_uncommented_is_what_the_defaults_are(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for field in Settings.model_fields:
        for variable in variables(field):
            monkeypatch.delenv(variable, raising=False)
    live = tmp_path / "live.env"
    live.write_text(re.sub(r"^#(?=[A-Z_]+=)", "", env_example(), flags=re.MULTILINE), encoding="utf-8")
    assert Settings(_env_file=live) == Settings(_env_file=None)  # type: ignore[call-arg]


def test_readme_lists_exactly_the_settings() -> None:
    assert settings_table() in README.read_text(encoding="utf-8"), "run `make docs`"


def test_secrets_are_never_plain_text() -> None:
    for field, info in Settings.model_fields.items():
        kinds = {kind for kind in (get_args(info.annotation) or (info.annotation,)) if kind is not NoneType}
        assert (kinds == {SecretStr}) is field.endswith(("token", "secret", "password", "database_url")), field


def test_readme_names_every_command() -> None:
    text = README.read_text(encoding="utf-8")
    for command in app.registered_commands:
        assert command.callback is not None
        name = command.name or command.callback.__name__
        assert re.search(rf"python -m arena {name}\b", text), f"the README does not mention `{name}`"


def test_readme_front_matter_runs_as_a_space() -> None:
    from importlib.metadata import version

    head = front_matter()
    assert (head["sdk"], head["sdk_version"]) == ("gradio", version("gradio"))
    assert f"gradio>={head['sdk_version'].rsplit('.', 1)[0]}" in (ROOT / "requirements.txt").read_text(encoding="utf-8")
    assert (ROOT / head["app_file"]).is_file()
    assert (head["python_version"], head["license"]) == ("3.11", "apache-2.0")
    assert {"title", "emoji", "colorFrom", "colorTo", "short_description"} <= head.keys()
    assert len(head["short_description"]) <= 60


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
        if not re.match(r"https?:|#", target):
            assert (path.parent / target.partition("#")[0]).exists(), f"{path.name} links to {target}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_python_samples_are_python(path: Path) -> None:
    for sample in re.findall(r"```python\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL):
        compile(sample, str(path), "exec")


def test_promises_name_tests_that_exist() -> None:
    section = README.read_text(encoding="utf-8").split("## Promises", 1)[1].split("\n## ", 1)[0]
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", section)
    assert named
    for file, function in named:
        source = (ROOT / file).read_text(encoding="utf-8")
        assert not function or f"def {function}(" in source, f"{file} has no {function}"


def test_changelog_begins_with_unreleased_and_the_version_is_its_newest() -> None:
    headings = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert headings[0] == "Unreleased"
    if released := headings[1:]:
        assert released[0].split()[0].strip("[]") == __version__


def test_decisions_are_numbered_and_complete() -> None:
    assert [path.name[:4] for path in DECISIONS] == [f"{number:04}" for number in range(1, len(DECISIONS) + 1)]
    for path in DECISIONS:
        text = path.read_text(encoding="utf-8")
        parts = ["Situation", "Choice", "Alternatives", "Consequences", "Reconsider"]
        assert re.findall(r"^## (\w+)", text, re.MULTILINE) == parts, path.name


@pytest.mark.parametrize(
    "path", sorted((ROOT / "arena").rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT / "arena"))
)
def test_public_names_have_a_docstring(path: Path) -> None:
    source = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(source), "the module itself has none"
    assert not [*undocumented(source)]


def test_the_check_of_docstrings_itself() -> None:
    source = (
        "class A:\n  'a'\n  def b(self): ...\n  def _c(self): ...\n"
        "def d(): ...\nclass E(Protocol):\n  'e'\n  def f(self): ...\n"
    )
    assert [*undocumented(ast.parse(source))] == ["A.b", "d"]


@pytest.mark.parametrize("program", ["arena_app.py", "-m arena"])
def test_help_of_every_command_is_there_and_names_the_program(program: str) -> None:
    environment = {**os.environ, "COLUMNS": "100", "NO_COLOR": "1"}
    answer = subprocess.run(
        [sys.executable, *program.split(), "--help"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    assert f"python {program} [OPTIONS] COMMAND" in answer.stdout
    for command in app.registered_commands:
        assert command.callback is not None
        assert command.callback.__name__ in answer.stdout


@pytest.mark.parametrize("program", ["arena_app.py", "-m arena"])
def test_a_python_without_the_packages_is_told_where_they_are(program: str) -> None:
    command = [sys.executable, "-S", *program.split(), "models"]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert answer.returncode == 1
    assert answer.stderr.startswith("error: this Python has no ")
    assert "`make run`" in answer.stderr
    assert answer.stderr.count("\n") == 1


def rewrite() -> None:
    """Write .env.example and the README's table anew."""
    ENV_EXAMPLE.write_text(env_example(), encoding="utf-8")
    before, _, rest = README.read_text(encoding="utf-8").partition(BEGIN)
    README.write_text(before + settings_table() + rest.partition(END)[2], encoding="utf-8")


if __name__ == "__main__":
    rewrite()
