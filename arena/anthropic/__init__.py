"""Anthropic's Messages API: what its clients send, and the events that they expect. Values only, no I/O."""

from arena.anthropic.body import CountBody, MessagesBody
from arena.anthropic.message import MessageWriter, error_object, tokens

__all__ = ["CountBody", "MessageWriter", "MessagesBody", "error_object", "tokens"]
