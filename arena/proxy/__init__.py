"""The proxy: any Ollama, OpenAI or Anthropic client, in front of the whole fleet."""
