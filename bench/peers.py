"""The fan-out as one writes it first, with three well-known clients: what the arena is compared with.

python peers.py aiohttp|httpx|requests PORT UPSTREAM_URL

Each takes the arena's own request and answers with the arena's lines. They are the textbook way, not the best that
these libraries can do: one task (or thread) a model, lines parsed with json, one queue, one write a token.
"""

from __future__ import annotations

import asyncio
import json
import queue
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import uvicorn
from fastapi import FastAPI
from fastapi.responses import StreamingResponse

NDJSON = "application/x-ndjson"
DONE = object()


def question(instance: dict[str, Any], body: dict[str, Any]) -> dict[str, Any]:
    """What Ollama is asked for one instance."""
    return {"model": instance["model"], "messages": body["history"], "stream": True}


def answer(instance: dict[str, Any], line: bytes | str) -> str:
    """One line of the arena from one line of Ollama."""
    said = json.loads(line)
    return (
        json.dumps(
            {
                "instance_id": instance["id"],
                "model": instance["model"],
                "token": said["message"]["content"],
                "done": said["done"],
            }
        )
        + "\n"
    )


async def merged(lanes: list[Any], results: asyncio.Queue[Any]) -> AsyncIterator[str]:
    """One task a lane; the lines as they come."""
    tasks = [asyncio.create_task(lane) for lane in lanes]
    live = len(tasks)
    try:
        while live:
            item = await results.get()
            if item is DONE:
                live -= 1
            else:
                yield item
    finally:
        for task in tasks:
            task.cancel()


def with_aiohttp(url: str) -> FastAPI:
    """aiohttp: `async for line in response.content`."""
    import aiohttp

    app, kept = FastAPI(), {}

    async def lane(instance: dict[str, Any], body: dict[str, Any], results: asyncio.Queue[Any]) -> None:
        try:
            async with kept["session"].post(f"{url}/api/chat", json=question(instance, body)) as response:
                async for line in response.content:
                    await results.put(answer(instance, line))
        finally:
            results.put_nowait(DONE)

    @app.post("/api/stream_chat")
    async def stream_chat(body: dict[str, Any]) -> StreamingResponse:
        if not kept:
            unlimited = aiohttp.TCPConnector(limit=0)
            kept["session"] = aiohttp.ClientSession(connector=unlimited, timeout=aiohttp.ClientTimeout(total=None))
        results: asyncio.Queue[Any] = asyncio.Queue()
        lanes = [lane(instance, body, results) for instance in body["model_instances"]]
        return StreamingResponse(merged(lanes, results), media_type=NDJSON)

    return app


def with_httpx(url: str) -> FastAPI:
    """httpx: `async for line in response.aiter_lines()`."""
    import httpx

    app = FastAPI()
    client = httpx.AsyncClient(timeout=None, limits=httpx.Limits(max_connections=None), trust_env=False)

    async def lane(instance: dict[str, Any], body: dict[str, Any], results: asyncio.Queue[Any]) -> None:
        try:
            async with client.stream("POST", f"{url}/api/chat", json=question(instance, body)) as response:
                async for line in response.aiter_lines():
                    await results.put(answer(instance, line))
        finally:
            results.put_nowait(DONE)

    @app.post("/api/stream_chat")
    async def stream_chat(body: dict[str, Any]) -> StreamingResponse:
        results: asyncio.Queue[Any] = asyncio.Queue()
        lanes = [lane(instance, body, results) for instance in body["model_instances"]]
        return StreamingResponse(merged(lanes, results), media_type=NDJSON)

    return app


def with_requests(url: str) -> FastAPI:
    """requests: a thread a model, `iter_lines`, a queue, and a plain generator."""
    import requests

    app = FastAPI()

    def lane(instance: dict[str, Any], body: dict[str, Any], results: queue.Queue[Any]) -> None:
        try:
            with requests.post(f"{url}/api/chat", json=question(instance, body), stream=True) as response:
                for line in response.iter_lines():
                    if line:
                        results.put(answer(instance, line))
        finally:
            results.put(DONE)

    def lines(body: dict[str, Any]) -> Iterator[str]:
        results: queue.Queue[Any] = queue.Queue()
        for instance in body["model_instances"]:
            threading.Thread(target=lane, args=(instance, body, results), daemon=True).start()
        live = len(body["model_instances"])
        while live:
            item = results.get()
            if item is DONE:
                live -= 1
            else:
                yield item

    @app.post("/api/stream_chat")
    def stream_chat(body: dict[str, Any]) -> StreamingResponse:
        return StreamingResponse(lines(body), media_type=NDJSON)

    return app


if __name__ == "__main__":
    kind, port, upstream_url = sys.argv[1:]
    build = {"aiohttp": with_aiohttp, "httpx": with_httpx, "requests": with_requests}[kind]
    uvicorn.run(build(upstream_url), port=int(port), log_level="warning", access_log=False, backlog=4096)
