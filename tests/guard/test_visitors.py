"""Browsers that nobody has signed in: their name in a cookie, that none can be made up, and what it is good for."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from arena.app import create_app
from arena.exchange import Caller
from arena.guard import Guard, Visitors
from arena.settings import Settings
from tests.api.asgi import JSON_TYPE, Answer, Client, started
from tests.api.conftest import settings_for
from tests.fake_ollama import FakeOllama
from tests.guarded import BEARER, PAGE, TOKEN, House

COOKIE = re.compile(r"(arena_voter=[0-9a-f]{32}\.[0-9a-f]{64}); Path=/; Max-Age=31536000; HttpOnly; (.+)")


class Secret:
    """A key that may have to be made first, and a count of the times that was tried."""

    def __init__(self, key: bytes, made: bytes = b"") -> None:
        self.key, self.made, self.tried = key, made, 0

    async def prepare(self) -> None:
        self.tried += 1
        self.key = self.made


def house(secret: Secret, *, framed: bool = False, **settings: Any) -> House:
    """A guard that gives names signed with this secret."""
    made = House(**settings)
    visitors = Visitors(lambda: secret.key, secret.prepare, framed=framed)
    made.guard = Guard(made.inside, Settings(**settings), visitors=visitors)
    return made


async def named(door: House, **options: Any) -> tuple[str, str]:
    """The cookie that the page gives, and its flags."""
    answer = await door.ask(path="/", headers=PAGE, **options)
    assert answer.header("cache-control") == "no-store"
    found = COOKIE.fullmatch(answer.header("set-cookie") or "")
    assert found
    return found[1], found[2]


async def caller(door: House, cookie: str, **headers: str) -> Caller:
    await door.ask("POST", "/api/battles", {"Cookie": cookie, **headers})
    seen: Caller = door.inside.seen[-1]["arena.caller"]
    return seen


async def test_a_browser_gets_one_name_and_keeps_it() -> None:
    door = house(Secret(b"secret"))
    cookie, flags = await named(door)
    assert flags == "SameSite=Lax"
    assert (await named(door))[0] != cookie, "another browser is somebody else"
    again = await door.ask(path="/", headers={**PAGE, "Cookie": f"theme=dark; {cookie}"})
    assert again.header("set-cookie") is None
    who = await caller(door, cookie)
    assert who.voter == f"visitor {who.visitor}" == "visitor " + cookie.partition("=")[2].partition(".")[0]
    assert who.counted_as == who.address == "127.0.0.1", "limits are by address all the same"


@pytest.mark.parametrize(
    "made_up",
    [
        "arena_voter=",
        "arena_voter=.",
        "arena_voter=ann",
        "arena_voter=ann." + "0" * 64,
        "arena_voter=\xff\xfe.\xff",
        "arena_voter={name}",
        "arena_voter={name}.{signature}0",
        "arena_voter=0{name}.{signature}",
        "arena_visitor={name}.{signature}",
    ],
)
async def test_a_name_that_was_not_given_here_is_none(made_up: str) -> None:
    door = house(Secret(b"secret"))
    name, _, signature = (await named(door))[0].partition("=")[2].partition(".")
    who = await caller(door, made_up.format(name=name, signature=signature))
    assert (who.visitor, who.voter) == ("", "127.0.0.1")


async def test_a_name_of_another_store_is_none_and_the_right_one_of_two_is_found() -> None:
    ours, theirs = house(Secret(b"secret")), house(Secret(b"another"))
    cookie, foreign = (await named(ours))[0], (await named(theirs))[0]
    assert (await caller(ours, foreign)).visitor == ""
    assert (await caller(ours, f"{foreign}; {cookie}")).visitor in cookie


async def test_only_the_page_gives_names() -> None:
    door = house(Secret(b"secret"))
    for path, headers in (("/", {}), ("/api/models", PAGE), ("/config", PAGE)):
        assert (await door.ask(path=path, headers=headers)).header("set-cookie") is None
    assert (await house(Secret(b"secret"), token=TOKEN).ask(path="/", headers=PAGE)).status == 303


@pytest.mark.parametrize(
    ("framed", "scheme", "flags"),
    [
        (False, "https", "SameSite=Lax; Secure"),
        (True, "http", "SameSite=None; Secure; Partitioned"),
        (True, "https", "SameSite=None; Secure; Partitioned"),
    ],
)
async def test_how_the_cookie_may_travel(framed: bool, scheme: str, flags: str) -> None:
    assert (await named(house(Secret(b"secret"), framed=framed), scheme=scheme))[1] == flags


async def test_the_secret_is_made_when_the_first_browser_comes() -> None:
    secret = Secret(b"", made=b"secret")
    door = house(secret)
    assert (await caller(door, "arena_voter=ann.0")).visitor == ""
    await named(door)
    await named(door)
    assert secret.tried == 1


async def test_without_a_secret_the_page_comes_without_a_name() -> None:
    secret = Secret(b"")
    answer = await house(secret).ask(path="/", headers=PAGE)
    assert (answer.status, answer.header("set-cookie"), secret.tried) == (200, None, 1)


async def test_a_signed_in_browser_and_a_key_vote_by_their_best_name() -> None:
    door = house(Secret(b"secret"), token=TOKEN)
    signed = await door.ask(path="/", headers={**PAGE, **BEARER})
    cookie = (signed.header("set-cookie") or "").partition(";")[0]
    who = await caller(door, cookie, **BEARER)
    assert who.voter.startswith("visitor ")
    assert Caller("a", "key ann", "1", key="ann", visitor="x").voter == "key ann"
    assert Caller("a", b"\x01\xff", "1").voter == "01ff"


async def test_two_browsers_at_one_address_are_two_voters_and_both_count_for_its_cap(
    fake: FakeOllama, tmp_path: Path
) -> None:
    settings = settings_for(
        fake.url, data=tmp_path, host="0.0.0.0", allow_open=True, votes_per_voter=2, votes_per_address=3
    )
    async with started(create_app(settings, page=False)) as api:
        cookies = [await cookie_of(api), await cookie_of(api)]
        assert (await voted(api, cookies[0])).status == 200
        early, last = await begun(api, cookies[0]), await begun(api, cookies[0])
        assert last.json()["votes_left"] == 1, "known before the vote"
        assert (await voted_on(api, cookies[0], last)).status == 200
        for refused in (await begun(api, cookies[0]), await voted_on(api, cookies[0], early)):
            assert (refused.status, refused.json()["code"]) == (429, "too_many_votes")
        assert "ARENA_VOTES_PER_VOTER" in refused.json()["error"]
        assert 0 < int(refused.headers["retry-after"]) <= 86400
        assert (await voted(api, cookies[1])).status == 200
        refused = await voted(api, cookies[1])
        assert (refused.status, "ARENA_VOTES_PER_ADDRESS" in refused.json()["error"]) == (429, True)
        assert (await voted(api, await cookie_of(api))).status == 429, "a fresh name does not help"


async def cookie_of(api: Client) -> bytes:
    """What a browser that opens the page is given."""
    answer = await api.call("GET", "/", b"", [(b"accept", b"text/html")])
    return answer.headers["set-cookie"].partition(";")[0].encode()


async def voted(api: Client, cookie: bytes) -> Answer:
    """The answer to a vote on a new battle, or why none begins."""
    made = await begun(api, cookie)
    return made if made.status != 200 else await voted_on(api, cookie, made)


async def begun(api: Client, cookie: bytes) -> Answer:
    """A new battle, or why there is none."""
    return await api.call("POST", "/api/battles", b"{}", [JSON_TYPE, (b"cookie", cookie)])


async def voted_on(api: Client, cookie: bytes, made: Answer) -> Answer:
    """The answer to a vote on that battle."""
    headers = [JSON_TYPE, (b"cookie", cookie)]
    path = f"/api/battles/{made.json()['id']}"
    await api.call("POST", f"{path}/stream", b'{"message": "Hello!"}', headers)
    return await api.call("POST", f"{path}/vote", b'{"verdict": "a"}', headers)
