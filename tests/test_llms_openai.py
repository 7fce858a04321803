"""The openai backend against real servers on the loopback: one that misbehaves on demand, and `transformers serve`."""

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from urllib.request import urlopen

import pytest

from elmd.errors import BackendError
from elmd.llms import openai
from elmd.types import Completion, Message, Sampling

pytestmark = pytest.mark.timeout(60)

KEY = "sk-very-secret-0123456789"
CHAT = (Message("system", "be kind"), Message("user", "你好"))
PIECES = ("  你", "好，", "I ", "am here.", "\n")
TEXT = "你好，I am here."


@dataclass
class World:
    """What the server is to do wrong, and what it saw."""

    mode: str = ""
    calls: int = 0
    busy: int = 0
    most_busy: int = 0
    bodies: list[dict] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    sent: int = 0
    hung_up: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    world: World

    def log_message(self, *_):
        pass

    def do_POST(self):  # noqa: N802
        world = self.world
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with world.lock:
            world.calls += 1
            call = world.calls
            world.bodies.append(body)
            world.keys.append(self.headers.get("Authorization", ""))
            world.busy += 1
            world.most_busy = max(world.most_busy, world.busy)
        try:
            self.answer(world.mode, call, body)
        except OSError:
            world.hung_up.set()
        finally:
            with world.lock:
                world.busy -= 1

    def answer(self, mode, call, body):
        if mode == "500 twice" and call <= 2:
            return self.error(500, "cuda went away")
        if mode == "429 once" and call == 1:
            return self.error(429, "slow down", {"Retry-After": "1"})
        if mode in ("400", "401", "403", "404", "429", "503"):
            return self.error(int(mode), f"no: Bearer {KEY}\nand more")
        if mode == "slow" or (mode == "slow once" and call == 1):
            time.sleep(1.0)
        if mode == "not json":
            return self.send(200, b"<html>hello</html>", {"Content-Type": "text/html"})
        if mode == "other json":
            return self.send(200, b'{"ok": true}')
        return self.events(mode) if body.get("stream") else self.whole(body)

    def error(self, status, message, headers=None):
        self.send(status, json.dumps({"error": {"message": message}}).encode(), headers or {})

    def send(self, status, content, headers=None):
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def whole(self, body):
        said = body["messages"][-1]["content"]
        time.sleep(0.05 if said.isdigit() else 0)
        text = f"{said}!" if said.isdigit() else "".join(PIECES)
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
        if body["max_tokens"] == 3:
            choice["finish_reason"] = "length"
        usage = {"prompt_tokens": 11, "completion_tokens": 5, "total_tokens": 16}
        answer = {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}
        self.send(200, json.dumps({**answer, "usage": usage}).encode())

    def events(self, mode):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.chunk(self.event({"role": "assistant"}))
        endless = mode == "endless"
        for n, piece in enumerate(PIECES * (200 if endless else 1)):
            if mode == "dies" and n == 2:
                self.close_connection = True
                return self.connection.shutdown(socket.SHUT_RDWR)
            if mode == "error inside" and n == 2:
                return self.chunk(b'data: {"error": {"message": "out of memory"}}\n\n', last=True)
            if mode == "junk inside" and n == 2:
                return self.chunk(b"data: {junk\n\n", last=True)
            self.chunk(self.event({"content": piece}))
            self.world.sent += 1
            time.sleep(0.01 if endless else 0)
        if mode == "no end":
            return self.chunk(b"", last=True)
        self.chunk(self.event({}, "stop"))
        return self.chunk(b"data: [DONE]\n\n", last=True)

    def event(self, delta, finish=None):
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        event = {"id": "1", "object": "chat.completion.chunk", "created": 0, "model": "m", "choices": [choice]}
        return f"data: {json.dumps(event)}\n\n".encode()

    def chunk(self, data, last=False):
        if data:
            self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        if last:
            self.wfile.write(b"0\r\n\r\n")
        self.wfile.flush()


class Quiet(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_):
        """A client that hangs up is what some tests are about."""


@pytest.fixture
def world(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    # A proxy of the environment must not get between us and this machine.
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    seen = World()
    server = Quiet(("127.0.0.1", 0), type("Server", (Handler,), {"world": seen}))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    seen.url = f"http://127.0.0.1:{server.server_port}/v1"
    yield seen
    server.shutdown()
    server.server_close()
    thread.join(5)


def backend(world, **more):
    settings = {"base_url": world.url, "model": "m", "retries": 0, "timeout": 10.0, **more}
    return openai.Backend(openai.Config(**settings))


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def check_message(error) -> str:
    text = str(error.value)
    assert "\n" not in text
    assert KEY not in text
    return text


def test_generate_keeps_order_and_bounds_concurrency(world):
    chats = [(Message("user", str(n)),) for n in range(20)]
    done = backend(world, concurrency=4).generate(chats, Sampling())
    assert [c.text for c in done] == [f"{n}!" for n in range(20)]
    assert done[0] == Completion("0!", "stop", 11, 5)
    assert 1 < world.most_busy <= 4
    assert backend(world).generate([], Sampling()) == []


def test_what_is_sent(world):
    one = backend(world)
    assert one.generate([CHAT], Sampling(max_tokens=3))[0] == Completion(TEXT, "length", 11, 5)
    one.generate([CHAT], Sampling(temperature=0.7, top_p=0.8, seed=4, stop=("\n",), repetition_penalty=1.3))
    backend(world, extra_sampling=True).generate([CHAT], Sampling(repetition_penalty=1.3))
    messages = [{"role": "system", "content": "be kind"}, {"role": "user", "content": "你好"}]
    assert world.bodies[0] == {"model": "m", "messages": messages, "max_tokens": 3, "temperature": 0.0, "seed": 0}
    extra = {"temperature": 0.7, "top_p": 0.8, "seed": 4, "stop": ["\n"]}
    assert world.bodies[1] == {**world.bodies[0], "max_tokens": 96, **extra}
    assert world.bodies[2]["repetition_penalty"] == 1.3
    assert set(world.keys) == {f"Bearer {KEY}"}


def test_the_key_comes_from_the_environment_alone(world, monkeypatch):
    monkeypatch.setenv("MY_KEY", " other\n")
    backend(world, api_key_env="MY_KEY").generate([CHAT], Sampling())
    monkeypatch.delenv("OPENAI_API_KEY")
    backend(world).generate([CHAT], Sampling())
    assert world.keys == ["Bearer other", "Bearer none"]
    assert not [name for name in openai.Config.model_fields if name in ("key", "api_key")]


def test_stream_is_generate(world):
    one = backend(world)
    pieces = list(one.stream(CHAT, Sampling()))
    assert "".join(pieces) == one.generate([CHAT], Sampling())[0].text == TEXT
    assert len(pieces) > 2
    assert world.bodies[0]["stream"] is True
    assert "".join(one.stream(CHAT, Sampling(stop=("am",)))) == "你好，I"


def test_cancel_closes_the_connection(world):
    world.mode = "endless"
    cancel = threading.Event()
    stream = backend(world).stream(CHAT, Sampling(), cancel)
    assert next(stream)
    cancel.set()
    assert list(stream) == []
    assert world.hung_up.wait(5)
    assert world.sent < 500
    cancelled = backend(world).stream(CHAT, Sampling(), cancel)
    assert list(cancelled) == []
    assert world.calls == 1


def test_closing_the_iterator_closes_the_connection(world):
    world.mode = "endless"
    stream = backend(world).stream(CHAT, Sampling())
    next(stream)
    stream.close()
    assert world.hung_up.wait(5)


@pytest.mark.parametrize(("mode", "calls", "seconds"), [("500 twice", 3, 0), ("429 once", 2, 1), ("slow once", 2, 0)])
def test_passing_faults_are_retried(world, mode, calls, seconds):
    world.mode = mode
    began = time.monotonic()
    assert backend(world, retries=2, timeout=0.5).generate([CHAT], Sampling())[0].text == TEXT
    assert world.calls == calls
    assert time.monotonic() - began >= seconds


@pytest.mark.parametrize(
    ("mode", "says"),
    [
        ("400", "answered 400 .*change the request"),
        ("401", "OPENAI_API_KEY"),
        ("403", "OPENAI_API_KEY"),
        ("404", "no model 'm': see .*/v1/models"),
        ("429", "lower concurrency"),
        ("503", "answered 503 .*log"),
        ("slow", "silent for 0.5 s"),
        ("not json", "check that base_url"),
        ("other json", "check that base_url"),
    ],
)
def test_faults_become_one_line(world, mode, says):
    world.mode = mode
    one = backend(world, timeout=0.5)
    for act in (lambda: one.generate([CHAT], Sampling()), lambda: list(one.stream(CHAT, Sampling()))):
        with pytest.raises(BackendError, match=says) as error:
            act()
        check_message(error)
        # A traceback must not show the client's own error, which can quote the key.
        assert error.value.__suppress_context__ or error.value.__context__ is None


@pytest.mark.parametrize(
    ("mode", "says"),
    [
        ("dies", "middle of a reply"),
        ("no end", "middle of a reply"),
        ("error inside", "out of memory"),
        ("junk inside", "no chat completion"),
    ],
)
def test_a_stream_that_breaks_off_is_an_error(world, mode, says):
    world.mode = mode
    pieces = []
    with pytest.raises(BackendError, match=says) as error:
        for piece in backend(world, retries=3).stream(CHAT, Sampling()):
            pieces.append(piece)
    assert pieces
    assert TEXT.startswith("".join(pieces))
    assert world.calls == 1
    check_message(error)


def test_no_server_at_all(world):
    world.url = f"http://user:word@127.0.0.1:{free_port()}/v1"
    for act in (lambda b: b.generate([CHAT] * 3, Sampling()), lambda b: list(b.stream(CHAT, Sampling()))):
        with pytest.raises(BackendError, match="cannot reach http://127.*start the server") as error:
            act(backend(world))
        assert "word" not in check_message(error)


def test_token_estimate():
    one = openai.Backend(openai.Config())
    assert one.count_tokens(()) == 0
    assert one.count_tokens((Message("user", "你好。"),)) == 3 + 4
    assert one.count_tokens((Message("user", "hello you"), Message("user", "你 ok"))) == 1 + 4 + 8
    assert one.name == "openai:Qwen/Qwen2.5-0.5B-Instruct"


# A real server


@pytest.fixture
def transformers_serve(tmp_path):
    """A running `transformers serve`: its address and the folder of the taught model."""
    if any(find_spec(name) is None for name in ("fastapi", "uvicorn", "transformers")):
        pytest.skip("transformers[serving] is not installed")
    import torch
    from test_llms import make_taught

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    make_taught(tmp_path / "taught")
    torch.set_num_threads(threads)
    port, log = free_port(), tmp_path / "serve.log"
    offline = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_UPDATE_CHECK": "1", "HF_HOME": str(tmp_path / "hf")}
    script = shutil.which("transformers", path=str(Path(sys.executable).parent))
    command = [script] if script else [sys.executable, "-m", "transformers.cli.transformers"]
    with log.open("wb") as out:
        server = subprocess.Popen(
            [*command, "serve", "--host", "127.0.0.1", "--port", str(port), "--device", "cpu"],
            env={**os.environ, **offline, "OMP_NUM_THREADS": "1"}, stdout=out, stderr=out,
        )  # fmt: skip
    try:
        wait_for(f"http://127.0.0.1:{port}/health", server, log)
        yield f"http://127.0.0.1:{port}/v1", tmp_path / "taught"
    finally:
        server.terminate()
        try:
            server.wait(5)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def wait_for(url: str, server: subprocess.Popen, log: Path) -> None:
    for _ in range(400):
        if server.poll() is not None:
            pytest.fail(f"transformers serve ended: {log.read_text()[-2000:]}")
        try:
            with urlopen(url, timeout=1):
                return
        except OSError:
            time.sleep(0.1)
    pytest.fail(f"transformers serve did not start: {log.read_text()[-2000:]}")


def test_transformers_serve(transformers_serve):
    from test_llms import CHATS, TAUGHT

    url, folder = transformers_serve
    one = openai.Backend(openai.Config(base_url=url, model=str(folder), retries=0, timeout=30.0))
    sampling = Sampling(max_tokens=100)
    done = one.generate([CHATS[0]] * 2, sampling)
    assert done[0] == done[1]
    assert (done[0].text, done[0].finish) == (TAUGHT, "stop")
    assert 10 < done[0].tokens < 100
    assert done[0].prompt_tokens > 10
    pieces = list(one.stream(CHATS[0], sampling))
    assert "".join(pieces) == TAUGHT
    assert len(pieces) > 3
    assert one.generate([CHATS[0]], Sampling(max_tokens=5))[0].finish == "length"
    assert one.generate([CHATS[0]], Sampling(max_tokens=100, stop=("，",)))[0].text == TAUGHT.split("，")[0]
    with pytest.raises(BackendError):
        openai.Backend(openai.Config(base_url=url, model=str(folder / "none"), retries=0)).generate(
            [CHATS[0]], sampling
        )
