"""Any server that speaks the OpenAI chat API: vLLM, `elmd serve`, `transformers serve`, llama.cpp, OpenAI.

Temperature, top_p, seed, max_tokens and stop are sent as the API has them. Its chat API knows no repetition penalty:
with `extra_sampling` it goes along as an extra field, which vLLM and llama.cpp take and others refuse.
Control tokens inside messages are the server's to defuse: elmd sends messages, not a rendered prompt.
"""

import math
import os
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pydantic import Field

from elmd.config import Strict
from elmd.errors import BackendError
from elmd.llms._base import Pieces, finished, stopped
from elmd.types import Chat, Completion, Sampling

if TYPE_CHECKING:
    from openai import OpenAI

NO_KEY = "none"
_CJK = re.compile(r"[\u3000-\u30ff\u3400-\u9fff\uf900-\ufaff\uff00-\uffef]")


class Config(Strict):
    """Where the server is and what to ask it for.

    Attributes:
        base_url: Address of the API, with its version.
        model: The model's name on the server (for vLLM also the name of a LoRA adapter).
        api_key_env: Environment variable that holds the key; the key itself never stands in a configuration.
        timeout: Seconds that the server may be silent.
        retries: How often a request is sent again after a lost connection, a timeout, 429 or 5xx.
        concurrency: Requests under way at once in `generate`.
        extra_sampling: Whether to send the repetition penalty, which is no part of the API.
    """

    base_url: str = "http://127.0.0.1:8000/v1"
    model: str = "Qwen/Qwen2.5-0.5B-Instruct"
    api_key_env: str = "OPENAI_API_KEY"
    timeout: float = Field(60.0, gt=0)
    retries: int = Field(3, ge=0)
    concurrency: int = Field(8, gt=0)
    extra_sampling: bool = False


class Backend:
    """A client of one model on one server; nothing is sent before the first chat."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._key = os.environ.get(config.api_key_env, "").strip() or NO_KEY
        self._client = self._connect()

    @property
    def name(self) -> str:
        """Such as "openai:Qwen/Qwen2.5-0.5B-Instruct"."""
        return f"openai:{self._config.model}"

    def generate(self, chats: Sequence[Chat], sampling: Sampling) -> list[Completion]:
        """Answer every chat, `concurrency` at a time; the first error ends the batch."""
        if not chats:
            return []
        with ThreadPoolExecutor(min(self._config.concurrency, len(chats))) as pool:
            return list(pool.map(lambda chat: self._complete(chat, sampling), chats))

    def stream(self, chat: Chat, sampling: Sampling, cancel: Event | None = None) -> Iterator[str]:
        """Yield the answer as the server sends it; cancelling or closing the iterator closes the connection.

        A stream that breaks off raises BackendError and is not asked for again, as part of it may have been shown.
        """
        if cancel is not None and cancel.is_set():
            return
        text, pieces = "", Pieces(sampling.stop)
        for delta in self._deltas(chat, sampling):
            if cancel is not None and cancel.is_set():
                return
            text += delta
            if piece := pieces.more(text):
                yield piece
            if stopped(text, sampling.stop):
                break
        if piece := pieces.last(text):
            yield piece

    def count_tokens(self, chat: Chat) -> int:
        """Estimate the tokens: 1 a Chinese or Japanese character, 1 for 3.5 others, and 4 a message."""
        wide = sum(len(_CJK.findall(message.content)) for message in chat)
        other = sum(len(message.content) for message in chat) - wide
        return math.ceil(wide + other / 3.5) + 4 * len(chat)

    def _connect(self) -> "OpenAI":
        from openai import DefaultHttpxClient, OpenAI

        # A proxy meant for the outside cannot reach a server on this machine.
        local = urlsplit(self._config.base_url).hostname in {"127.0.0.1", "::1", "localhost"}
        return OpenAI(
            base_url=self._config.base_url,
            api_key=self._key,
            timeout=self._config.timeout,
            max_retries=self._config.retries,
            http_client=DefaultHttpxClient(trust_env=False) if local else None,
        )

    def _request(self, chat: Chat, sampling: Sampling) -> dict[str, Any]:
        request: dict[str, Any] = {
            "model": self._config.model,
            "messages": [{"role": message.role, "content": message.content} for message in chat],
            "max_tokens": sampling.max_tokens,
            "temperature": sampling.temperature,
            "seed": sampling.seed,
        }
        if sampling.temperature > 0:
            request["top_p"] = sampling.top_p
        if sampling.stop:
            request["stop"] = list(sampling.stop)
        if self._config.extra_sampling:
            request["extra_body"] = {"repetition_penalty": sampling.repetition_penalty}
        return request

    def _complete(self, chat: Chat, sampling: Sampling) -> Completion:
        from openai import OpenAIError

        try:
            answer = self._client.chat.completions.create(**self._request(chat, sampling))
        except (OpenAIError, ValueError) as error:
            raise self._explain(error) from None
        # The client builds its objects unchecked, so any JSON, or none, may have come.
        if not getattr(answer, "choices", None):
            raise self._unreadable()
        choice, usage = answer.choices[0], answer.usage
        text = finished(choice.message.content or "", sampling.stop)
        return Completion(
            text,
            "length" if choice.finish_reason == "length" else "stop",
            usage.prompt_tokens if usage else 0,
            usage.completion_tokens if usage else 0,
        )

    def _deltas(self, chat: Chat, sampling: Sampling) -> Iterator[str]:
        from openai import OpenAIError

        begun = ended = False
        try:
            with self._client.chat.completions.create(**self._request(chat, sampling), stream=True) as events:
                for event in events:
                    begun = True
                    for choice in event.choices or []:
                        ended = ended or choice.finish_reason is not None
                        yield choice.delta.content or ""
        except (OpenAIError, ValueError) as error:
            raise self._explain(error, begun) from None
        if not begun:
            raise self._unreadable()
        if not ended:
            raise self._broken()

    def _explain(self, error: Exception, begun: bool = False) -> BackendError:
        # Said in our own words and raised "from None": the client's errors may quote the request with its key.
        import openai

        at, config = self._at(), self._config
        if isinstance(error, openai.APITimeoutError):
            return BackendError(f"{at} was silent for {config.timeout:g} s: raise timeout or look at the server's load")
        if isinstance(error, openai.APIConnectionError):
            return self._broken() if begun else BackendError(f"cannot reach {at}: start the server or set base_url")
        if isinstance(error, openai.AuthenticationError | openai.PermissionDeniedError):
            return BackendError(f"{at} refused the key: put a valid one into the environment as {config.api_key_env}")
        if isinstance(error, openai.NotFoundError):
            return BackendError(f"{at} has no model {config.model!r}: see {at}/models for the names it serves")
        if isinstance(error, openai.RateLimitError):
            return BackendError(f"{at} is too busy (429): lower concurrency or try again later")
        if isinstance(error, openai.APIStatusError):
            advice = "look at the server's log" if error.status_code >= 500 else "change the request"
            return BackendError(f"{at} answered {error.status_code} ({self._clean(error.message)}): {advice}")
        if isinstance(error, openai.APIError):
            return BackendError(f"{at} broke off ({self._clean(error.message)}): look at the server's log")
        return self._unreadable()

    def _broken(self) -> BackendError:
        return BackendError(f"{self._at()} broke off in the middle of a reply: ask again or look at the server's log")

    def _unreadable(self) -> BackendError:
        return BackendError(f"{self._at()} answered no chat completion: check that base_url ends where the API begins")

    def _clean(self, message: str) -> str:
        line = " ".join(message.split())
        return (line if self._key == NO_KEY else line.replace(self._key, "***"))[:200]

    def _at(self) -> str:
        return re.sub(r"//[^/@]*@", "//", self._config.base_url.rstrip("/"))
