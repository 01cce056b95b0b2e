"""What clients of OpenAI's Responses API send, checked, and turned into a call."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from msgspec import Struct, field
from msgspec.structs import replace

from arena.engine import options as allowed
from arena.engine.calls import Call, Message, ToolCall, ToolFunction, check_images
from arena.engine.openai import data_of, think_of
from arena.errors import BadRequest


class InputText(Struct, frozen=True, tag="input_text"):
    """Text of the user's."""

    text: str


class OutputText(Struct, frozen=True, tag="output_text"):
    """Text of the model's."""

    text: str


class Refusal(Struct, frozen=True, tag="refusal"):
    """Text in which a model declined."""

    refusal: str


class InputImage(Struct, frozen=True, tag="input_image"):
    """A picture in the request itself; pictures elsewhere are not fetched."""

    image_url: str


class ReasoningText(Struct, frozen=True):
    """What the model thought before."""

    text: str


Part = InputText | OutputText | Refusal | InputImage


class InputMessage(Struct, frozen=True):
    """A message of any side."""

    role: Literal["user", "assistant", "system", "developer"]
    content: str | list[Part]


class FunctionCall(Struct, frozen=True):
    """A call the model made; `arguments` are JSON text."""

    call_id: str
    name: str
    arguments: str = "{}"


class FunctionOutput(Struct, frozen=True):
    """What a call gave."""

    call_id: str
    output: str | list[Part]


class Reasoning(Struct, frozen=True):
    """Thoughts before what follows."""

    content: list[ReasoningText] | None = None


Item = InputMessage | FunctionCall | FunctionOutput | Reasoning
_ITEMS: dict[str, type[Item]] = {
    "message": InputMessage,
    "function_call": FunctionCall,
    "function_call_output": FunctionOutput,
    "reasoning": Reasoning,
}


class Tool(Struct, frozen=True):
    """A tool; only functions that the client runs exist here."""

    type: str
    name: str = ""
    description: str | None = None
    parameters: dict[str, Any] | None = None


class Format(Struct, frozen=True):
    """The form the answer must have."""

    type: Literal["text", "json_object", "json_schema"] = "text"
    schema: dict[str, Any] | None = None


class TextConfig(Struct, frozen=True):
    """What is wanted of the text."""

    format: Format | None = None


class ReasoningConfig(Struct, frozen=True):
    """How much to think."""

    effort: str | None = None


class ResponsesBody(Struct, frozen=True, kw_only=True):
    """The body of POST /v1/responses; what does not concern a model of this machine is ignored."""

    model: str = ""
    input: str | list[dict[str, Any]] = ""
    instructions: str | None = None
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stream: bool | None = None
    tools: list[Tool] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    text: TextConfig | None = None
    reasoning: ReasoningConfig | None = None
    truncation: Literal["auto", "disabled"] | None = None
    metadata: dict[str, Any] | None = None
    previous_response_id: str | None = None
    conversation: Any = None
    background: bool | None = None


class _Conversation(Struct):
    """The messages so far, and what the model thought before its next one."""

    messages: list[Message] = field(default_factory=list)
    thinking: str | None = None


def responses_call(body: ResponsesBody) -> Call:
    """Check a body of responses. Raises BadRequest, or ArenaError for an option of a wrong kind."""
    _check_kept_nothing(body)
    if not body.model:
        raise BadRequest("model is required")
    if not body.input:
        raise BadRequest("input is required")
    talk = _Conversation()
    if body.instructions:
        talk.messages.append(Message("system", body.instructions))
    if isinstance(body.input, str):
        talk.messages.append(Message("user", body.input))
    else:
        for number, item in enumerate(body.input):
            _add(talk, _item(item, number))
    given = {
        "temperature": 1.0 if body.temperature is None else body.temperature,
        "top_p": 1.0 if body.top_p is None else body.top_p,
        "num_predict": body.max_output_tokens,
    }
    tools, choice = _tools(body)
    return Call(
        model=body.model,
        messages=talk.messages,
        options=allowed.checked(given),
        format=_format(body.text),
        tools=tools,
        tool_choice=choice,
        think=think_of(body.reasoning.effort if body.reasoning else None),
        truncate=body.truncation == "auto",
        count_each=True,
    )


def _check_kept_nothing(body: ResponsesBody) -> None:
    """Nothing is kept between two requests, so that nothing can be gone back to."""
    for name in ("previous_response_id", "conversation", "background"):
        if getattr(body, name):
            raise BadRequest(f"{name} is not supported: responses are not kept; send the whole conversation as input")


def _item(item: dict[str, Any], number: int) -> Item:
    kind = item.get("type", "message")
    if not isinstance(kind, str) or kind not in _ITEMS:
        raise BadRequest(f"input[{number}].type must be one of {', '.join(_ITEMS)}")
    try:
        return msgspec.convert(item, _ITEMS[kind])
    except msgspec.ValidationError as error:
        raise BadRequest(f"input[{number}]: {error}") from None


def _add(talk: _Conversation, item: Item) -> None:
    match item:
        case Reasoning():
            talk.thinking = "".join(part.text for part in item.content or ()) or None
        case FunctionOutput():
            text, images = _said(item.output)
            talk.messages.append(Message("tool", text, images=images, tool_call_id=item.call_id))
        case FunctionCall():
            _add_call(talk, ToolCall(ToolFunction(item.name, item.arguments), item.call_id))
        case InputMessage():
            text, images = _said(item.content)
            thinking, talk.thinking = (talk.thinking, None) if item.role == "assistant" else (None, talk.thinking)
            role = "system" if item.role == "developer" else item.role
            talk.messages.append(Message(role, text, thinking=thinking, images=images))


def _add_call(talk: _Conversation, call: ToolCall) -> None:
    """A call belongs to the message of the model before it, if there is one."""
    if talk.messages and talk.messages[-1].role == "assistant":
        last = talk.messages[-1]
        talk.messages[-1] = replace(last, tool_calls=[*(last.tool_calls or ()), call])
    else:
        talk.messages.append(Message("assistant", thinking=talk.thinking, tool_calls=[call]))
        talk.thinking = None


def _said(content: str | list[Part]) -> tuple[str, list[str] | None]:
    if isinstance(content, str):
        return content, None
    images = [data_of(part.image_url) for part in content if isinstance(part, InputImage)]
    check_images(images)
    texts = [
        part.refusal if isinstance(part, Refusal) else part.text for part in content if not isinstance(part, InputImage)
    ]
    return "".join(texts), images or None


def _format(text: TextConfig | None) -> Any:
    form = text.format if text else None
    if form is None or form.type == "text":
        return None
    return "json" if form.type == "json_object" else form.schema or {}


def _tools(body: ResponsesBody) -> tuple[list[dict[str, Any]], str | None]:
    """The tools in the form of chat completions, and whether they must be used. A forced one is offered alone."""
    choice = body.tool_choice or "auto"
    name = choice.get("name") if isinstance(choice, dict) else None
    if not body.tools or choice == "none":
        return [], None
    if name is None and choice not in ("auto", "required"):
        raise BadRequest('tool_choice must be "none", "auto", "required", or {"type": "function", "name": ...}')
    offered = [_tool(tool) for tool in body.tools if name is None or tool.name == name]
    if not offered:
        raise BadRequest(f"tool_choice: no tool is called {name!r}")
    return offered, None if choice == "auto" else "required"


def _tool(tool: Tool) -> dict[str, Any]:
    if tool.type != "function" or not tool.name:
        raise BadRequest(f"tools: a tool of type {tool.type!r} does not exist here; only functions with a name do")
    function = {"name": tool.name, "description": tool.description or "", "parameters": tool.parameters or {}}
    return {"type": "function", "function": function}
