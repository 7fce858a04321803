"""Decodes one media file in a process of its own, under limits: `elmd.media` starts it as a script and reads what it sends.

The file is standard input, already open; the one argument is a `Job` as JSON. Before a byte of the file is parsed the
process gives up the right to open anything (files, sockets), to write files, to use more memory or processor time than
the job allows. It sends messages on what was standard output: HEADER (kind, length), then the payload. It imports
nothing of elmd, so that it starts fast.
"""

import json
import math
import os
import signal
import struct
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

if TYPE_CHECKING:
    import numpy as np
    from av import AudioFrame, AudioStream, Packet, VideoFrame, VideoStream
    from av.container import InputContainer
    from numpy.typing import NDArray

HEADER = struct.Struct("<cI")
"""Before every message: its kind (one of the constants below) and the length of what follows."""
INFO = struct.Struct("<ddII???")
"""Duration and frame rate, width and height, whether it has sound, has pictures, is a still image."""
PICTURE = struct.Struct("<dII")
"""Time, width and height; the RGB bytes follow."""
IS_INFO, IS_AUDIO, IS_FRAME, IS_REFUSED, IS_BROKEN, IS_END = b"i", b"a", b"f", b"r", b"b", b"z"
RATE = 16_000
READS = "mp4, mov, webm, mkv, avi, wav, mp3, m4a, ogg, flac, aac, jpg, png, webp"
_UNREADABLE = f"not a recording or picture that elmd reads, or one that is damaged ({READS})"

_CONTAINERS = "mov,matroska,avi,wav,mp3,ogg,flac,aac"
_CODECS = (
    "h264,hevc,libdav1d,av1,vp8,vp9,libvpx,libvpx-vp9,mpeg4,msmpeg4,h263,mjpeg,prores,theora,"
    "aac,mp3,mp3float,opus,libopus,vorbis,flac,alac,ac3,eac3,amrnb,amrwb,libopencore_amrnb,libopencore_amrwb,"
    "adpcm_ms,adpcm_ima_wav,pcm_u8,pcm_s8,pcm_s16le,pcm_s16be,pcm_s24le,pcm_s24be,pcm_s32le,pcm_s32be,"
    "pcm_f32le,pcm_f32be,pcm_f64le,pcm_mulaw,pcm_alaw"
)
_STILLS = {b"\xff\xd8\xff": "JPEG", b"\x89PNG\r\n\x1a\n": "PNG"}
_SLACK = 1e-3  # Matroska rounds times to milliseconds
_GAP = 0.1  # a hole in the sound longer than this is filled with silence; shorter ones are jitter of the clock
_BLOCK = 1 << 16
_WATCH_SECONDS = 0.5


class Refused(Exception):
    """The file is not one to decode; the message says why."""


@dataclass(frozen=True)
class Job:
    """What to do with the file, and within which bounds."""

    what: Literal["info", "audio", "frames"]
    parent: int
    seconds: float
    pixels: int
    streams: int
    memory: int
    cpu_seconds: int
    fps: float = 0.0
    longest: int = 0


class Still:
    """A still image: one picture at time 0, turned upright as its EXIF orientation says, over white where transparent."""

    def __init__(self, file: BinaryIO, form: str, job: Job) -> None:
        from PIL import Image, ImageOps, UnidentifiedImageError

        Image.MAX_IMAGE_PIXELS = None  # the job's own bound is checked below, before anything is decoded
        self._job = job
        try:
            self._image: Image.Image = Image.open(file, formats=[form])
        except UnidentifiedImageError as error:
            raise Refused(_UNREADABLE) from error
        _check_size(*self._image.size, job)
        if job.what == "frames":
            self._image.draft("RGB", (job.longest, job.longest))
        self._image = ImageOps.exif_transpose(self._image)

    def info(self) -> Iterator[tuple[bytes, bytes]]:
        """Send what it is; decodes it, so that a damaged one is refused."""
        self._image.load()
        yield IS_INFO, INFO.pack(0.0, 0.0, *self._image.size, False, True, True)

    def audio(self) -> Iterator[tuple[bytes, bytes]]:
        """Send nothing: it has no sound."""
        return iter(())

    def frames(self) -> Iterator[tuple[bytes, bytes]]:
        """Send the picture."""
        import numpy as np
        from PIL import Image

        image = self._image
        if image.mode.startswith("I"):  # 16 bits a sample, which `convert` would clip rather than scale
            image = Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).clip(0, 255).astype(np.uint8))
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
        image.thumbnail((self._job.longest, self._job.longest))
        if image.mode == "RGBA":
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
        yield IS_FRAME, _picture(0.0, np.asarray(image))


class Recording:
    """A video or sound recording: its first sound stream and its largest video stream; cover art is no video."""

    def __init__(self, file: BinaryIO, job: Job) -> None:
        import av

        options = {
            "format_whitelist": _CONTAINERS,
            "codec_whitelist": _CODECS,
            "protocol_whitelist": "none",
            "max_pixels": str(job.pixels),
        }
        try:
            self._container: InputContainer = av.open(
                file, "r", options=options, buffer_size=1 << 18, metadata_errors="replace"
            )
        except MemoryError:
            raise
        except (av.FFmpegError, ValueError) as error:
            raise Refused(_UNREADABLE) from error
        self._job = job
        self._scaler = av.video.reformatter.VideoReformatter()  # one for all frames: each holds threads and tables
        self._damaged = av.FFmpegError
        self._check()
        self._choose()

    def info(self) -> Iterator[tuple[bytes, bytes]]:
        """Measure the recording by going through all of it; decodes one picture and one stretch of sound.

        What the file says of its own duration is not trusted: browsers write none, cut files a wrong one.
        """
        extents = {stream.index: Extent() for stream in self._streams}
        samples: dict[int, VideoFrame | AudioFrame] = {}
        for stream, packet in self._packets():
            if packet is not None:
                self._measure(extents[stream.index], stream, packet)
            if stream.index not in samples and (decoded := self._decode(stream, packet)):
                samples[stream.index] = decoded[0]
        if not samples:
            raise Refused("nothing of it can be decoded; it is damaged or empty")
        video = self._video if self._video and self._video.index in samples else None
        audio = self._audio is not None and self._audio.index in samples
        width, height = self._upright_size(samples[video.index]) if video else (0, 0)
        duration = max(extents[index].end for index in samples)
        fps = extents[video.index].rate if video else 0.0
        yield IS_INFO, INFO.pack(duration, fps, width, height, audio, video is not None, False)

    def audio(self) -> Iterator[tuple[bytes, bytes]]:
        """Send the sound as mono float32 at RATE, in blocks; holes in it become silence."""
        if self._audio is None:
            return
        track, failed = Track(self._start, self._job.seconds), 0
        for stream, packet in self._packets(self._audio):
            try:
                for frame in stream.decode(packet):
                    track.add(frame, stream.time_base)
            except self._damaged as error:
                failed += _note(error)
            if len(track.block) >= _BLOCK:
                yield IS_AUDIO, track.take()
        track.flush()
        yield IS_AUDIO, track.take()
        if failed and not track.written:
            raise Refused("its sound cannot be decoded; the file is damaged")

    def frames(self) -> Iterator[tuple[bytes, bytes]]:
        """Send what is on the screen at 0, 1 / fps, 2 / fps … seconds."""
        if self._video is None:
            return
        last: tuple[VideoFrame, bytes] | None = None
        for moment, frame in self._sampled(self._shown()):
            if last is None or last[0] is not frame:  # a picture that stays on is converted once
                last = frame, _picture(0.0, self._rgb(frame))
            yield IS_FRAME, PICTURE.pack(moment, *PICTURE.unpack_from(last[1])[1:]) + last[1][PICTURE.size :]
        if last is None and self._failed:
            raise Refused("none of its pictures can be decoded; the file is damaged")

    def _check(self) -> None:
        streams, seconds = len(self._container.streams), (self._container.duration or 0) / 1e6
        if streams > self._job.streams:
            raise Refused(f"has {streams} streams; at most {self._job.streams} are read")
        if seconds > self._job.seconds:
            raise _too_long(self._job.seconds)

    def _choose(self) -> None:
        from av.stream import Disposition

        real = [s for s in self._container.streams if not s.disposition & Disposition.attached_pic]
        kinds: list[Any] = [s for s in real if s.type in ("audio", "video")]
        known = [s for s in kinds if s.codec_context is not None and s.codec_context.name in _CODECS.split(",")]
        videos, sounds = ([s for s in known if s.type == kind] for kind in ("video", "audio"))
        self._video: VideoStream | None = max(videos, key=lambda s: (s.width or 0) * (s.height or 0), default=None)
        self._audio: AudioStream | None = max(sounds, key=lambda s: s.disposition & Disposition.default, default=None)
        self._streams = [s for s in (self._video, self._audio) if s is not None]
        self._failed = 0
        if not self._streams:
            raise Refused(_nothing_to_read(kinds))
        if self._video:
            _check_size(self._video.width or 0, self._video.height or 0, self._job)
            self._video.codec_context.options = {"max_pixels": str(self._job.pixels)}
            self._video.thread_type = "AUTO"
            self._video.codec_context.thread_count = min(4, os.cpu_count() or 1)
        starts = [s.start_time * s.time_base for s in self._streams if s.start_time is not None and s.time_base]
        self._start = float(min(starts, default=0))

    def _packets(self, *wanted: Any) -> Iterator[tuple[Any, "Packet[Any] | None"]]:
        """Yield the packets until the end or the first damage that cannot be passed over, then None a stream to flush it."""
        streams = wanted or tuple(self._streams)
        try:
            for packet in self._container.demux(*streams):
                if packet.size:
                    yield packet.stream, packet
        except self._damaged as error:
            _note(error)
        for stream in streams:
            yield stream, None

    def _decode(self, stream: Any, packet: "Packet[Any] | None") -> list[Any]:
        try:
            return list(stream.decode(packet))
        except self._damaged as error:
            self._failed += _note(error)
            return []

    def _measure(self, extent: "Extent", stream: Any, packet: "Packet[Any]") -> None:
        ticks = packet.pts if packet.pts is not None else packet.dts
        begin = extent.end if ticks is None else float(ticks * stream.time_base) - self._start
        extent.add(begin, float((packet.duration or 0) * stream.time_base))
        if extent.end > self._job.seconds:
            raise _too_long(self._job.seconds)

    def _shown(self) -> Iterator[tuple[float, float, "VideoFrame"]]:
        """Yield (when, how long, picture), in order; a missing time follows from the one before."""
        video = self._video
        assert video is not None and video.time_base is not None
        usual = 1 / float(video.average_rate or video.guessed_rate or 25)
        usual, following = min(max(usual, _SLACK), 1.0), 0.0
        for stream, packet in self._packets(video):
            for frame in self._decode(stream, packet):
                ticks = frame.pts if frame.pts is not None else frame.dts
                begin = following if ticks is None else max(float(ticks * video.time_base) - self._start, 0.0)
                lasts = float((frame.duration or 0) * video.time_base)
                following = begin + (lasts if lasts > _SLACK else usual)
                if begin > self._job.seconds:
                    raise _too_long(self._job.seconds)
                yield begin, following, frame

    def _sampled(self, shown: Iterator[tuple[float, float, "VideoFrame"]]) -> Iterator[tuple[float, "VideoFrame"]]:
        """Yield (k / fps, the picture on the screen then)."""
        fps, k = self._job.fps, 0
        current, until = None, 0.0
        for begin, end, frame in shown:
            if current is None:
                k = math.floor((begin + _SLACK) * fps)
            while current is not None and k / fps + _SLACK < begin:
                yield k / fps, current
                k += 1
            current, until = frame, min(max(end, until), self._job.seconds + 1 / fps)
        while current is not None and k / fps + _SLACK < until:
            yield k / fps, current
            k += 1

    def _rgb(self, frame: "VideoFrame") -> "NDArray[np.uint8]":
        """Return the picture as it is to be looked at: square pixels, upright, no side longer than asked for."""
        import numpy as np

        width, height = self._square_size(frame)
        shrink = min(1.0, self._job.longest / max(width, height))
        size = max(1, round(width * shrink)), max(1, round(height * shrink))
        scaled = self._scaler.reformat(frame, *size, "rgb24", interpolation="AREA", threads=1)
        swap, mirror, flip = _orientation(frame)
        picture = scaled.to_ndarray().swapaxes(0, 1) if swap else scaled.to_ndarray()
        return np.ascontiguousarray(picture[:: -1 if flip else 1, :: -1 if mirror else 1])

    def _square_size(self, frame: Any) -> tuple[int, int]:
        aspect = (self._video.sample_aspect_ratio if self._video else None) or 1
        return (round(frame.width * aspect), frame.height) if 0.25 <= aspect <= 4 else (frame.width, frame.height)

    def _upright_size(self, frame: Any) -> tuple[int, int]:
        width, height = self._square_size(frame)
        return (height, width) if _orientation(frame)[0] else (width, height)


class Extent:
    """From when to when the packets of a stream reach, in seconds."""

    def __init__(self) -> None:
        self.end, self._first, self._last, self._count, self._long = 0.0, math.inf, -math.inf, 0, False

    def add(self, begin: float, lasts: float) -> None:
        """Count one packet in. The last one may not say how long it lasts: it is taken to last as long as the others."""
        self._count += 1
        self._first, self._last = min(self._first, begin), max(self._last, begin)
        self.end = max(self.end, begin + (lasts or (1 / self.rate if self.rate else 0.0)))

    @property
    def rate(self) -> float:
        """Packets a second."""
        return (self._count - 1) / (self._last - self._first) if self._last > self._first else 0.0


class Track:
    """Sound as it comes in, on one clock that starts at `start`: mono, RATE samples a second."""

    def __init__(self, start: float, seconds: float) -> None:
        self._seconds, self._start = seconds, start
        self._resampler: Any = None
        self._fed = 0.0  # until when sound came in
        self.block = bytearray()
        self.written = 0
        self._form: tuple[Any, ...] | None = None

    def add(self, frame: "AudioFrame", time_base: Any) -> None:
        """Append one decoded frame at its time."""
        if not 1000 <= frame.sample_rate <= 768_000:
            raise Refused(f"its sound has {frame.sample_rate} samples a second; 1000 to 768000 are read")
        self._fill(None if frame.pts is None else float(frame.pts * time_base) - self._start)
        frame = _named_channels(frame)
        form = (frame.format.name, frame.layout.name, frame.sample_rate)
        if form != self._form:
            self.flush()
            self._form = form
        self._resample(frame)
        self._fed += frame.samples / frame.sample_rate
        if self._fed > self._seconds + 1:
            raise _too_long(self._seconds)

    def flush(self) -> None:
        """Write what the resampler still holds."""
        if self._resampler is not None:
            self._write(self._resampler.resample(None))
        self._resampler = None

    def take(self) -> bytes:
        """Return and forget what has been written since the last time."""
        block, self.block = bytes(self.block), bytearray()
        return block

    def _fill(self, begin: float | None) -> None:
        """Bring the sound up to `begin` with silence; where the clock jumps back, the sound just goes on."""
        if begin is None:
            return
        if begin > self._seconds + 1:
            raise _too_long(self._seconds)
        if begin > self._fed + _GAP:
            self.flush()
            silence = round(begin * RATE) - self.written
            self.block += bytes(4 * max(silence, 0))
            self.written += max(silence, 0)
            self._fed = begin

    def _resample(self, frame: "AudioFrame") -> None:
        from av import AudioResampler

        if self._resampler is None:
            unity = {"rematrix_maxval": "1.0"}  # else two equal channels come out louder than each was
            self._resampler = AudioResampler(format="flt", layout="mono", rate=RATE, options=unity)
        frame.pts = None  # the clock is kept here
        self._write(self._resampler.resample(frame))

    def _write(self, frames: "list[AudioFrame]") -> None:
        import numpy as np

        for frame in frames:
            sound = np.nan_to_num(frame.to_ndarray()[0], nan=0.0, posinf=1.0, neginf=-1.0).clip(-1, 1)
            self.block += sound.astype("<f4").tobytes()
            self.written += len(sound)


def _named_channels(frame: "AudioFrame") -> "AudioFrame":
    """Return the frame; where nothing says which channel is where, their mean."""
    import numpy as np
    from av import AudioFrame

    if not frame.layout.name.endswith("channels"):
        return frame
    count = frame.layout.nb_channels
    sound = frame.to_ndarray() if frame.format.is_planar else frame.to_ndarray().reshape(-1, count).T
    middle, scale = {"u1": (128, 128), "i2": (0, 1 << 15), "i4": (0, 1 << 31)}.get(sound.dtype.str[1:], (0, 1))
    mono = ((sound.astype(np.float32) - middle) / scale).mean(axis=0, dtype=np.float32, keepdims=True)
    mixed = AudioFrame.from_ndarray(mono, format="flt", layout="mono")
    mixed.sample_rate = frame.sample_rate
    return mixed


def _orientation(frame: "VideoFrame") -> tuple[bool, bool, bool]:
    """How the display matrix turns the picture: whether to swap the axes, then mirror it left-right, flip it top-bottom.

    The matrix maps (x, y) to (a x + c y, b x + d y); phones write multiples of 90 degrees, others are rounded to them.
    """
    entries: Iterator[Any] = iter(frame.side_data)  # its stub says names, it gives entries
    matrix = next((bytes(entry) for entry in entries if entry.type.name == "DISPLAYMATRIX"), b"")
    if len(matrix) < 36:
        return False, False, False
    a, b, _, c, d = struct.unpack_from("=5i", matrix)
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return False, a < 0, d < 0
    return True, c < 0, b < 0


def _picture(moment: float, rgb: "NDArray[np.uint8]") -> bytes:
    return PICTURE.pack(moment, rgb.shape[1], rgb.shape[0]) + rgb.tobytes()


def _check_size(width: int, height: int, job: Job) -> None:
    if width * height > job.pixels:
        raise Refused(f"its pictures are {width} x {height} pixels; at most {job.pixels:,} pixels are read")


def _too_long(seconds: float) -> Refused:
    return Refused(f"is longer than {seconds:g} s; cut it, or raise the limit")


def _nothing_to_read(streams: list[Any]) -> str:
    names = ", ".join(sorted({s.codec_context.name if s.codec_context else "an unknown one" for s in streams}))
    return f"its codec is not read ({names}); convert it to H.264 and AAC" if names else "holds neither sound nor video"


def _note(error: Exception) -> int:
    """Count a damaged packet; being out of memory is no damage."""
    if isinstance(error, MemoryError):
        raise error
    return 1


def _form_of(start: bytes) -> str | None:
    """The still format that a file's first bytes announce."""
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return "WEBP"
    return next((form for magic, form in _STILLS.items() if start.startswith(magic)), None)


def _webp_size(start: bytes) -> tuple[int, int]:
    """Width and height that a WebP header claims: Pillow would make room for them before it says how large they are."""
    kind, word = start[12:16], int.from_bytes(start[21:25], "little")
    if kind == b"VP8X":
        return 1 + int.from_bytes(start[24:27], "little"), 1 + int.from_bytes(start[27:30], "little")
    if kind == b"VP8L":
        return 1 + (word & 0x3FFF), 1 + (word >> 14 & 0x3FFF)
    return int.from_bytes(start[26:28], "little") & 0x3FFF, int.from_bytes(start[28:30], "little") & 0x3FFF


def _import(form: str | None) -> None:
    """Load every library that decoding may need: afterwards nothing can be opened any more."""
    import numpy  # noqa: F401, ICN001

    if form is None:
        import av  # noqa: F401
        import av.subtitles.codeccontext
        import av.subtitles.stream  # noqa: F401
    else:
        from PIL import (  # noqa: F401
            Image,
            ImageOps,
            JpegImagePlugin,
            MpoImagePlugin,
            PngImagePlugin,
            TiffImagePlugin,
            WebPImagePlugin,
        )

        Image.preinit()


def _confine(job: Job) -> None:
    """Give up what decoding does not need; the kernel holds the rest of this process to it."""
    import resource

    bounds = {
        resource.RLIMIT_CPU: job.cpu_seconds,
        resource.RLIMIT_AS: job.memory,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NOFILE: 0,
    }
    for what, most in bounds.items():
        hard = resource.getrlimit(what)[1]
        allowed = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (allowed, allowed + 1 if what == resource.RLIMIT_CPU and hard != allowed else allowed))


def _end_with(parent: int) -> None:
    """End this process when its parent is gone, however that ended."""
    while os.getppid() == parent:
        time.sleep(_WATCH_SECONDS)
    os._exit(0)


def _messages(job: Job) -> Iterator[tuple[bytes, bytes]]:
    start = os.pread(0, 32, 0)
    form = _form_of(start)
    _import(form)
    _confine(job)
    with open(0, "rb", buffering=0, closefd=False) as file:
        if form == "WEBP":
            _check_size(*_webp_size(start), job)
        reader: Still | Recording = Still(file, form, job) if form else Recording(file, job)  # type: ignore[arg-type]
        yield from {"info": reader.info, "audio": reader.audio, "frames": reader.frames}[job.what]()


def _guarded(job: Job) -> Iterator[tuple[bytes, bytes]]:
    """Yield the messages; what goes wrong becomes the last one."""
    try:
        yield from chain(_messages(job), [(IS_END, b"")])
    except Refused as error:
        yield IS_REFUSED, str(error).encode()
    except MemoryError:
        yield IS_REFUSED, b"needs more than %d MiB of memory to decode" % (job.memory >> 20)
    except ImportError as error:
        yield IS_BROKEN, f"a library is missing or broken ({error})".encode()
    except Exception as error:  # decoders raise many kinds; all of them mean that the file is bad
        yield IS_REFUSED, f"cannot be decoded; it is damaged ({type(error).__name__}: {error})".encode()


def main() -> None:
    """Do the job on standard input and send the messages."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group; the parent decides
    job = Job(**json.loads(sys.argv[1]))
    out = open(os.dup(1), "wb")  # noqa: SIM115 - open until the process ends
    os.dup2(2, 1)  # whatever a library prints must not get between the messages
    threading.Thread(target=_end_with, args=(job.parent,), daemon=True).start()
    try:
        for kind, payload in _guarded(job):
            out.write(HEADER.pack(kind, len(payload)) + payload)
            out.flush()
    except BrokenPipeError:
        pass
    os._exit(0)  # decoders' own threads and exit handlers have nothing left to do


if __name__ == "__main__":
    main()
