"""How much a caller gets: bodies, requests a minute, and who counts as one caller."""

from __future__ import annotations

import asyncio
from typing import Any

import anyio
import pytest

from arena.errors import SettingsError
from arena.guard import rate as rate_module
from arena.guard.asgi import Receive, Scope, Send
from tests.guarded import BEARER, PAGE, TOKEN, Answer, House, session_of

# limits


@pytest.mark.anyio
async def test_declared_body_over_the_limit_is_refused_unread(locked: House) -> None:
    for path, limit in (
        ("/api/chat", 1024 * 1024),
        ("/gradio_api/queue/join", 1024 * 1024),
        ("/olla/ollama/api/chat", 32 * 1024 * 1024),
        ("/v1/chat/completions", 32 * 1024 * 1024),
        ("/gradio_api/upload", 20 * 1024 * 1024 + 64 * 1024),
    ):
        over = await locked.ask("POST", path, {**BEARER, "Content-Length": str(limit + 1)})
        assert (over.status, over.error[1]) == (413, "payload_too_large"), path
        assert not locked.inside.seen
        assert (await locked.ask("POST", path, {**BEARER, "Content-Length": str(limit)})).status == 200, path
        locked.inside.seen.clear()
    without_token = await locked.ask("POST", "/api/chat", {"Content-Length": str(2**40)})
    assert without_token.status == 401


@pytest.mark.anyio
async def test_the_limit_of_the_proxy_can_be_set() -> None:
    house = House(max_proxy_body_bytes=2048)
    for path in ("/olla/ollama/api/chat", "/v1/chat/completions"):
        assert (await house.ask("POST", path, {"Content-Length": "2049"})).status == 413
        assert (await house.ask("POST", path, {"Content-Length": "2048"})).status == 200


@pytest.mark.anyio
@pytest.mark.parametrize("prefix", ["/olla/ollama", "/olla/proxy", "/olla/ollama/"])
async def test_only_a_file_that_is_posted_may_be_of_any_size(prefix: str) -> None:
    house, blob = House(max_proxy_body_bytes=2048), f"{prefix}/api/blobs/sha256:{'0' * 64}"
    assert (await house.ask("POST", blob, {"Content-Length": "2049"})).status == 200
    for method in ("HEAD", "PUT", "DELETE"):
        assert (await house.ask(method, blob, {"Content-Length": "2049"})).status == 413


@pytest.mark.anyio
async def test_chunked_body_is_counted_while_it_is_read(locked: House) -> None:
    house = House(token=TOKEN, max_body_bytes=1024)
    chunked = {**BEARER, "Transfer-Encoding": "Chunked"}
    assert (await house.ask("POST", "/api/chat", chunked, body=[b"x" * 512, b"x" * 512])).status == 200
    assert house.inside.received == b"x" * 1024
    house.inside.received = b""
    over = await house.ask("POST", "/api/chat", chunked, body=[b"x" * 512, b"x" * 513, b"never read"])
    assert (over.status, over.error[1]) == (413, "payload_too_large")
    assert house.inside.hung_up
    assert house.inside.received == b"x" * 512


@pytest.mark.anyio
async def test_an_answer_under_way_is_cut_by_a_body_over_the_limit() -> None:
    house = House(max_body_bytes=1024)
    house.inside.answers_first = True
    over = await house.ask("POST", "/api/chat", {"Transfer-Encoding": "chunked"}, body=[b"x" * 1025])
    assert (over.status, over.body) == (200, b"")
    assert house.inside.hung_up


@pytest.mark.anyio
async def test_an_application_that_reads_on_hears_the_same_again() -> None:
    heard: list[str] = []

    async def stubborn(scope: Scope, receive: Receive, send: Send) -> None:
        for _ in range(3):
            heard.append((await receive())["type"])

    house = House(max_body_bytes=1024)
    house.guard.app = stubborn
    over = await house.ask("POST", "/api/chat", {"Transfer-Encoding": "chunked"}, body=[b"x" * 1025])
    assert over.status == 413
    assert heard == ["http.disconnect"] * 3


@pytest.mark.anyio
async def test_a_flood_is_slowed_down_on_a_public_address() -> None:
    house = House(host="0.0.0.0", allow_open=True)
    statuses = [(await house.ask()).status for _ in range(150)]
    assert statuses == [200] * 30 + [429] * 120
    refused = await house.ask()
    assert refused.error[1] == "too_many_requests"
    assert "ARENA_REQUESTS_PER_MINUTE" in refused.error[0]
    names = ("retry-after", "ratelimit-limit", "ratelimit-remaining", "ratelimit-reset")
    assert [refused.header(name) for name in names] == ["1", "120", "0", "1"]
    assert (await house.ask(path="/api/health")).status == 200
    assert (await house.ask(path="/assets/index.js")).status == 200
    assert (await house.ask(peer="192.0.2.9")).status == 200
    house.clock.now += 2
    assert [(await house.ask()).status for _ in range(5)] == [200] * 4 + [429]
    house.clock.now += 60
    assert [(await house.ask()).status for _ in range(31)] == [200] * 30 + [429]


@pytest.mark.anyio
async def test_the_page_may_ask_more_often() -> None:
    house = House(host="0.0.0.0", allow_open=True)
    path = "/gradio_api/run/predict"
    assert [(await house.ask("POST", path)).status for _ in range(151)] == [200] * 150 + [429]
    assert (await house.ask()).status == 200


@pytest.mark.anyio
@pytest.mark.parametrize(("settings", "statuses"), [
    ({"requests_per_minute": 60, "request_burst": 2}, [200, 200, 429]),
    ({"requests_per_minute": 0, "request_burst": 2}, [200] * 200),
])  # fmt: skip
async def test_the_operator_sets_how_often(settings: dict[str, int], statuses: list[int]) -> None:
    house = House(trusted_proxies=("10.0.0.0/8",), **settings)
    assert [(await house.ask()).status for _ in statuses] == statuses


@pytest.mark.anyio
async def test_who_has_the_token_is_not_slowed_down() -> None:
    house = House(host="0.0.0.0", token=TOKEN)
    signed_in = {"Cookie": session_of(await house.sign_in())}
    for headers in (BEARER, signed_in):
        assert {(await house.ask(headers=headers)).status for _ in range(200)} == {200}
    assert {(await house.ask(path="/signin")).status for _ in range(40)} == {200, 429}


@pytest.mark.anyio
async def test_no_rate_limit_on_loopback(locked: House) -> None:
    assert {(await locked.ask(headers=BEARER)).status for _ in range(200)} == {200}


@pytest.mark.anyio
async def test_memory_for_callers_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_module, "MAX_CALLERS", 3)
    house = House(host="0.0.0.0", allow_open=True)
    for last in range(5):
        await house.ask(peer=f"10.0.0.{last}")
    assert list(house.guard._rate._levels) == ["10.0.0.2", "10.0.0.3", "10.0.0.4"]


class Waiting:
    """An application whose answers end when the test says so."""

    def __init__(self, house: House) -> None:
        house.guard.app = self
        self._house = house
        self.end = asyncio.Event()
        self.tasks: list[asyncio.Task[Answer]] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.end.wait()
        await self._house.inside(scope, receive, send)

    async def begin(
        self,
        number: int,
        path: str = "/api/stream_chat",
        peer: str = "192.0.2.1",
        headers: dict[str, str] | None = None,
    ) -> None:
        """Have `number` answers under way, or refused."""
        new = [asyncio.create_task(self._house.ask("POST", path, headers or {}, peer=peer)) for _ in range(number)]
        self.tasks += new
        await anyio.wait_all_tasks_blocked()

    def refused(self) -> list[tuple[int, str]]:
        """The answers that did not wait, in order."""
        ended = [task.result() for task in self.tasks if task.done()]
        return [(answer.status, answer.error[1]) for answer in ended]


@pytest.mark.anyio
async def test_a_caller_has_eight_answers_at_a_time_on_a_public_address() -> None:
    house = House(host="0.0.0.0", allow_open=True)
    waiting = Waiting(house)
    await waiting.begin(7)
    await waiting.begin(1, "/olla/ollama/api/chat")
    await waiting.begin(1)
    assert waiting.refused() == [(429, "too_many_requests")]
    refused = waiting.tasks[8].result()
    assert (refused.header("retry-after"), "ARENA_ANSWERS_PER_CALLER" in refused.error[0]) == ("5", True)
    await waiting.begin(1, peer="192.0.2.2")
    await waiting.begin(1, "/gradio_api/queue/join")
    waiting.tasks[0].cancel()
    await asyncio.wait(waiting.tasks[:1])
    await waiting.begin(1)
    assert sum(task.done() for task in waiting.tasks) == 2
    waiting.end.set()
    await asyncio.wait(waiting.tasks)
    assert [task.result().status for task in waiting.tasks[1:]] == [200] * 7 + [429] + [200] * 3
    waiting.end.clear()
    waiting.tasks.clear()
    await waiting.begin(8)
    assert waiting.refused() == []  # all places are free again
    waiting.end.set()
    await asyncio.wait(waiting.tasks)


@pytest.mark.anyio
async def test_all_callers_together_have_a_thousand_answers_at_a_time() -> None:
    waiting = Waiting(House(host="0.0.0.0", allow_open=True))
    for last in range(126):
        await waiting.begin(8, peer=f"198.51.100.{last}")
    assert waiting.refused() == [(503, "busy")] * 8
    waiting.end.set()
    await asyncio.wait(waiting.tasks)


@pytest.mark.anyio
@pytest.mark.parametrize(("settings", "headers"), [
    ({"token": TOKEN}, BEARER),
    ({"token": TOKEN, "host": "0.0.0.0"}, BEARER),
    ({"allow_open": True, "host": "0.0.0.0", "answers_per_caller": 0, "request_burst": 60}, {}),
])  # fmt: skip
async def test_who_may_have_any_number_of_answers(settings: dict[str, Any], headers: dict[str, str]) -> None:
    waiting = Waiting(House(**settings))
    await waiting.begin(50, headers=headers)
    assert waiting.refused() == []
    waiting.end.set()
    await asyncio.wait(waiting.tasks)


# the caller's address


@pytest.mark.anyio
async def test_forwarded_addresses_of_strangers_count_for_nothing() -> None:
    house = House(host="0.0.0.0", allow_open=True)
    statuses = []
    for number in range(200):
        hop = {"X-Forwarded-For": f"198.51.100.{number % 250}", "CF-Connecting-IP": f"198.51.100.{number % 250}"}
        statuses.append((await house.ask(headers=hop, peer="203.0.113.5")).status)
    assert statuses == [200] * 30 + [429] * 170


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("forwarded", "expected"),
    [
        (["198.51.100.7"], "198.51.100.7"),
        (["1.2.3.4, 198.51.100.7, 10.0.0.2"], "198.51.100.7"),
        (["1.2.3.4", "198.51.100.7,10.0.0.2"], "198.51.100.7"),
        (["nonsense, 10.0.0.2"], "10.0.0.2"),
        (["2001:db8::1"], "2001:db8::1"),
        ([], "10.0.0.1"),
        (["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
    ],
)
async def test_forwarded_addresses_are_read_from_the_right(forwarded: list[str], expected: str) -> None:
    house = House(trusted_proxies=("10.0.0.0/8",))
    headers = [("X-Forwarded-For", value) for value in forwarded]
    await house.ask(headers=[*headers, ("X-Forwarded-Proto", "https")], peer="10.0.0.1")
    await house.ask(headers=headers, peer="203.0.113.5")
    trusted, stranger = house.inside.seen
    assert (trusted["client"][0], trusted["scheme"]) == (expected, "https")
    assert (stranger["client"][0], stranger["scheme"]) == ("203.0.113.5", "http")


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("forwarded", "expected"),
    [
        (["ai.example.org"], b"ai.example.org"),
        (["ai.example.org:8443"], b"ai.example.org:8443"),
        (["[2001:db8::1]:80"], b"[2001:db8::1]:80"),
        (["forged, ai.example.org"], b"ai.example.org"),
        (["forged", "ai.example.org"], b"ai.example.org"),
        (["two words"], b""),
        (["a/b"], b""),
        (["me@host"], b""),
        (["<script>"], b""),
        (["x" * 256], b""),
        ([""], b""),
        ([], b""),
    ],
)
async def test_only_a_trusted_proxy_says_what_it_was_asked_for(forwarded: list[str], expected: bytes) -> None:
    house = House(trusted_proxies=("10.0.0.0/8",))
    headers = [("X-Forwarded-Host", value) for value in forwarded]
    await house.ask(headers=headers, peer="10.0.0.1")
    await house.ask(headers=headers, peer="203.0.113.5")
    assert [scope["arena.caller"].forwarded_host for scope in house.inside.seen] == [expected, b""]


@pytest.mark.anyio
@pytest.mark.parametrize("given", ["abc", "0", "A.b_c~d:e/f+g=h@i#j|k-l", "x" * 128])
async def test_a_clients_own_request_id_is_kept(given: str) -> None:
    house = House()
    answer = await house.ask(headers={"X-Request-ID": given})
    assert answer.header("x-request-id") == given
    assert house.inside.seen[0]["arena.caller"].request_id == given
    refused = await house.ask(headers={"X-Request-ID": given}, host="evil.example")
    assert (refused.status, refused.header("x-request-id")) == (403, given)


@pytest.mark.anyio
@pytest.mark.parametrize(
    "given", [[""], ["x" * 129], ["two words"], ["a,b"], ['"a"'], ["<b>"], ["a\\b"], ["\xe9"], ["a\tb"], ["a", "b"]]
)
async def test_no_other_text_becomes_a_request_id(given: list[str]) -> None:
    house = House()
    ids = [(await house.ask(headers=[("X-Request-ID", one) for one in given])).header("x-request-id") for _ in "12"]
    assert len({*ids, *given}) == len(given) + 2


@pytest.mark.anyio
async def test_one_ipv6_customer_is_one_caller() -> None:
    house = House(host="0.0.0.0", allow_open=True)
    for number in range(30):
        await house.ask(peer=f"2001:db8:1:2::{number:x}")
    assert (await house.ask(peer="2001:db8:1:2:ffff::1")).status == 429
    assert (await house.ask(peer="2001:db8:1:3::1")).status == 200
    for number in range(30):
        await house.ask(peer="::ffff:192.0.2.1" if number % 2 else "192.0.2.1")
    assert (await house.ask(peer="192.0.2.1")).status == 429
    assert (await house.ask(peer="not:an:address")).status == 200


def test_wrong_proxy_in_settings_is_named() -> None:
    with pytest.raises(SettingsError, match="ARENA_TRUSTED_PROXIES"):
        House(trusted_proxies=("10.0.0.0/33",))


@pytest.mark.anyio
async def test_what_is_turned_away_is_counted_by_its_reason() -> None:
    house = House(token=TOKEN, max_body_bytes=1024)
    await house.ask("POST", "/api/chat", {**BEARER, "Content-Length": "1025"})
    chunked = {**BEARER, "Transfer-Encoding": "chunked"}
    await house.ask("POST", "/api/chat", chunked, body=[b"x" * 1025])
    await house.ask("POST", "/api/chat", {**BEARER, "Origin": "http://elsewhere.example"})
    await house.ask(headers={**BEARER, "Content-Encoding": "gzip"})
    await house.ask(headers=BEARER)
    await house.ask(headers=PAGE)  # a browser that is sent to sign in has done nothing wrong
    assert house.refusals.counts == {"payload_too_large": 2, "forbidden": 1, "unsupported_media_type": 1}
    assert house.refusals.held() == 0
    for _ in range(9):
        await house.ask(headers={"Authorization": "Bearer wrong"}, peer="192.0.2.1")
    assert (await house.sign_in("wrong", peer="192.0.2.1")).status == 401
    assert (await house.sign_in(peer="192.0.2.1")).status == 429
    assert (house.refusals.counts["unauthorized"], house.refusals.counts["too_many_requests"]) == (10, 1)
    assert house.refusals.held() == 1
    house.clock.now += 61
    assert house.refusals.held() == 0


@pytest.mark.anyio
async def test_requests_over_the_rate_are_counted() -> None:
    house = House(allow_open=True, host="0.0.0.0", allowed_hosts=("arena.example",))
    for _ in range(32):
        await house.ask(host="arena.example")
    assert house.refusals.counts == {"too_many_requests": 2}
