"""What Anthropic's clients send, turned into a call."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from arena.anthropic import CountBody, MessagesBody
from arena.anthropic.body import Base64Source, Block, Image, Text, Thinking, Tool, ToolResult, ToolUse, Turn
from arena.engine import options as allowed
from arena.engine.calls import Call, Message, ToolCall, ToolFunction, check_images
from arena.errors import BadRequest


def messages_call(body: MessagesBody) -> Call:
    """Check a body of messages. Raises BadRequest, or ArenaError for an option of a wrong kind."""
    body.check()
    given = {
        "num_predict": body.max_tokens,
        "temperature": body.temperature,
        "top_p": body.top_p,
        "top_k": body.top_k,
    }
    allowed.checked({"stop": body.stop_sequences})  # we watch for them ourselves, but the limits are the same
    form = body.output_config.format if body.output_config else None
    return _call(body, options=allowed.checked(given), format=form.schema if form else None, count_each=True)


def count_call(body: CountBody) -> Call:
    """The call whose prompt is to be counted. Raises BadRequest."""
    body.check()
    return _call(body)


def _call(body: CountBody, **more: Any) -> Call:
    messages = [message for turn in body.messages for message in _messages(turn)]
    if body.instructions:
        messages.insert(0, Message("system", body.instructions))
    tools = [_function(tool) for tool in body.offered]
    choice = "required" if tools and body.tool_choice and body.tool_choice.type != "auto" else None
    think = None if body.thinking is None else {"enabled": True, "disabled": False}.get(body.thinking.type)
    return Call(model=body.model, messages=messages, tools=tools, tool_choice=choice, think=think, **more)


def _messages(turn: Turn) -> Iterator[Message]:
    """One message of theirs as ours: results of tools are messages of their own, and come first."""
    blocks: list[Block] = [Text(turn.content)] if isinstance(turn.content, str) else turn.content
    results = [block for block in blocks if isinstance(block, ToolResult)]
    for result in results:
        content = [Text(result.content)] if isinstance(result.content, str) else result.content
        text, images = _said(content or [])
        yield Message("tool", text, images=images, tool_call_id=result.tool_use_id)
    if len(results) == len(blocks) > 0:
        return
    text, images = _said(blocks)
    yield Message(
        turn.role,
        text,
        thinking="".join(block.thinking for block in blocks if isinstance(block, Thinking)) or None,
        images=images,
        tool_calls=[
            ToolCall(ToolFunction(block.name, block.input), block.id) for block in blocks if isinstance(block, ToolUse)
        ]
        or None,
    )


def _said(blocks: Sequence[Block]) -> tuple[str, list[str] | None]:
    text = "".join(block.text for block in blocks if isinstance(block, Text))
    images = [_picture(block) for block in blocks if isinstance(block, Image)]
    check_images(images)
    return text, images or None


def _picture(image: Image) -> str:
    if isinstance(image.source, Base64Source):
        return image.source.data
    raise BadRequest("image: only one in the message itself (base64) can be read; what lies elsewhere is not fetched")


def _function(tool: Tool) -> dict[str, Any]:
    function = {"name": tool.name, "description": tool.description, "parameters": tool.input_schema}
    return {"type": "function", "function": function}
