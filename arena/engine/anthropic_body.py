"""What Anthropic's clients send, checked, and turned into a call."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

from msgspec import Struct

from arena.engine import options as allowed
from arena.engine.calls import Call, Message, ToolCall, ToolFunction, check_images
from arena.errors import BadRequest


class Text(Struct, frozen=True, tag="text"):
    """A block of text."""

    text: str


class Base64Source(Struct, frozen=True, tag="base64"):
    """A picture in the message itself; pictures elsewhere are not fetched."""

    data: str


class Image(Struct, frozen=True, tag="image"):
    """A block with a picture."""

    source: Base64Source


class Thinking(Struct, frozen=True, tag="thinking"):
    """What the model thought before."""

    thinking: str


class RedactedThinking(Struct, frozen=True, tag="redacted_thinking"):
    """Thoughts nobody may read; left out."""


class ToolUse(Struct, frozen=True, tag="tool_use"):
    """A call the model made."""

    id: str
    name: str
    input: dict[str, Any]


class ToolResult(Struct, frozen=True, tag="tool_result"):
    """What a call gave."""

    tool_use_id: str
    content: str | list[Text | Image] | None = None


Block = Text | Image | Thinking | RedactedThinking | ToolUse | ToolResult


class Turn(Struct, frozen=True):
    """One message."""

    role: Literal["user", "assistant"]
    content: str | list[Block]


class Tool(Struct, frozen=True):
    """A tool the client runs. Those that Anthropic runs have no schema, and are refused."""

    name: str
    description: str = ""
    input_schema: dict[str, Any] | None = None


class ToolChoice(Struct, frozen=True):
    """Whether tools must be used; `name` for type "tool"."""

    type: Literal["auto", "any", "tool", "none"]
    name: str = ""


class ThinkingMode(Struct, frozen=True):
    """Whether to think; budgets are not kept."""

    type: Literal["enabled", "disabled", "adaptive"]


class OutputFormat(Struct, frozen=True, tag="json_schema"):
    """The form the answer must have."""

    schema: dict[str, Any]


class OutputConfig(Struct, frozen=True):
    """What else is wanted of the answer."""

    format: OutputFormat | None = None


class CountBody(Struct, frozen=True, kw_only=True):
    """The body of POST /v1/messages/count_tokens."""

    model: str = ""
    messages: list[Turn] = []
    system: str | list[Text] | None = None
    tools: list[Tool] | None = None
    tool_choice: ToolChoice | None = None
    thinking: ThinkingMode | None = None


class MessagesBody(CountBody, frozen=True, kw_only=True):
    """The body of POST /v1/messages; what does not concern a model of this machine is ignored."""

    max_tokens: int | None = None
    stream: bool = False
    stop_sequences: list[str] | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    output_config: OutputConfig | None = None


def messages_call(body: MessagesBody) -> Call:
    """Check a body of messages. Raises BadRequest, or ArenaError for an option of a wrong kind."""
    if body.max_tokens is None:
        raise BadRequest("max_tokens: Field required")
    if body.max_tokens < 1:
        raise BadRequest("max_tokens: must be greater than or equal to 1")
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
    return _call(body)


def _call(body: CountBody, **more: Any) -> Call:
    if not body.model:
        raise BadRequest("model: Field required")
    if not body.messages:
        raise BadRequest("messages: at least one message is required")
    messages = [message for turn in body.messages for message in _messages(turn)]
    system = body.system if isinstance(body.system, str) else "".join(block.text for block in body.system or ())
    if system:
        messages.insert(0, Message("system", system))
    tools, choice = _tools(body)
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
    images = [block.source.data for block in blocks if isinstance(block, Image)]
    check_images(images)
    return text, images or None


def _tools(body: CountBody) -> tuple[list[dict[str, Any]], str | None]:
    """The tools in OpenAI's form, and whether they must be used. One that must be used is the only one offered."""
    choice = body.tool_choice
    if not body.tools or (choice is not None and choice.type == "none"):
        return [], None
    offered = [tool for tool in body.tools if choice is None or choice.type != "tool" or tool.name == choice.name]
    if not offered:
        raise BadRequest(f"tool_choice: no tool is called {choice.name!r}" if choice else "")
    return [_tool(tool) for tool in offered], None if choice is None or choice.type == "auto" else "required"


def _tool(tool: Tool) -> dict[str, Any]:
    if tool.input_schema is None:
        raise BadRequest(f"tools: {tool.name} has no input_schema; tools that run at Anthropic do not exist here")
    function = {"name": tool.name, "description": tool.description, "parameters": tool.input_schema}
    return {"type": "function", "function": function}
