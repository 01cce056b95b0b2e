"""The shape of the house, checked on its source: who may import whom, one library per border, small parts, the bans.

To add a module, give it a line in FLOORS; to add a library, give it a home in LIBRARIES.
"""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted((ROOT / "arena").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))

CORE = {"errors", "names", "types", "settings"}
FEATURES = {"battle", "compare", "kept", "leaderboard", "share"}
# The first word after `arena.` of every module, and what it may import. Arrows point down only.
FLOORS: dict[str, set[str]] = {
    "errors": set(),
    "names": {"errors"},
    "types": set(),
    "settings": {"errors"},
    "endings": set(),
    "exchange": set(),
    "log": {"settings", "errors"},
    "wire": {"errors"},
    "keys": {"names", "errors"},
    "streaming": {"endings", "types", "errors"},
    "upstream": {"wire", "streaming", "types", "errors"},
    "ollama": {"upstream", "wire", "streaming", "types", "errors"},
    "openai": {"upstream", "wire", "streaming", "types", "errors"},
    "anthropic": {"errors"},
    "fleet": {"ollama", "openai", "wire", *CORE},
    "proxy": {
        "anthropic",
        "exchange",
        "fleet",
        "keys",
        "log",
        "ollama",
        "openai",
        "upstream",
        "wire",
        *CORE,
    },
    "style": {"types"},
    "ratings": {"types"},
    "store": CORE,
    "compare": {"fleet", "streaming", "upstream", "log", "names", "types", "errors"},
    "battle": {"compare", "fleet", "keys", "names", "ratings", "store", "streaming", "style", "types", "errors"},
    "kept": {"exchange", "store", "types", "errors"},
    "catalog": {"fleet", "log", *CORE},
    "leaderboard": {"ratings", "store", "style", *CORE},
    "share": {"battle", "leaderboard", "ratings", "store", "types"},
    "engine": {"anthropic", "endings", "wire", *CORE},
    "arena": {"catalog", "endings", "engine", "fleet", "keys", "store", *FEATURES - {"share"}, *CORE},
    "guard": {"exchange", "keys", "log", *CORE},
    "server": {"exchange", "keys", "log", "wire", *CORE},
    "api": {"arena", "endings", "exchange", "fleet", "keys", "proxy", "ratings", "streaming", *FEATURES, *CORE},
    "ui": {"arena", "exchange", "fleet", "keys", "ratings", "streaming", *FEATURES, *CORE},
    "app": {"guard", "api", "ui", "arena", "exchange", "proxy", *CORE},
    "cli": {
        "app",
        "server",
        "engine",
        "guard",
        "arena",
        "fleet",
        "keys",
        "leaderboard",
        "log",
        "store",
        "streaming",
        *CORE,
    },
    "__main__": {"cli"},
}

# Where a third-party library may be imported: a module, or a package and all in it. msgspec is everybody's.
LIBRARIES: dict[str, set[str]] = {
    "aiodns": {"wire"},
    "alembic": {"store"},
    "dotenv": {"settings"},
    "evalica": {"ratings"},
    "fastapi": {"api", "app", "ui"},
    "filelock": {"keys"},
    "gguf": {"engine"},
    "gradio": {"ui"},
    "httptools": {"wire", "server"},
    "markdown_it": {"share", "ui"},
    "msgspec": set(FLOORS),
    "numpy": {"ratings"},
    "prometheus_client": {"api"},
    "pydantic": {"settings", "fleet.config", "fleet.schema"},
    "pydantic_core": {"fleet.config"},
    "pydantic_settings": {"settings"},
    "psycopg": {"store"},
    "requests": {"cli"},
    "rich": {"cli"},
    "sqlalchemy": {"store"},
    "starlette": {"api", "engine"},
    "structlog": {"log"},
    "typer": {"cli"},
    "uvicorn": {"server", "engine"},
    "uvloop": {"engine"},
    "xllamacpp": {"engine.runner"},
    "yaml": {"fleet.document"},
}

MODULE_LINES = 500
BODY_LINES = 50
VAGUE_NAMES = {"common", "helper", "helpers", "manager", "misc", "util", "utils"}
BANNED_MODULES = {"pickle", "marshal", "shelve", "dill"}
BANNED_NAMES = {"BaseHTTPMiddleware"}
BANNED_CALLS = {"asyncio.gather", "eval", "exec", "os.system", "time.sleep"}
SECRET = re.compile(r"(^|_)(token|secret|password|credential)$")
# The only addresses in the source that are not this machine, and where: the engine fetches models when told to, and a
# Hugging Face Space is shown in a frame of theirs.
OUTSIDE = {
    "huggingface.co": {"engine", "guard"},
    "*.hf.space": {"guard"},
    "pypi.org": {"engine"},
    "files.pythonhosted.org": {"engine"},
}
EXAMPLE_HOSTS = {"127.0.0.1", "localhost", "host", "h", "a", "b", "gpu1", "gpu2", "www.w3.org", "..."}


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


@cache
def nodes(path: Path) -> tuple[ast.AST, ...]:
    return tuple(ast.walk(tree(path)))


def module(path: Path) -> str:
    """The dotted name below `arena`: "engine.runner"; the package itself is ""."""
    parts = path.relative_to(ROOT / "arena").with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> Iterator[str]:
    """Every dotted name that `path` imports, wherever in the file."""
    for node in nodes(path):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            assert node.module is not None
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def dotted(node: ast.AST) -> str:
    """`a.b.c` of an expression that is only names and dots, else an empty string."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{base}.{node.attr}" if (base := dotted(node.value)) else ""
    return ""


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in nodes(path) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of the body; what it returns at last counts as one, since a table is not a procedure."""
    first, last = function.body[0], function.body[-1]
    end = last.lineno if isinstance(last, ast.Return) else last.end_lineno or last.lineno
    return end - first.lineno + 1


def calls(path: Path) -> Iterator[ast.Call]:
    return (node for node in nodes(path) if isinstance(node, ast.Call))


def floors_of(path: Path) -> tuple[str, set[str]]:
    """The floor `path` is on, and the other floors it imports."""
    floor = module(path).partition(".")[0]
    inside = (name.split(".")[1] for name in imports(path) if name.startswith("arena."))
    return floor, {word for word in inside if word in FLOORS and word != floor}


def wrong_secret_comparisons(source: ast.AST) -> list[int]:
    """Lines that compare a secret by ==, != or in, which takes longer the more of it is right."""
    return [
        node.lineno
        for node in ast.walk(source)
        if isinstance(node, ast.Compare)
        and any(isinstance(operator, ast.Eq | ast.NotEq | ast.In | ast.NotIn) for operator in node.ops)
        and any(SECRET.search(dotted(side).rpartition(".")[2]) for side in [node.left, *node.comparators])
    ]


def naps(path: Path) -> list[int]:
    """Lines that wait for a length of time instead of for an event; sleep(0) only lets others run."""
    return [
        call.lineno
        for call in calls(path)
        if dotted(call.func) == "time.sleep"
        or dotted(call.func).endswith(".wait_for_timeout")
        or (
            dotted(call.func) in ("asyncio.sleep", "anyio.sleep")
            and not (isinstance(call.args[0], ast.Constant) and call.args[0].value == 0)
        )
    ]


@pytest.mark.parametrize("path", SOURCES, ids=module)
def test_imports_point_downwards(path: Path) -> None:
    floor, used = floors_of(path)
    if floor == "":
        assert not used, "arena/__init__.py imports nothing of the arena"
        return
    assert floor in FLOORS, f"{floor} has no line in FLOORS"
    assert used <= FLOORS[floor], f"{floor} must not import {sorted(used - FLOORS[floor])}"


def test_floors_have_no_circle() -> None:
    placed: set[str] = set()
    while len(placed) < len(FLOORS):
        ready = {floor for floor, below in FLOORS.items() if floor not in placed and below <= placed}
        assert ready, f"a circle among {sorted(set(FLOORS) - placed)}"
        placed |= ready


@pytest.mark.parametrize("path", SOURCES, ids=module)
def test_libraries_stay_at_their_border(path: Path) -> None:
    for name in imports(path):
        library = name.partition(".")[0]
        if library in sys.stdlib_module_names or library == "arena":
            continue
        homes = LIBRARIES.get(library)
        assert homes is not None, f"{library} has no home in LIBRARIES"
        here = module(path)
        assert any(here == home or here.startswith(f"{home}.") for home in homes), f"{library} is not for {here}"


def test_both_tables_allow_no_more_than_is_used() -> None:
    used: set[tuple[str, str]] = set()
    homes: set[tuple[str, str]] = set()
    for path in SOURCES:
        floor, below = floors_of(path)
        used |= {(floor, word) for word in below}
        here = module(path)
        homes |= {(name.partition(".")[0], home) for name in imports(path) for home in (here, floor)}
    allowed = {(floor, word) for floor, below in FLOORS.items() for word in below - CORE}
    assert sorted(allowed - used) == []
    wanted = {(name, home) for name, found in LIBRARIES.items() if name != "msgspec" for home in found}
    assert sorted(wanted - homes) == []


@pytest.mark.parametrize("path", [*SOURCES, ROOT / "arena_app.py"], ids=lambda path: path.stem)
def test_source_is_small_and_breaks_no_ban(path: Path) -> None:
    assert path.stem not in VAGUE_NAMES
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MODULE_LINES
    for function in functions(path):
        assert body_lines(function) <= BODY_LINES, f"{function.name} has {body_lines(function)} lines"
    assert not {name.partition(".")[0] for name in imports(path)} & BANNED_MODULES
    assert not {name.rpartition(".")[2] for name in imports(path)} & BANNED_NAMES
    assert not {dotted(call.func) for call in calls(path)} & BANNED_CALLS
    assert not [node.lineno for node in nodes(path) if isinstance(node, ast.Global)], "module-level state"
    assert not wrong_secret_comparisons(tree(path)), "compare secrets with hmac.compare_digest"


@pytest.mark.parametrize("path", SOURCES, ids=module)
def test_modules_hold_no_mutable_state(path: Path) -> None:
    for node in tree(path).body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(
            node.value, ast.List | ast.Dict | ast.Set | ast.ListComp | ast.DictComp | ast.SetComp
        ):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for name in map(dotted, targets):
                assert name.strip("_").isupper() or name == "__all__", f"{name} (line {node.lineno}) can change"


@pytest.mark.parametrize("path", sorted((ROOT / "arena" / "guard").rglob("*.py")), ids=module)
def test_guard_reads_the_raw_path_and_never_a_parsed_url(path: Path) -> None:
    assert not {dotted(node) for node in nodes(path)} & {"request.url", "self.request.url"}


@pytest.mark.parametrize("path", TESTS, ids=lambda path: str(path.relative_to(ROOT / "tests")))
def test_tests_wait_for_events_and_never_for_time(path: Path) -> None:
    assert not naps(path)


def test_source_names_no_outside_address() -> None:
    texts = [path for path in (ROOT / "arena").rglob("*") if path.suffix in (".py", ".css", ".js", ".html", ".svg")]
    assert texts
    for path in texts:
        for found in re.findall(r"(?:https?|wss?)://[^\s\"'`<>)\\,{}]+", path.read_text(encoding="utf-8")):
            host = urlsplit(found).hostname or ""
            here = path.relative_to(ROOT / "arena").parts[0]
            assert host in EXAMPLE_HOSTS or here in OUTSIDE.get(host, ()), f"{path.relative_to(ROOT)} names {found}"


IMPORT_AND_WATCH = """
import importlib, json, sys, threading
events = []
def watch(name, arguments):
    wrote = name == "open" and isinstance(arguments[1], str) and set("wax+") & set(arguments[1])
    if wrote or name.split(".")[0] == "socket" and name != "socket.__new__" or name in ("subprocess.Popen", "os.mkdir"):
        events.append([name, repr(arguments)])
sys.dont_write_bytecode = True
for name in sys.argv[2:]:
    importlib.import_module(name)      # libraries may do what they like before we watch ...
ours = [name for name in sys.modules if name.partition(".")[0] == "arena"]
for name in ours:
    del sys.modules[name]
sys.addaudithook(watch)                # ... our own modules may not
for name in sys.argv[2:]:
    importlib.import_module(name)
print(json.dumps([events, threading.active_count(), sorted({name.partition(".")[0] for name in sys.modules})]))
"""


def imported(*names: str) -> tuple[list[list[str]], int, set[str]]:
    """What happens when `names` are imported in a fresh interpreter: events, threads, top-level modules in memory."""
    command = [sys.executable, "-c", IMPORT_AND_WATCH, "--", *names]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    events, threads, modules = json.loads(answer.stdout)
    return events, threads, set(modules)


def test_core_and_command_line_import_no_heavy_library() -> None:
    light = ["errors", "names", "types", "settings", "streaming", "compare", "catalog", "cli", "cli.remote"]
    events, threads, modules = imported("arena_app", *(f"arena.{name}" for name in light))
    assert not modules & {"gradio", "fastapi", "uvicorn", "xllamacpp", "huggingface_hub", "gguf", "numpy"}
    assert (events, threads) == ([], 1)


def test_imports_do_no_work() -> None:
    names = [f"arena.{module(path)}" for path in SOURCES if not module(path).startswith("ui") and module(path)]
    events, threads, modules = imported(*names)
    assert (events, threads) == ([], 1)
    assert not modules & {"gradio", "evalica", "scipy"}


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("token == given", True),
        ("self.token != b''", True),
        ("given in settings.web_token", True),
        ("token is None", False),
        ("tokens == 3", False),
        ("hmac.compare_digest(token, given)", False),
    ],
)
def test_the_check_of_secret_comparisons_itself(line: str, wrong: bool) -> None:
    assert bool(wrong_secret_comparisons(ast.parse(line))) is wrong


def test_the_check_of_sleeps_itself(tmp_path: Path) -> None:
    source = tmp_path / "naps.py"
    source.write_text(
        "import asyncio, time\nasyncio.sleep(0)\nasyncio.sleep(0.1)\ntime.sleep(1)\npage.wait_for_timeout(5)\n"
    )
    assert naps(source) == [3, 4, 5]
