"""Log lines: no secret in them, no way to forge one, one format for everybody."""

from __future__ import annotations

import asyncio
import contextvars
import io
import json
import logging
from typing import Literal

import pytest
import uvicorn

from arena.log import configure, request_id
from arena.settings import load

TOKEN = 'canary-"token"-of\\the-arena'
FORGED = "x\n2026-01-01T00:00:00Z [info] all is well\r\x1b[2J\x85\u2028\u202e\x7f"
Format = Literal["console", "json"]


def logged(log_format: Format, level: Literal["debug", "info", "warning", "error"] = "info") -> io.StringIO:
    """Configure logging and return where the lines go."""
    out = io.StringIO()
    configure(load(log_format=log_format, log_level=level, token=TOKEN), out)
    return out


def test_json_line_holds_when_who_and_what() -> None:
    out = logged("json")
    logging.getLogger("arena.somewhere").warning("took %d ms", 12)
    line = json.loads(out.getvalue())
    assert set(line) == {"event", "level", "logger", "timestamp"}
    assert (line["event"], line["level"], line["logger"]) == ("took 12 ms", "warning", "arena.somewhere")
    assert line["timestamp"].endswith("Z")


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_nobody_forges_a_line_or_steers_a_terminal(log_format: Format) -> None:
    out = logged(log_format)
    logging.getLogger("arena").info("refused %s", FORGED)
    text = out.getvalue()
    assert text.count("\n") == 1
    assert text.endswith("\n")
    assert text[:-1].isprintable()
    assert "\\n2026" in text


def test_a_console_traceback_keeps_its_lines_and_they_are_set_in() -> None:
    out = logged("console")
    try:
        raise ValueError(FORGED)
    except ValueError:
        logging.getLogger("arena").exception("it broke")
    first, *rest = out.getvalue().splitlines()
    assert "it broke" in first
    assert all(line.startswith("    ") and line.isprintable() for line in rest)
    assert rest[0] == "    Traceback (most recent call last):"


def test_a_json_traceback_is_one_line() -> None:
    out = logged("json")
    try:
        raise ValueError(FORGED)
    except ValueError:
        logging.getLogger("arena").exception("it broke")
    assert out.getvalue().count("\n") == 1
    assert "ValueError" in json.loads(out.getvalue())["exception"]


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_no_secret_reaches_a_line(log_format: Format) -> None:
    out = logged(log_format)
    log = logging.getLogger("arena")
    log.info("the token is %s", TOKEN)
    log.info("header %r", {"Authorization": "Bearer sk-canary"})
    log.info("postgresql://someone:canary@db/arena and http://canary@host:11434/x")
    try:
        raise RuntimeError(TOKEN)
    except RuntimeError:
        log.exception("failed with %s", TOKEN)
    assert "canary" not in out.getvalue()
    assert out.getvalue().count("[redacted]") >= 5
    assert "db/arena" in out.getvalue()


def test_without_a_token_plain_words_stay() -> None:
    out = io.StringIO()
    configure(load(log_format="json"), out)
    logging.getLogger("arena").info("see http://127.0.0.1:7860/ or mail a@b")
    assert json.loads(out.getvalue())["event"] == "see http://127.0.0.1:7860/ or mail a@b"


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_lines_of_one_request_carry_its_id(log_format: Format) -> None:
    out = logged(log_format)

    def within_a_request() -> None:
        request_id.set("0123456789abcdef")
        logging.getLogger("arena").info("inside")

    contextvars.copy_context().run(within_a_request)
    logging.getLogger("arena").info("outside")
    inside, outside = out.getvalue().splitlines()
    assert "0123456789abcdef" in inside
    assert "request_id" not in outside


def test_uvicorn_speaks_in_our_format() -> None:
    out = logged("json", "debug")
    uvicorn.Config(lambda: None, log_config=None, access_log=True)
    logging.getLogger("uvicorn.error").info("Started")
    logging.getLogger("uvicorn.access").info('%s - "%s"', "127.0.0.1:1", "GET / HTTP/1.1")
    assert [json.loads(line)["logger"] for line in out.getvalue().splitlines()] == ["uvicorn.error", "uvicorn.access"]


def test_uvicorn_tells_of_its_troubles_but_not_of_its_steps() -> None:
    out = logged("console", "info")
    for name in ("uvicorn.error", "uvicorn.asgi"):
        logging.getLogger(name).info("Waiting for application startup.")
    assert not out.getvalue()
    logging.getLogger("uvicorn.error").warning("Invalid HTTP request received.")
    assert "Invalid HTTP request received." in out.getvalue()
    out = logged("console", "error")
    logging.getLogger("uvicorn.error").warning("Invalid HTTP request received.")
    assert not out.getvalue()


def test_level_decides_and_libraries_stay_quiet() -> None:
    out = logged("json", "warning")
    logging.getLogger("arena").info("not shown")
    logging.getLogger("uvicorn.error").info("not shown")
    assert not out.getvalue()
    out = logged("json", "debug")
    logging.getLogger("arena").debug("shown")
    logging.getLogger("asyncio").info("not shown")
    assert "not shown" not in out.getvalue()
    assert "shown" in out.getvalue()


def test_a_cancelled_request_is_no_error() -> None:
    out = logged("console")
    try:
        raise asyncio.CancelledError
    except asyncio.CancelledError:
        logging.getLogger("uvicorn.error").exception("Exception in ASGI application")
    assert not out.getvalue()


def test_configuring_twice_logs_once() -> None:
    logged("console")
    out = logged("console")
    logging.getLogger("arena").info("once")
    assert out.getvalue().count("once") == 1


def test_standard_error_is_the_default(capsys: pytest.CaptureFixture[str]) -> None:
    configure(load())
    logging.getLogger("arena").info("there")
    captured = capsys.readouterr()
    assert "there" in captured.err
    assert not captured.out


def test_values_of_any_kind_are_spelled_out() -> None:
    out = logged("json")
    logging.getLogger("arena").info("%s %s %s", None, b"\x1b", ["\n"])
    assert json.loads(out.getvalue())["event"] == r"None b'\x1b' ['\n']"


def test_fields_of_a_failure_stand_apart_for_programs() -> None:
    out = logged("json")
    logging.getLogger("arena").warning("it failed", extra={"endpoint": "a\x1b", "code": "timeout", "other": "hidden"})
    line = json.loads(out.getvalue())
    assert (line["endpoint"], line["code"], line["event"]) == (r"a\x1b", "timeout", "it failed")
    assert "other" not in line
