"""Named keys: what they allow, their limits, their counters, and the two files."""

from __future__ import annotations

import json
import logging
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

from arena.errors import ArenaError, BadRequest, Conflict, Forbidden, NotFound, SettingsError, TooManyRequests
from arena.keys import Key, Keys, add, check_model, file, read, read_use, remove
from arena.keys.window import Window

MIDNIGHT = 20_000 * 86_400.0


class House:
    """The keys of a server whose clock and timer are moved by hand."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "keys.json"
        self.now = MIDNIGHT + 3600
        self.due: list[Callable[[], None]] = []
        self.keys = self.opened()

    def opened(self) -> Keys:
        return Keys(self.path, lambda: self.now, lambda _delay_s, call: self.due.append(call))

    def key(self, name: str = "alice", **limits: object) -> Key:
        """A new key, as the running server finds it."""
        secret = add(self.path, name, **{"scopes": ("chat",), **limits})  # type: ignore[arg-type]
        self.now += 1
        found = self.keys.find(secret.encode())
        assert found is not None
        return found

    def ring(self) -> None:
        """What was put off is done now."""
        calls, self.due = self.due, []
        for call in calls:
            call()


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


# The file


def test_a_key_is_found_by_itself_and_kept_as_a_digest_only(house: House) -> None:
    secret = add(house.path, "alice", scopes=("chat",))
    house.now += 1
    found = house.keys.find(secret.encode())
    assert found is not None
    assert (found.name, found.scopes) == ("alice", ("chat",))
    assert secret not in house.path.read_text()
    assert secret.startswith("arena-")
    assert len(secret) >= 43
    for wrong in (b"", b"alice", secret[:-1].encode(), f"{secret}x".encode(), found.digest.encode(), b"\xff"):
        assert house.keys.find(wrong) is None


def test_the_file_is_for_its_owner_alone(house: House) -> None:
    add(house.path, "alice", scopes=("chat",))
    assert stat.S_IMODE(house.path.stat().st_mode) == 0o600
    house.path.chmod(0o644)
    add(house.path, "bob", scopes=("chat",))
    assert stat.S_IMODE(house.path.stat().st_mode) == 0o600
    assert [path.name for path in house.path.parent.iterdir() if path.suffix == ".tmp"] == []


def test_the_folder_is_made_when_it_is_missing(tmp_path: Path) -> None:
    add(tmp_path / "new" / "data" / "keys.json", "alice", scopes=("chat",))
    assert [key.name for key in read(tmp_path / "new" / "data" / "keys.json")] == ["alice"]


def test_a_running_server_learns_of_new_and_removed_keys_within_a_second(house: House) -> None:
    first = add(house.path, "alice", scopes=("chat",))
    assert house.keys.find(first.encode()) is None  # it has looked less than a second ago
    house.now += 1
    assert house.keys.find(first.encode())
    remove(house.path, "alice")
    house.now += 1
    assert house.keys.find(first.encode()) is None
    assert house.keys.named("alice") is None
    assert house.keys.all() == ()


def test_a_server_that_has_had_a_key_stays_closed(house: House) -> None:
    assert not house.keys.required
    house.key()
    assert house.keys.required
    house.path.unlink()
    house.now += 1
    assert house.keys.all() == ()
    assert house.keys.required


def test_a_file_that_turns_bad_keeps_the_keys_and_is_told_once(house: House, caplog: pytest.LogCaptureFixture) -> None:
    key = house.key()
    house.path.write_text("{")
    for _ in range(3):
        house.now += 1
        assert house.keys.all() == (key,)
    assert [r.levelno for r in caplog.records if "stay as they were" in r.message] == [logging.ERROR]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "damaged"),
        ("[]", "damaged"),
        ('{"version": 2, "keys": []}', "damaged"),
        ('{"version": 1, "keys": [], "more": 1}', "damaged"),
        ('{"version": 1, "keys": [{"name": "a b", "digest": "' + "0" * 64 + '", "scopes": []}]}', "damaged"),
        ('{"version": 1, "keys": [{"name": "a", "digest": "0", "scopes": []}]}', "damaged"),
        ('{"version": 1, "keys": [{"name": "a", "digest": "' + "0" * 64 + '", "scopes": ["root"]}]}', "damaged"),
        (" " * (file.FILE_BYTES + 1), "larger"),
    ],
)
def test_a_bad_file_stops_the_start(house: House, text: str, reason: str) -> None:
    house.path.write_text(text)
    with pytest.raises(SettingsError, match=reason) as error:
        house.opened()
    assert str(house.path) in error.value.message


def test_two_keys_of_one_name_are_refused(house: House) -> None:
    entries = [{"name": "a", "digest": f"{n:064}", "scopes": ["chat"]} for n in range(2)]
    house.path.write_text(json.dumps({"version": 1, "keys": entries}))
    with pytest.raises(SettingsError, match="same name"):
        house.opened()


def test_a_folder_in_place_of_the_file_is_told(house: House) -> None:
    house.path.mkdir()
    with pytest.raises(SettingsError, match="cannot be read"):
        house.opened()
    with pytest.raises(SettingsError, match="cannot be read"):
        add(house.path, "alice", scopes=("chat",))


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ArenaError, match="cannot be written"):
        add(tmp_path / "file" / "keys.json", "alice", scopes=("chat",))


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("", {}),
        ("a b", {}),
        ("-a", {}),
        ("a" * 65, {}),
        ("a\n", {}),
        ("a", {"per_minute": 0}),
        ("a", {"models": ("\x1b[1m",)}),
        ("a", {"scopes": ("root",)}),
    ],
)
def test_a_key_that_makes_no_sense_is_refused(house: House, name: str, more: dict[str, object]) -> None:
    with pytest.raises(BadRequest, match="cannot be made"):
        add(house.path, name, **{"scopes": ("chat",), **more})  # type: ignore[arg-type]
    assert not house.path.exists()


def test_a_name_is_taken_once_and_free_after_removal(house: House) -> None:
    add(house.path, "alice", scopes=("chat",))
    with pytest.raises(Conflict, match="already"):
        add(house.path, "alice", scopes=("chat",))
    remove(house.path, "alice")
    with pytest.raises(NotFound, match="alice"):
        remove(house.path, "alice")
    add(house.path, "alice", scopes=("chat",))


def test_commands_at_the_same_time_lose_nothing(house: House) -> None:
    threads = [
        threading.Thread(target=add, args=(house.path, f"key{n}"), kwargs={"scopes": ("chat",)}) for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert {key.name for key in read(house.path)} == {f"key{n}" for n in range(8)}


def test_a_command_that_waits_too_long_for_another_gives_up(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file, "LOCK_S", 0.0)
    with FileLock(house.path.with_name(".keys.json.lock")), pytest.raises(Conflict, match="another command"):
        add(house.path, "alice", scopes=("chat",))


# What a key may do


@pytest.mark.parametrize(
    ("scopes", "asked", "allowed"),
    [
        (("chat",), "chat", True),
        (("chat",), "embed", False),
        (("chat", "embed"), "embed", True),
        (("embed",), None, True),
        (("manage",), "chat", False),
        (("admin",), "manage", True),
        (("admin",), "chat", True),
        (("chat", "embed", "manage"), "admin", False),
        ((), None, True),
    ],
)
def test_scopes(house: House, scopes: tuple[str, ...], asked: str | None, allowed: bool) -> None:
    key = house.key(scopes=scopes)
    if allowed:
        house.keys.admit(key, asked)  # type: ignore[arg-type]
        assert house.keys.use(key).requests == 1
        return
    with pytest.raises(Forbidden, match=f"needs {asked}") as error:
        house.keys.admit(key, asked)  # type: ignore[arg-type]
    assert "Ask the operator" in error.value.message
    assert (house.keys.use(key).requests, house.keys.use(key).refused) == (0, 1)


@pytest.mark.parametrize(
    ("globs", "model", "allowed"),
    [
        (None, "anything", True),
        ((), "anything", False),
        (("llama*",), "llama3.2:3b", True),
        (("llama*",), "LLaMA3.2", True),
        (("LLAMA*",), "llama3.2", True),
        (("llama3.2",), "llama3.2:latest", True),
        (("llama3.2:latest",), "llama3.2", True),
        (("llama3.2",), "llama3.2:3b", False),
        (("llama?",), "llama3", True),
        (("*:1b", "qwen*"), "qwen3:4b", True),
        (("*:1b",), "qwen3:4b", False),
        (("hf.co/*",), "hf.co/me/it:Q4", True),
        (("me/*",), "hf.co/me/it", False),
        (("llama*",), None, True),
    ],
)
def test_models(globs: tuple[str, ...] | None, model: str | None, allowed: bool) -> None:
    if allowed:
        check_model(globs, model)
    else:
        with pytest.raises(Forbidden, match="may not use that model; it may use"):
            check_model(globs, model)


def test_a_model_outside_the_list_is_refused_and_not_counted(house: House) -> None:
    key = house.key(models=("llama*",), per_minute=1)
    with pytest.raises(Forbidden):
        house.keys.admit(key, "chat", "qwen3")
    house.keys.admit(key, "chat", "llama3")


# Limits


def test_requests_of_a_minute(house: House) -> None:
    key = house.key(per_minute=3)
    for _ in range(3):
        house.keys.admit(key, "chat")
        house.now += 10
    with pytest.raises(TooManyRequests, match=r"3 requests a minute; wait 30 seconds") as error:
        house.keys.admit(key, "chat")
    assert error.value.retry_after_s == pytest.approx(30)
    house.now += 30
    house.keys.admit(key, "chat")
    with pytest.raises(TooManyRequests):
        house.keys.admit(key, "chat")


def test_tokens_of_a_minute_are_counted_when_they_have_been_spent(house: House) -> None:
    key = house.key(tokens_per_minute=100)
    house.keys.admit(key, "chat")
    house.keys.spent("alice", "llama3", "gpu1", 60)
    house.now += 20
    house.keys.admit(key, "chat")
    house.keys.spent("alice", "llama3", "gpu1", 60)
    with pytest.raises(TooManyRequests, match="100 tokens of this minute; wait 40 seconds"):
        house.keys.admit(key, "chat")
    house.now += 40
    house.keys.admit(key, "chat")


def test_tokens_of_a_day_come_back_at_midnight(house: House) -> None:
    key = house.key(tokens_per_day=100)
    house.keys.spent("alice", "llama3", "gpu1", 99)
    house.keys.admit(key, "chat")
    house.keys.spent("alice", "llama3", "gpu1", 1)
    with pytest.raises(TooManyRequests, match="100 tokens of today") as error:
        house.keys.admit(key, "chat")
    assert error.value.retry_after_s == MIDNIGHT + 86_400 - house.now
    house.now += error.value.retry_after_s
    house.keys.admit(key, "chat")
    house.keys.spent("alice", "llama3", "gpu1", 7)
    assert (house.keys.use(key).day_tokens, house.keys.use(key).tokens) == (7, 107)


def test_answers_at_a_time(house: House) -> None:
    key, other = house.key(concurrent=2), house.key("bob")
    house.keys.begin(key)
    house.keys.begin(key)
    with pytest.raises(TooManyRequests, match="2 answers under way") as error:
        house.keys.begin(key)
    assert error.value.retry_after_s == 5
    for _ in range(9):
        house.keys.begin(other)
    house.keys.end(key)
    house.keys.begin(key)
    assert (house.keys.in_flight(key), house.keys.in_flight(other)) == (2, 9)


def test_more_ends_than_begins_give_nothing_away(house: House) -> None:
    key = house.key(concurrent=1)
    house.keys.end(key)
    house.keys.begin(key)
    house.keys.end(key)
    house.keys.end(key)
    house.keys.begin(key)
    with pytest.raises(TooManyRequests):
        house.keys.begin(key)


def test_answers_under_way_survive_a_change_of_the_file(house: House) -> None:
    key = house.key(concurrent=1)
    house.keys.begin(key)
    other = house.key("bob")
    with pytest.raises(TooManyRequests):
        house.keys.begin(key)
    remove(house.path, "alice")
    house.now += 1
    assert house.keys.all() == (other,)
    house.keys.end(key)
    assert house.keys.in_flight(key) == 0


def test_a_clock_that_is_set_back_locks_nobody_out(house: House) -> None:
    key = house.key(per_minute=1)
    house.keys.admit(key, "chat")
    house.now -= 7200
    house.keys.admit(key, "chat")


def test_the_memory_of_a_window_is_bounded() -> None:
    window = Window()
    for step in range(10_000):
        window.add(1, step / 10)
    assert len(window._cells) <= 61
    assert 590 <= window.total(1000.0) <= 610
    assert window.wait_s(1000, 1000.0) == 0
    assert 0 < window.wait_s(10, 1000.0) <= 60


# Counters


def test_use_is_counted_by_model(house: House) -> None:
    key = house.key()
    house.keys.admit(key, "chat")
    house.keys.spent("alice", "llama3", "gpu1", 10)
    house.keys.spent("alice", "llama3", "gpu1", 5)
    house.keys.spent("alice", "qwen3", "gpu1", 1)
    house.keys.spent("nobody", "qwen3", "gpu1", 1)
    use = house.keys.use(key)
    assert (use.requests, use.tokens, use.last_s) == (1, 16, house.now)
    assert {name: (of.answers, of.tokens) for name, of in use.models.items()} == {"llama3": (2, 15), "qwen3": (1, 1)}


def test_use_by_model_is_bounded(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("arena.keys.live.MAX_MODELS", 2)
    key = house.key()
    for number in range(9):
        house.keys.spent("alice", f"model{number}", "gpu1", 1)
    assert {name: of.tokens for name, of in house.keys.use(key).models.items()} == {
        "model0": 1,
        "model1": 1,
        "(other models)": 7,
    }


def test_counters_are_written_once_however_many_changes(house: House) -> None:
    key = house.key(tokens_per_day=50)
    for _ in range(5):
        house.keys.admit(key, "chat")
        house.keys.spent("alice", "llama3", "gpu1", 10)
    assert len(house.due) == 1
    assert read_use(house.path) == {}
    house.ring()
    assert read_use(house.path) == {key.digest: house.keys.use(key)}
    again = house.opened()
    with pytest.raises(TooManyRequests):
        again.admit(key, "chat")
    assert again.use(key).tokens == 50
    file.usage_path(house.path).unlink()
    house.keys.flush()  # nothing has changed since: nothing to write
    assert read_use(house.path) == {}


def test_a_removed_key_leaves_no_counters_behind(house: House) -> None:
    old = house.key()
    house.keys.admit(old, "chat")
    remove(house.path, "alice")
    new = house.key()
    assert house.keys.use(new).requests == house.keys.use(old).requests == 0
    house.keys.admit(new, "chat")
    house.keys.flush()
    assert list(read_use(house.path)) == [new.digest]


@pytest.mark.parametrize("text", ["{", "[]", '{"x": {"requests": "many"}}'])
def test_damaged_counters_begin_anew(house: House, text: str, caplog: pytest.LogCaptureFixture) -> None:
    file.usage_path(house.path).write_text(text)
    key = house.key()
    keys = house.opened()
    assert keys.use(key).requests == 0
    assert "begins anew" in caplog.text


def test_a_full_disk_ends_no_answer(
    house: House, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    key = house.key()
    house.keys.admit(key, "chat")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("arena.keys.live.replace", full)
        house.ring()
    assert "No space left" in caplog.text
    house.keys.admit(key, "chat")
    house.ring()
    assert read_use(house.path)[key.digest].requests == 2


@pytest.mark.anyio
async def test_on_a_loop_the_counters_are_written_by_its_timer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import asyncio

    house = House(tmp_path)
    key = house.key()
    monkeypatch.setattr("arena.keys.live.FLUSH_S", 0.0)
    keys = Keys(house.path)
    keys.admit(key, "chat")
    for _ in range(3):
        await asyncio.sleep(0)
    assert read_use(house.path)[key.digest].requests == 1
