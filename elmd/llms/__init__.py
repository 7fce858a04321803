"""Language-model backends: one file a backend, named by the word that `generation.llm.backend` takes.

The contract of a file (the first line of its docstring is its summary in `elmd list backends`):

- `REQUIRES`, optional: a dict of library → extra of elmd that brings it.
- `Config`: a subclass of `elmd.config.Strict` in which every key has a default.
- `Backend(config)`: satisfies `elmd.llms._base.Backend` (name, generate, stream, count_tokens).

Heavy libraries are imported inside methods, so that a configuration can be checked fast. Chats are data: nothing
in the content of a message may act as a control token of the model.
"""
