"""What Anthropic's clients send. What does not concern a model of one's own machines is ignored."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from msgspec import Struct

from arena.errors import BadRequest


class Text(Struct, frozen=True, tag="text"):
    """A block of text."""

    text: str


class Base64Source(Struct, frozen=True, tag="base64"):
    """A picture in the message itself."""

    data: str
    media_type: str = "image/png"


class UrlSource(Struct, frozen=True, tag="url"):
    """A picture that lies elsewhere."""

    url: str


class Image(Struct, frozen=True, tag="image"):
    """A block with a picture."""

    source: Base64Source | UrlSource


class Document(Struct, frozen=True, tag="document"):
    """A block with a file, which no model here reads; refused by `check()`."""


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


class ServerToolUse(Struct, frozen=True, tag="server_tool_use"):
    """A call of a tool that Anthropic runs; refused by `check()`."""


class ToolResult(Struct, frozen=True, tag="tool_result"):
    """What a call gave."""

    tool_use_id: str
    content: str | list[Text | Image | Document] | None = None


Block = Text | Image | Document | Thinking | RedactedThinking | ToolUse | ServerToolUse | ToolResult


class Turn(Struct, frozen=True):
    """One message."""

    role: Literal["user", "assistant"]
    content: str | list[Block]


def _all_blocks(turn: Turn) -> Iterator[Block]:
    """The blocks of a message, and those in its results of tools."""
    for block in () if isinstance(turn.content, str) else turn.content:
        yield block
        if isinstance(block, ToolResult) and isinstance(block.content, list):
            yield from block.content


class Tool(Struct, frozen=True):
    """A tool the client runs. Those that Anthropic runs have no schema, and are refused."""

    name: str
    description: str = ""
    input_schema: dict[str, Any] | None = None


class ToolChoice(Struct, frozen=True):
    """Whether tools must be used; `name` for type "tool"."""

    type: Literal["auto", "any", "tool", "none"]
    name: str = ""
    disable_parallel_tool_use: bool = False


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
    """The body of POST /v1/messages/count_tokens. What is missing or makes no sense is told by `check()`."""

    model: str = ""
    messages: list[Turn] = []
    system: str | list[Text] | None = None
    tools: list[Tool] | None = None
    tool_choice: ToolChoice | None = None
    thinking: ThinkingMode | None = None

    @property
    def instructions(self) -> str:
        """The system prompt, "" without one."""
        return self.system if isinstance(self.system, str) else "".join(block.text for block in self.system or ())

    @property
    def offered(self) -> list[Tool]:
        """The tools that may be used: none, all, or the only one that must be. Raises BadRequest."""
        choice = self.tool_choice
        if not self.tools or (choice is not None and choice.type == "none"):
            return []
        for tool in self.tools:
            if tool.input_schema is None:
                text = f"tools: {tool.name} has no input_schema; tools that run at Anthropic do not exist here"
                raise BadRequest(text)
        if choice is None or choice.type != "tool":
            return self.tools
        if named := [tool for tool in self.tools if tool.name == choice.name]:
            return named
        raise BadRequest(f"tool_choice: no tool is called {choice.name!r}")

    def check(self) -> None:
        """Raises BadRequest for what every model needs."""
        if not self.model:
            raise BadRequest("model: Field required")
        if not self.messages:
            raise BadRequest("messages: at least one message is required")
        for number, turn in enumerate(self.messages):
            for block in _all_blocks(turn):
                if isinstance(block, Document):
                    text = "documents cannot be read here; send their text in a block of type text"
                    raise BadRequest(f"messages.{number}: {text}")
                if isinstance(block, ServerToolUse):
                    text = "tools that run at Anthropic do not exist here; leave their blocks out"
                    raise BadRequest(f"messages.{number}: {text}")


class MessagesBody(CountBody, frozen=True, kw_only=True):
    """The body of POST /v1/messages."""

    max_tokens: int | None = None
    stream: bool = False
    stop_sequences: list[str] | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    output_config: OutputConfig | None = None

    def check(self) -> None:
        """Raises BadRequest for what every answer needs."""
        super().check()
        if self.max_tokens is None:
            raise BadRequest("max_tokens: Field required")
        if self.max_tokens < 1:
            raise BadRequest("max_tokens: must be greater than or equal to 1")
