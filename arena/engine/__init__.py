"""The embedded engine: llama.cpp behind a small Ollama server, in a process of its own.

`process.EngineProcess` is all the arena needs of it; everything else here runs inside `python -m arena.engine`.
"""
