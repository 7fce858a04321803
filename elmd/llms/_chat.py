"""A chat as token ids, in which no message can pass for the template around it.

A chat template is text, and so is what people write: rendered together, a message that holds "<|im_end|>" would end
its own turn. Here the template is rendered around placeholders, and messages are tokenised without added tokens.
"""

import re
from typing import Any

from elmd.types import Chat

_PLACEHOLDER = re.compile("\ue000([0-9]+)\ue001")


def encode_chat(tokenizer: Any, chat: Chat, reply_next: bool = True) -> list[int]:
    """Return the token ids of `chat` under the tokenizer's own chat template.

    A chat whose messages are harmless gets exactly the ids of `apply_chat_template`, so that training and inference
    see one format. Otherwise the messages are tokenised apart, and no id of theirs is an added token.

    Args:
        tokenizer: A transformers tokenizer with a chat template.
        chat: The messages.
        reply_next: Whether to end with the template's opening of the assistant's turn.

    Raises what the template raises for a chat that it does not take (jinja2.TemplateError).
    """
    contents = [message.content for message in chat]
    plain: list[int] = tokenizer.encode(_render(tokenizer, chat, contents, reply_next), add_special_tokens=False)
    apart = _encode_apart(tokenizer, chat, reply_next)
    controls = control_ids(tokenizer)
    written = any(token in content for token in controls.values() for content in contents)
    # The ids are compared too, because a normaliser, or a seam with the template, can make a token that no message has.
    joined = [i for i in plain if i in controls] != [i for i in apart if i in controls]
    return apart if written or joined else plain


def control_ids(tokenizer: Any) -> dict[int, str]:
    """Return id → text of every added token of the tokenizer, but for those that are mere whitespace."""
    return {i: token.content for i, token in tokenizer.added_tokens_decoder.items() if not token.content.isspace()}


def _encode_apart(tokenizer: Any, chat: Chat, reply_next: bool) -> list[int]:
    # An empty message stays empty, since a template may ask whether there is any content.
    holes = [f"\ue000{n}\ue001" if message.content else "" for n, message in enumerate(chat)]
    ids: list[int] = []
    for n, part in enumerate(_PLACEHOLDER.split(_render(tokenizer, chat, holes, reply_next))):
        if n % 2:
            ids += encode_text(tokenizer, chat[int(part)].content)
        elif part:
            ids += tokenizer.encode(part, add_special_tokens=False)
    return ids


def encode_text(tokenizer: Any, text: str) -> list[int]:
    """Return the token ids of plain `text`; what looks like an added token is spelled out in ordinary ones."""
    controls = control_ids(tokenizer)
    # A vocabulary may hold an added token as an ordinary word too; then nothing spells it, and it is left out.
    return [i for i in _encode_without_added_tokens(tokenizer, text) if i not in controls]


def _encode_without_added_tokens(tokenizer: Any, text: str) -> list[int]:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return list(tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True))
    # The steps one by one, because `split_special_tokens` spares only special tokens and is state shared by threads.
    if backend.normalizer is not None:
        text = backend.normalizer.normalize_str(text)
    words = [text]
    if backend.pre_tokenizer is not None:
        words = [word for word, _ in backend.pre_tokenizer.pre_tokenize_str(text)]
    return [token.id for word in words for token in backend.model.tokenize(word)]


def _render(tokenizer: Any, chat: Chat, contents: list[str], reply_next: bool) -> str:
    messages = [{"role": m.role, "content": content} for m, content in zip(chat, contents, strict=True)]
    text: str = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=reply_next)
    return text
