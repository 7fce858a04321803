"""Recordings and pictures: a clip's sound, frames and facts, decoded in a child process under limits.

Whatever a stranger's file does to a decoder happens in a process that can open nothing, write nothing, and has bounded
memory and time (see `elmd._media_child`). What is read is decided by content, never by the file's name.
"""

import json
import math
import os
import selectors
import stat
import subprocess
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from hashlib import file_digest
from io import BufferedReader
from pathlib import Path
from typing import IO, TYPE_CHECKING, BinaryIO, Literal, NoReturn

from pydantic import PositiveFloat, PositiveInt

from elmd import _media_child as child
from elmd.config import Strict
from elmd.errors import BadData, ElmdError, UsageError

if TYPE_CHECKING:
    import numpy as np

RATE = child.RATE
"""Samples a second of `Clip.audio`."""
MOST_FPS = 240.0
_PIPE_BYTES = 1 << 20
_PATIENCE = 4.0  # how many times its processor time a decoder may go without sending anything, on a busy machine
_MOST_TEXT = 1 << 12
_FAILED = "the decoder failed on it; it is damaged"
_KEPT = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")


class Limits(Strict):
    """How much of a file is read before it is refused.

    Attributes:
        bytes: Size of the file.
        seconds: Duration of the recording.
        pixels: Width times height of a picture, checked before one is decoded.
        streams: Sound, video, subtitle and other streams together.
        memory: Address space of the decoding process, in bytes; its libraries take 0.3 GiB of it.
        cpu_seconds: Processor time of one decoding.
    """

    bytes: PositiveInt = 2 << 30
    seconds: PositiveFloat = 1800.0
    pixels: PositiveInt = 50_000_000
    streams: PositiveInt = 16
    memory: PositiveInt = 2 << 30
    cpu_seconds: PositiveInt = 600


@dataclass(frozen=True, slots=True)
class Info:
    """What a file holds.

    Attributes:
        kind: An image is a still picture; a sound recording with cover art is audio.
        duration: Seconds, measured; 0 for an image.
        has_audio, has_video: Whether sound, pictures can be decoded; an image has video.
        width, height: Pixels as shown: upright, with square pixels; 0 without pictures.
        fps: Frames a second on average; 0 for an image and without pictures.
    """

    kind: Literal["video", "audio", "image"]
    duration: float
    has_audio: bool
    has_video: bool
    width: int
    height: int
    fps: float


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """A picture of a clip: `time` in seconds, `rgb` (height, width, 3) uint8, upright."""

    time: float
    rgb: "np.ndarray"


class Clip:
    """A video, sound recording or picture; nothing of it is read before it is asked for.

    Every use raises BadData when the file is missing, not a regular file, over a limit, damaged beyond use, or not one
    of the formats of `elmd._media_child.READS`. Of a file that is cut off, what is there is decoded.

    Args:
        path: The file.
        limits: Bounds on what is read.
    """

    def __init__(self, path: Path | str, limits: Limits | None = None) -> None:
        self.path = Path(path)
        self.limits = limits or Limits()

    def __repr__(self) -> str:
        return f"Clip({str(self.path)!r})"

    @cached_property
    def info(self) -> Info:
        """What the file holds, measured once."""
        with self._decoder("info") as decoder:
            payload = next(decoder.messages(child.IS_INFO, child.INFO.size), b"")
            if len(payload) != child.INFO.size:
                decoder.fail(_FAILED)
        duration, fps, width, height, has_audio, has_video, is_image = child.INFO.unpack(payload)
        kind: Literal["video", "audio", "image"] = "image" if is_image else "video" if has_video else "audio"
        return Info(kind, duration, has_audio, has_video, width, height, fps)

    @cached_property
    def sha256(self) -> str:
        """The hex SHA-256 of the file's bytes, hashed once; names the clip in caches."""
        with self._open() as file:
            return file_digest(file, "sha256").hexdigest()

    def audio(self) -> "np.ndarray":
        """Return the whole sound, (samples,) float32 in [-1, 1], mono, 16 kHz; empty if there is none.

        Sample 0 is time 0 of `frames`; holes in the recording are silence. Decoded once; read-only.
        """
        return self._sound

    def frames(self, fps: float = 4.0, longest: int = 640) -> Generator[Frame, None, None]:
        """Yield what is on the screen at 0, 1 / fps, 2 / fps … seconds, while it is decoded; nothing without pictures.

        The decoder waits for whoever takes the frames, so memory does not grow with the clip; it ends with the
        iterator. A picture that stays on is given again at each moment, one that is shown shorter than 1 / fps may be
        left out. An image gives one frame, at 0.

        Args:
            fps: Frames a second to give.
            longest: The longer side of a frame in pixels at most; smaller pictures are not enlarged.
        """
        if not 0 < fps <= MOST_FPS or longest < 1:
            raise UsageError(f"frames needs 0 < fps <= {MOST_FPS:g} and longest >= 1, not {fps} and {longest}")
        return self._frames(fps, longest)

    def _frames(self, fps: float, longest: int) -> Generator[Frame, None, None]:
        import numpy as np

        head = child.PICTURE.size
        with self._decoder("frames", fps, longest) as decoder:
            for payload in decoder.messages(child.IS_FRAME, head + 3 * min(longest**2, 4 * self.limits.pixels)):
                time, width, height = child.PICTURE.unpack_from(payload.ljust(head, b"\0"))
                if not 0 < 3 * width * height == len(payload) - head:
                    decoder.fail(_FAILED)
                rgb = np.frombuffer(payload, np.uint8, offset=head).reshape(height, width, 3)
                yield Frame(time, rgb)

    @cached_property
    def _sound(self) -> "np.ndarray":
        import numpy as np

        sound, most = bytearray(), math.ceil((self.limits.seconds + 2) * RATE) * 4
        with self._decoder("audio") as decoder:
            for payload in decoder.messages(child.IS_AUDIO, most):
                sound += payload
                if len(sound) > most or len(sound) % 4:
                    decoder.fail(_FAILED)
        array = np.frombuffer(sound, "<f4")
        array.flags.writeable = False
        return array

    @contextmanager
    def _decoder(
        self, what: Literal["info", "audio", "frames"], fps: float = 0.0, longest: int = 0
    ) -> Iterator["_Decoder"]:
        bounds = self.limits.model_dump(exclude={"bytes"})
        job = child.Job(what, os.getpid(), fps=fps, longest=longest, **bounds)
        with self._open() as file:
            decoder = _Decoder(self.path, file, job)
        try:
            yield decoder
        finally:
            decoder.close()

    def _open(self) -> BufferedReader:
        """Open the file if it is a regular one of bounded size; opening a device or a pipe could do things or wait."""
        try:
            if not stat.S_ISREG(self.path.stat().st_mode):
                raise BadData(self.path, None, "is a folder" if self.path.is_dir() else "is not a regular file")
            file = open(self.path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))  # noqa: SIM115
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise BadData(self.path, None, f"cannot be opened ({reason})") from error
        status = os.fstat(file.fileno())
        if stat.S_ISREG(status.st_mode) and 0 < status.st_size <= self.limits.bytes:
            return file
        file.close()
        most = self.limits.bytes / 2**20
        raise BadData(self.path, None, f"is larger than {most:g} MiB" if status.st_size else "is empty")


class _Decoder:
    """A running child process that decodes one file.

    Args:
        path: For messages; the child never sees it.
        file: Handed to the child as its standard input.
        job: What it is to do.
    """

    def __init__(self, path: Path, file: BinaryIO, job: child.Job) -> None:
        self._path, self._job = path, job
        environment = {name: os.environ[name] for name in _KEPT if name in os.environ} | {
            "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry),
            "MALLOC_ARENA_MAX": "2",  # each arena reserves 64 MiB of the bounded address space
            "OPENBLAS_NUM_THREADS": "1",
        }
        command = [sys.executable, "-S", "-P", "-B", str(Path(child.__file__)), json.dumps(asdict(job))]
        try:
            self._process = subprocess.Popen(
                command, stdin=file, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0, env=environment
            )
        except OSError as error:
            raise ElmdError(f"cannot start the decoder: {error.strerror}; free some memory or processes") from error
        assert self._process.stdout is not None
        self._pipe: IO[bytes] = self._process.stdout
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._pipe, selectors.EVENT_READ)
        _widen(self._pipe)

    def messages(self, wanted: bytes, most: int) -> Iterator[bytearray]:
        """Yield the payloads of the `wanted` kind of message, at most `most` bytes each, until the end.

        Raises BadData when the child refuses the file, does not live to the end of it or breaks the protocol.
        """
        while True:
            kind, length = child.HEADER.unpack(self._read(child.HEADER.size))
            if length > (most if kind == wanted else _MOST_TEXT):
                self.fail(_FAILED)
            payload = self._read(length)
            if kind == child.IS_END:
                return
            if kind == child.IS_REFUSED:
                self.fail(_one_line(payload))
            if kind == child.IS_BROKEN:
                raise ElmdError(f"cannot decode media: {_one_line(payload)}; install elmd again")
            if kind != wanted:
                self.fail(_FAILED)
            yield payload

    def fail(self, reason: str) -> NoReturn:
        """Raise BadData about the file."""
        raise BadData(self._path, None, reason)

    def close(self) -> None:
        """End the child and take its remains away."""
        self._selector.close()
        self._process.kill()
        self._pipe.close()
        self._process.wait()

    def _read(self, size: int) -> bytearray:
        buffer = bytearray(size)
        rest = memoryview(buffer)
        while rest:
            patience = self._job.cpu_seconds * _PATIENCE
            if not self._selector.select(patience):
                self.fail(f"the decoder got stuck on it for {patience:g} s")
            count = self._pipe.readinto(rest)  # type: ignore[attr-defined]
            if not count:
                self._mourn()
            rest = rest[count:]
        return buffer

    def _mourn(self) -> NoReturn:
        import signal

        if self._process.wait() == -signal.SIGXCPU:
            self.fail(f"takes more than {self._job.cpu_seconds} s of processor time to decode")
        self.fail("the decoder crashed on it; it is damaged, or needs more memory than there is")


def _widen(pipe: IO[bytes]) -> None:
    """Let a whole frame fit into the pipe where the system can: fewer switches between the two processes."""
    import fcntl

    if hasattr(fcntl, "F_SETPIPE_SZ"):
        with suppress(OSError):
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)


def _one_line(payload: bytearray) -> str:
    text = " ".join(payload.decode("utf-8", "replace").split())
    return "".join(c for c in text if c.isprintable())[:300]
