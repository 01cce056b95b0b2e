"""Who gets in: the token, the session it is traded for, the sign-in page, a Space's frame."""

from __future__ import annotations

import time
from urllib.parse import quote

import pytest

from arena.guard import PUBLIC_PATHS
from arena.guard import credentials as credentials_module
from tests.guarded import BEARER, PAGE, TOKEN, House, Pairs, session_of

# the token


@pytest.mark.anyio
@pytest.mark.parametrize(
    "path", ["/", "/api/models", "/api/chat", "/olla/ollama/api/tags", "/docs", "/openapi.json", "/monitoring",
             "/gradio_api/queue/join", "/config", "/signout", "/api/health/", "/API/health", "/signin/x"]
)  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "POST", "HEAD", "OPTIONS", "DELETE"])
async def test_without_token_everything_is_closed(locked: House, path: str, method: str) -> None:
    answer = await locked.ask(method, path)
    assert answer.status == 401
    assert answer.error == ("Missing or invalid Authorization header", "unauthorized")
    assert answer.header("www-authenticate") == 'Bearer realm="arena"'
    assert not locked.inside.seen


@pytest.mark.anyio
async def test_public_paths_are_few(locked: House) -> None:
    assert {"/api/health", "/internal/health", "/signin", "/robots.txt"} == PUBLIC_PATHS
    assert (await locked.ask(path="/api/health")).status == 200
    assert (await locked.ask(path="/robots.txt")).body == b"User-agent: *\nDisallow: /\n"
    assert (await locked.ask("POST", "/robots.txt")).error == ("Method not allowed", "method_not_allowed")
    assert [scope["path"] for scope in locked.inside.seen] == ["/api/health"]


@pytest.mark.anyio
@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "Bearer "])
async def test_right_token_enters(locked: House, scheme: str) -> None:
    assert (await locked.ask(headers={"Authorization": f"{scheme} {TOKEN}"})).body == b"inside"


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("headers", "query", "missing"),
    [
        ({"X-Auth-Token": TOKEN}, "", True),
        ({"X-API-Key": f"Bearer {TOKEN}"}, "", False),
        ({"Proxy-Authorization": f"Bearer {TOKEN}"}, "", True),
        ({"Cookie": f"token={TOKEN}"}, "", True),
        ({"Cookie": f"arena_session={TOKEN}"}, "", True),
        ({"Authorization": f"Basic {TOKEN}"}, "", True),
        ({"Authorization": TOKEN}, "", True),
        ({"Authorization": ""}, "", True),
        ({"Authorization": "Bearer"}, "", True),
        ({"Authorization": "Bearer  "}, "", True),
        ({}, f"token={TOKEN}&access_token={TOKEN}", True),
        ([("Authorization", f"Bearer {TOKEN}"), ("Authorization", f"Bearer {TOKEN}")], "", True),
        ({"Authorization": "Bearer \xfc"}, "", False),
        ({"Authorization": f"Bearer {TOKEN}x"}, "", False),
        ({"Authorization": f"Bearer {TOKEN[:-1]}"}, "", False),
        ({"Authorization": "Bearer ' OR 1=1--"}, "", False),
        ({"Authorization": "Bearer " + "x" * 1_000_000}, "", False),
    ],
)
async def test_nothing_else_opens(locked: House, headers: Pairs, query: str, missing: bool) -> None:
    answer = await locked.ask(headers=headers, query=query)
    expected = "Missing or invalid Authorization header" if missing else "Invalid authorization token"
    assert (answer.status, answer.error[0]) == (401, expected)
    assert (answer.header("www-authenticate") or "").startswith("Bearer")
    assert not locked.inside.seen


@pytest.mark.anyio
async def test_a_token_may_hold_any_character() -> None:
    house = House(token="Schlüssel mit ümläuten 模型")
    header = "Bearer " + "Schlüssel mit ümläuten 模型".encode().decode("latin-1")
    assert (await house.ask(headers={"Authorization": header})).status == 200


@pytest.mark.anyio
async def test_no_token_no_question(unlocked: House) -> None:
    assert (await unlocked.ask("POST", "/api/chat", {"Authorization": "Bearer whatever"})).status == 200


def test_short_token_is_warned_about(caplog: pytest.LogCaptureFixture) -> None:
    House(token="short")
    assert "WEB_CHAT_TOKEN" in caplog.text
    assert "short" not in caplog.text
    caplog.clear()
    House(token=TOKEN)
    assert not caplog.text


@pytest.mark.anyio
async def test_guessing_is_slowed_down_by_address(locked: House) -> None:
    for _ in range(10):
        assert (await locked.ask(headers={"Authorization": "Bearer guess"})).status == 401
        locked.clock.now += 1
    answer = await locked.ask(headers=BEARER)
    assert (answer.status, answer.error[1]) == (429, "too_many_requests")
    assert answer.header("retry-after") == "51"
    assert (await locked.sign_in()).status == 429
    assert (await locked.ask(headers=BEARER, peer="127.0.0.2")).status == 200
    locked.clock.now += 50
    assert (await locked.ask(headers=BEARER)).status == 200


@pytest.mark.anyio
async def test_a_signed_in_browser_is_not_locked_out_by_a_guesser_beside_it(locked: House) -> None:
    cookie = session_of(await locked.sign_in())
    for _ in range(12):
        await locked.ask(headers={"Authorization": "Bearer guess"})
    assert (await locked.ask(headers={"Cookie": cookie})).status == 200


@pytest.mark.anyio
async def test_memory_for_guessers_and_sessions_is_bounded(locked: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credentials_module, "MAX_ADDRESSES", 3)
    monkeypatch.setattr(credentials_module, "MAX_SESSIONS", 3)
    for last in range(5):
        await locked.ask(headers={"Authorization": "Bearer guess"}, peer=f"10.0.0.{last}")
    assert list(locked.guard._credentials._failures._times) == ["10.0.0.2", "10.0.0.3", "10.0.0.4"]
    cookies = [session_of(await locked.sign_in()) for _ in range(4)]
    statuses = [(await locked.ask(headers={"Cookie": cookie})).status for cookie in cookies]
    assert statuses == [401, 200, 200, 200]


@pytest.mark.anyio
async def test_comparison_takes_no_longer_the_more_is_right(locked: House) -> None:
    check = locked.guard._credentials.check
    candidates = {b"x" + TOKEN[1:].encode(): [], TOKEN[:-1].encode() + b"x": []}  # type: dict[bytes, list[int]]
    for round_ in range(2000):
        for candidate, times in candidates.items():
            started = time.perf_counter_ns()
            with pytest.raises(Exception, match="Invalid"):
                check(candidate, f"10.{round_ // 250}.{round_ % 250}.{len(times) % 250}")
            times.append(time.perf_counter_ns() - started)
    first, last = (sorted(times)[1000] for times in candidates.values())
    assert abs(first - last) < max(0.03 * first, 20_000)


# sign-in


@pytest.mark.anyio
async def test_browser_without_token_is_sent_to_sign_in_and_back(locked: House) -> None:
    answer = await locked.ask("GET", "/", PAGE, query="models=a,b&x=%20")
    assert (answer.status, answer.body) == (303, b"")
    assert answer.header("location") == "/signin?next=/%3Fmodels%3Da%2Cb%26x%3D%2520"
    page = await locked.ask("GET", "/signin", PAGE, query="next=/%3Fmodels%3Da%2Cb%26x%3D%2520")
    assert page.status == 200
    assert b'name="next" value="/?models=a,b&amp;x=%20"' in page.body
    assert (await locked.sign_in(target="/?models=a,b&x=%20")).header("location") == "/?models=a,b&x=%20"
    assert (await locked.ask("POST", "/", PAGE)).status == 401
    assert (await locked.ask("GET", "/", {**PAGE, "Authorization": "Bearer wrong"})).status == 401


@pytest.mark.anyio
async def test_sign_in_trades_the_token_for_a_session(locked: House) -> None:
    answer = await locked.sign_in()
    cookie = answer.header("set-cookie")
    assert cookie is not None
    assert cookie.split("; ")[1:] == ["Path=/", "Max-Age=604800", "HttpOnly", "SameSite=Strict"]
    assert TOKEN not in str(answer.headers)
    session = session_of(answer)
    assert (await locked.ask(headers={"Cookie": f"theme=dark; {session}; other=1"})).status == 200
    assert (await locked.ask(headers=[("Cookie", "theme=dark"), ("Cookie", session)])).status == 200
    assert session_of(await locked.sign_in()) != session


@pytest.mark.anyio
async def test_wrong_token_shows_the_page_again(locked: House) -> None:
    answer = await locked.sign_in(token="<wrong>", target="/x")
    assert answer.status == 401
    assert b"That is not the access token." in answer.body
    assert b'value="/x"' in answer.body
    assert b"wrong" not in answer.body
    assert answer.header("set-cookie") is None


@pytest.mark.anyio
async def test_session_ends_with_time_and_with_sign_out(locked: House) -> None:
    one, two = session_of(await locked.sign_in()), session_of(await locked.sign_in())
    out = await locked.ask("POST", "/signout", {"Cookie": one})
    assert (out.status, out.header("location")) == (303, "/signin")
    assert (out.header("set-cookie") or "").startswith("arena_session=; Path=/; Max-Age=0;")
    assert (await locked.ask(headers={"Cookie": one})).status == 401
    assert (await locked.ask(headers={"Cookie": two})).status == 200
    locked.clock.now += 7 * 24 * 3600
    assert (await locked.ask(headers={"Cookie": two})).status == 401
    assert not locked.guard._credentials._sessions._open.get(two.partition("=")[2].encode())


@pytest.mark.anyio
async def test_signing_out_without_a_session_is_harmless(unlocked: House) -> None:
    assert (await unlocked.ask("POST", "/signout", {"Cookie": "arena_session=gone"})).status == 303


@pytest.mark.anyio
@pytest.mark.parametrize(
    "target",
    [
        "//evil",
        "/\\evil",
        "////evil",
        "\\\\evil",
        "https://evil",
        "evil",
        "",
        "/\t/evil",
        "/\n/evil",
        "/x\\y",
        "/\u202e",
        "/signout",
        "/signin?next=/signin",
        "/signout#x",
        "/sign%6Fut",
        "/x/../signout/",
    ],
)
async def test_sign_in_never_leads_away(locked: House, target: str) -> None:
    assert (await locked.sign_in(target=target)).header("location") == "/"
    page = await locked.ask("GET", "/signin", query="next=" + quote(target))
    assert b'name="next" value="/"' in page.body


@pytest.mark.anyio
async def test_target_with_markup_or_foreign_letters_stays_harmless(locked: House) -> None:
    page = await locked.ask("GET", "/signin", query="next=" + quote('/"><script>'))
    assert b"<script" not in page.body
    assert (await locked.sign_in(target="/模型")).header("location") == "/%E6%A8%A1%E5%9E%8B"
    assert (await locked.ask("GET", "/signin", query="&".join(f"a{i}=1" for i in range(20)))).status == 200


@pytest.mark.anyio
async def test_sign_in_form_is_bounded(locked: House) -> None:
    answer = await locked.ask("POST", "/signin", {"Transfer-Encoding": "chunked"}, body=[b"x" * 5000] * 2)
    assert (answer.status, answer.error[1]) == (413, "payload_too_large")
    many = "&".join(f"a{i}=1" for i in range(9)).encode()
    assert (await locked.ask("POST", "/signin", {"Content-Length": str(len(many))}, body=[many])).status == 400
    assert (await locked.ask("DELETE", "/signin")).header("allow") == "GET, HEAD, POST"


@pytest.mark.anyio
async def test_sign_in_needs_no_script_and_no_other_file(locked: House) -> None:
    page = await locked.ask("GET", "/signin", PAGE)
    policy = page.header("content-security-policy") or ""
    assert "default-src 'none'" in policy
    assert "'sha256-" in policy
    assert page.header("referrer-policy") == "same-origin"
    assert page.header("cache-control") == "no-store"
    for forbidden in (b"<script", b"src=", b"href=", b"url(", b"$", b"style="):
        assert forbidden not in page.body.lower()


@pytest.mark.anyio
async def test_without_a_token_there_is_nothing_to_sign_in_to(unlocked: House) -> None:
    assert (await unlocked.ask("GET", "/signin", query="next=/x")).header("location") == "/x"
    assert (await unlocked.sign_in(target="/y")).header("location") == "/y"


@pytest.mark.anyio
async def test_under_https_the_cookie_is_secure(locked: House) -> None:
    cookie = (await locked.sign_in(scheme="https")).header("set-cookie") or ""
    assert cookie.endswith("SameSite=Strict; Secure")


@pytest.mark.anyio
async def test_prefix_of_a_reverse_proxy() -> None:
    house = House(token=TOKEN, root_path="/arena/")
    for path in ("/x", "/arena/x"):
        assert (await house.ask("GET", path, PAGE)).header("location") == "/arena/signin?next=/x"
    assert (await house.sign_in(target="/x")).header("location") == "/arena/x"
    assert b'action="/arena/signin"' in (await house.ask(path="/arena/signin")).body
    assert (await house.ask(path="/arena/api/health")).status == 200
    assert (await house.ask(path="/arena/api/models")).status == 401
    assert (await house.ask(path="/arena//evil")).status == 400
    for path in ("/arena", "/arena/", "/arena/docs", "/arenas", "/docs"):
        await house.ask(path=path, headers=BEARER)
    served = [scope["path"] for scope in house.inside.seen]
    assert served == ["/api/health", "/", "/", "/docs", "/arenas", "/docs"]


# on a Hugging Face Space


@pytest.mark.anyio
async def test_a_space_is_framed_by_the_hub_and_reached_through_its_proxy() -> None:
    house = House(space_id="me/arena", space_host="me-arena.hf.space", token=TOKEN)
    hop = {"X-Forwarded-For": "198.51.100.7, 10.1.1.1", "X-Forwarded-Proto": "https"}
    answer = await house.sign_in(host="me-arena.hf.space", peer="10.16.0.2", headers=hop)
    assert (answer.header("set-cookie") or "").endswith("HttpOnly; SameSite=None; Secure; Partitioned")
    inside = await house.ask(
        "GET", "/", {"Cookie": session_of(answer), **hop}, peer="10.16.0.2", host="me-arena.hf.space"
    )
    assert "frame-ancestors 'self' https://huggingface.co https://*.hf.space" in (
        inside.header("content-security-policy") or ""
    )
    assert inside.header("x-frame-options") is None
    assert house.inside.seen[0]["client"] == ("198.51.100.7", 0)
    assert house.inside.seen[0]["scheme"] == "https"
