"""Clips of every kind, synthesised here: what is decoded, what is refused, and what the decoding process leaves behind."""

import io
import math
import os
import signal
import struct
import subprocess
import sys
import textwrap
import time
import zlib
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from conftest import python
from PIL import Image

from elmd import _media_child as child
from elmd import media
from elmd.errors import BadData, ElmdError, UsageError
from elmd.media import Clip, Limits

RED, GREEN, BLUE, WHITE = (220, 30, 30), (30, 200, 30), (30, 30, 220), (235, 235, 235)
CORNERS = [RED, GREEN, BLUE, WHITE]
"""Top left, top right, bottom left, bottom right of the test picture."""
TONE = 440


def picture(width=64, height=48, corners=CORNERS):
    image = np.empty((height, width, 3), np.uint8)
    for k, colour in enumerate(corners):
        rows = slice(None, height // 2) if k < 2 else slice(height // 2, None)
        image[rows, slice(None, width // 2) if k % 2 == 0 else slice(width // 2, None)] = colour
    return image


def corners(rgb):
    """The nearest of the four colours in the middle of each quarter."""
    h, w = rgb.shape[:2]
    found = [rgb[y, x].astype(int) for y in (h // 4, 3 * h // 4) for x in (w // 4, 3 * w // 4)]
    return [min(CORNERS, key=lambda c: np.abs(pixel - c).sum()) for pixel in found]


def grey(level, width=64, height=48):
    return np.full((height, width, 3), level, np.uint8)


def tone(seconds, rate, channels=1, hertz=TONE):
    wave = 0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)
    return np.repeat(wave.astype(np.float32)[None], channels, axis=0)


def pitch(sound):
    """The strongest frequency of 16 kHz sound."""
    return np.abs(np.fft.rfft(sound * np.hanning(len(sound)))).argmax() * 16_000 / len(sound)


def record(
    target,
    shots=(),
    sound=None,
    rate=48_000,
    layout=None,
    video="libx264",
    audio="aac",
    pixels="yuv420p",
    options=None,
    container=None,
    format=None,
    sound_at=0.0,
    prepare=lambda video: None,
):
    """Write a recording: `shots` are (seconds, rgb array) in order, `sound` is (channels, samples) float32."""
    layout = layout or {1: "mono", 2: "stereo", 6: "5.1"}.get(0 if sound is None else len(sound), "mono")
    with av.open(str(target) if isinstance(target, Path) else target, "w", format=format, options=container) as out:
        pictures = speech = None
        if shots:
            pictures = out.add_stream(video, rate=25, options=options or {})
            pictures.height, pictures.width = shots[0][1].shape[:2]
            pictures.pix_fmt, pictures.codec_context.time_base = pixels, Fraction(1, 1000)
            if out.format.name == "avi":
                pictures.codec_context.time_base = Fraction(1, 25)
            prepare(pictures)
        if sound is not None:
            speech = out.add_stream(
                audio, rate=rate, layout=layout, options={"strict": "-2"}
            )  # vorbis is "experimental"
        for packet in sorted(
            [*encoded_shots(pictures, shots), *encoded_sound(speech, sound, rate, layout, sound_at)],
            key=lambda p: float(p.dts * p.time_base) if p.dts is not None else 0,
        ):
            out.mux(packet)
    return target


def encoded_shots(stream, shots):
    for when, rgb in shots:
        frame = av.VideoFrame.from_ndarray(rgb, "rgb24")
        frame.time_base = stream.codec_context.time_base
        frame.pts = round(when / frame.time_base)
        yield from stream.encode(frame)
    if shots:
        yield from stream.encode(None)


def encoded_sound(stream, sound, rate, layout, at):
    if sound is None:
        return
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(sound), "fltp", layout)
    frame.sample_rate, frame.time_base, frame.pts = rate, Fraction(1, rate), round(at * rate)
    stream.codec_context.open()
    shaped = av.AudioResampler(stream.format, layout, rate, stream.frame_size or 1024)
    for part in [*shaped.resample(frame), *shaped.resample(None)]:
        yield from stream.encode(part)
    yield from stream.encode(None)


def steady(seconds, fps=25, image=None):
    image = picture() if image is None else image
    return [(k / fps, image) for k in range(round(seconds * fps))]


def wav(path, data, rate=8000, channels=1, bits=16, code=1):
    """A plain WAV header without a channel mask, as recorders write it."""
    block = channels * bits // 8
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, code, channels, rate, rate * block, block, bits)
    path.write_bytes(
        struct.pack("<4sI4s", b"RIFF", 36 + len(data), b"WAVE") + form + b"data" + struct.pack("<I", len(data)) + data
    )
    return path


@pytest.fixture(scope="module")
def talk(tmp_path_factory):
    """Two seconds of picture and sound, mp4."""
    return record(tmp_path_factory.mktemp("talk") / "talk.mp4", steady(2), tone(2, 48_000, 2))


@pytest.fixture
def processes(monkeypatch):
    """Every decoding process that is started."""
    started = []

    class Spy(subprocess.Popen):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            started.append(self)

    monkeypatch.setattr(media.subprocess, "Popen", Spy)
    return started


def gone(process):
    """Whether a process has ended and was taken away: no zombie is left."""
    return process.returncode is not None and not Path(f"/proc/{process.pid}").exists()


def refusal(path, limits=None, uses=("info", "audio", "frames")):
    """The one reason that every use of a bad file gives, without the path before it."""
    reasons = set()
    for use in uses:
        clip = Clip(path, limits)
        with pytest.raises(BadData) as caught:
            _ = clip.info if use == "info" else clip.audio() if use == "audio" else list(clip.frames())
        message = str(caught.value)
        assert message.startswith(f"{path}: ")
        assert "\n" not in message and len(message) < 500
        reasons.add(caught.value.reason)
    assert len(reasons) == 1, reasons
    return reasons.pop()


RECORDINGS = [
    ("a.mp4", "libx264", "aac"),
    ("b.mp4", "libx265", "aac"),
    ("c.mov", "libx264", "pcm_s16le"),
    ("d.webm", "libvpx", "libopus"),
    ("e.webm", "libvpx-vp9", "libopus"),
    ("f.mkv", "mpeg4", "flac"),
    ("g.avi", "mpeg4", "libmp3lame"),
    ("h.mp4", "libsvtav1", "aac"),
    ("i.mov", "mjpeg", "alac"),
]


@pytest.mark.parametrize(("name", "video", "audio"), RECORDINGS)
def test_a_recording_in_any_container(tmp_path, name, video, audio):
    pixels = "yuvj420p" if video == "mjpeg" else "yuv420p"
    path = record(tmp_path / name, steady(2), tone(2, 48_000, 2), video=video, audio=audio, pixels=pixels)
    path = path.rename(tmp_path / "no-name-that-helps.txt")
    clip = Clip(path)
    info = clip.info
    assert (info.kind, info.has_audio, info.has_video, info.width, info.height) == ("video", True, True, 64, 48)
    assert info.duration == pytest.approx(2, abs=0.1)
    assert info.fps == pytest.approx(25, abs=0.6)  # the AVI writer leaves a frame out
    frames = list(clip.frames(fps=4))[:8]
    assert [f.time for f in frames] == [0, 0.25, 0.5, 0.75, 1, 1.25, 1.5, 1.75]
    assert all(f.rgb.shape == (48, 64, 3) and f.rgb.dtype == np.uint8 and corners(f.rgb) == CORNERS for f in frames)
    sound = clip.audio()
    assert sound.dtype == np.float32 and sound.ndim == 1
    assert len(sound) == pytest.approx(32_000, abs=800)
    assert pitch(sound) == pytest.approx(TONE, abs=2)
    assert np.abs(sound[4000:-4000]).max() == pytest.approx(0.5, abs=0.05)
    assert clip.audio() is sound and clip.info is info


SOUNDS = [
    ("mono8k.wav", "pcm_s16le", 8000, 1),
    ("stereo48k.wav", "pcm_f32le", 48_000, 2),
    ("six.wav", "pcm_s24le", 44_100, 6),
    ("law.wav", "pcm_mulaw", 8000, 1),
    ("a.mp3", "libmp3lame", 44_100, 2),
    ("b.m4a", "aac", 22_050, 1),
    ("c.m4a", "alac", 32_000, 2),
    ("d.ogg", "libopus", 48_000, 1),
    ("e.ogg", "vorbis", 44_100, 2),
    ("f.flac", "flac", 16_000, 1),
    ("g.aac", "aac", 11_025, 1),
    ("h.mka", "ac3", 48_000, 6),
]


@pytest.mark.parametrize(("name", "audio", "rate", "channels"), SOUNDS)
def test_sound_alone_becomes_mono_at_16_khz(tmp_path, name, audio, rate, channels):
    path = record(tmp_path / name, (), tone(1.5, rate, channels), rate=rate, audio=audio)
    clip = Clip(path)
    assert (clip.info.kind, clip.info.has_audio, clip.info.has_video) == ("audio", True, False)
    assert (clip.info.width, clip.info.height, clip.info.fps) == (0, 0, 0)
    assert clip.info.duration == pytest.approx(1.5, abs=0.2)  # ADTS says nothing of the encoder's padding
    sound = clip.audio()
    assert len(sound) == pytest.approx(24_000, abs=3200)
    assert pitch(sound) == pytest.approx(TONE, abs=2)
    assert 0.3 < np.abs(sound[4000:-4000]).max() <= 0.66
    assert list(clip.frames()) == []


def test_channels_that_no_mask_names_are_averaged(tmp_path):
    one = (tone(1, 16_000)[0] * 32767).astype("<i2")
    path = wav(tmp_path / "array.wav", np.stack([one, one, 0 * one], axis=1).tobytes(), 16_000, 3)
    sound = Clip(path).audio()
    assert len(sound) == pytest.approx(16_000, abs=50)
    assert np.abs(sound).max() == pytest.approx(0.5 * 2 / 3, abs=0.01)


def test_numbers_that_are_none_become_silence_and_loud_ones_are_cut(tmp_path):
    data = np.array([np.nan, np.inf, -np.inf, 3.0, -3.0, 0.25] * 500, "<f4")
    sound = Clip(wav(tmp_path / "float.wav", data.tobytes(), 16_000, 1, 32, 3)).audio()
    assert sound[:6].tolist() == [0, 1, -1, 1, -1, 0.25]


def test_the_sound_that_is_kept_cannot_be_changed(talk):
    with pytest.raises(ValueError, match="read-only"):
        Clip(talk).audio()[0] = 1


def test_pictures_without_sound(tmp_path):
    clip = Clip(record(tmp_path / "mute.mp4", steady(1)))
    assert (clip.info.kind, clip.info.has_audio) == ("video", False)
    assert clip.audio().shape == (0,) and clip.audio().dtype == np.float32
    assert len(list(clip.frames())) == 4


@pytest.mark.parametrize(("name", "audio"), [("song.mp3", "libmp3lame"), ("song.m4a", "aac"), ("song.flac", "flac")])
def test_cover_art_is_no_video(tmp_path, name, audio):
    from av.stream import Disposition

    cover = [(0, grey(100, 200, 200))]
    art = lambda stream: setattr(stream, "disposition", Disposition.attached_pic)  # noqa: E731
    settings = {"video": "mjpeg", "audio": audio, "pixels": "yuvj420p", "format": "mp4" if audio == "aac" else None}
    path = record(tmp_path / name, cover, tone(1, 44_100), 44_100, prepare=art, **settings)
    with av.open(str(path)) as container:
        assert len(container.streams.video) == 1
    clip = Clip(path)
    assert (clip.info.kind, clip.info.has_video, clip.info.has_audio) == ("audio", False, True)
    assert list(clip.frames()) == []


def test_other_streams_are_passed_over(tmp_path):
    path = tmp_path / "many.mkv"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        out.add_attachment("notes.txt", "text/plain", b"nothing")
        for k in range(10):
            frame = av.VideoFrame.from_ndarray(picture(), "rgb24")
            frame.pts = k
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    assert Clip(path).info.duration == pytest.approx(0.4, abs=0.01)
    assert "has 2 streams; at most 1" in refusal(path, Limits(streams=1))


def test_frames_are_what_is_on_the_screen_at_each_moment(tmp_path):
    shots = [(0, grey(20)), (0.1, grey(60)), (0.45, grey(100)), (0.5, grey(140)), (1.9, grey(180)), (1.95, grey(220))]
    for name, video in (("vfr.mp4", "libx264"), ("vfr.webm", "libvpx")):
        frames = list(Clip(record(tmp_path / name, shots, video=video)).frames(fps=4))
        levels = [round(float(f.rgb.mean()) / 20) * 20 for f in frames]
        assert [f.time for f in frames] == [k / 4 for k in range(len(frames))]
        assert levels[:8] == [20, 60, 140, 140, 140, 140, 140, 140]
        assert len(levels) in (8, 9)


@pytest.mark.parametrize("fps", [1, 7, 10, 25, 50])
def test_as_many_frames_a_second_as_asked_for(talk, fps):
    frames = list(Clip(talk).frames(fps=fps))
    assert len(frames) == 2 * fps
    assert np.allclose([f.time for f in frames], np.arange(2 * fps) / fps)


def test_frames_are_made_smaller_never_larger(tmp_path):
    path = record(tmp_path / "wide.mp4", steady(0.2, image=picture(320, 180)))
    shapes = {longest: next(Clip(path).frames(longest=longest)).rgb.shape for longest in (640, 320, 100)}
    assert shapes == {640: (180, 320, 3), 320: (180, 320, 3), 100: (56, 100, 3)}
    assert corners(next(Clip(path).frames(longest=100)).rgb) == CORNERS


@pytest.mark.parametrize(("width", "height"), [(65, 49), (33, 48), (18, 17)])
def test_odd_sizes(tmp_path, width, height):
    path = record(tmp_path / "odd.webm", steady(0.2, image=picture(width, height)), video="libvpx")
    clip = Clip(path)
    frame = next(clip.frames())
    assert frame.rgb.shape == (height, width, 3) == (clip.info.height, clip.info.width, 3)
    assert corners(frame.rgb) == CORNERS


@pytest.mark.parametrize("pixels", ["yuv444p", "yuv422p", "yuv420p10le", "gray"])
def test_pixel_formats(tmp_path, pixels):
    path = record(tmp_path / "form.mp4", steady(0.2), pixels=pixels)
    frame = next(Clip(path).frames())
    assert corners(frame.rgb) == CORNERS if pixels != "gray" else np.ptp(frame.rgb, axis=2).max() == 0


TURNS = [
    (0, False, False, [RED, GREEN, BLUE, WHITE]),
    (90, False, False, [GREEN, WHITE, RED, BLUE]),
    (180, False, False, [WHITE, BLUE, GREEN, RED]),
    (-90, False, False, [BLUE, RED, WHITE, GREEN]),
    (0, True, False, [GREEN, RED, WHITE, BLUE]),
    (0, False, True, [BLUE, WHITE, RED, GREEN]),
    (90, True, False, None),
    (-90, False, True, None),
]


@pytest.mark.parametrize(("degrees", "mirror", "flip", "expected"), TURNS)
def test_phone_videos_are_turned_upright(tmp_path, degrees, mirror, flip, expected):
    turn = lambda stream: stream.set_display_rotation(degrees, hflip=mirror, vflip=flip)  # noqa: E731
    path = record(tmp_path / "phone.mp4", steady(0.4), prepare=turn)
    clip = Clip(path)
    frame = next(clip.frames())
    assert corners(frame.rgb) == (expected or mapped(path))
    size = (64, 48, 3) if degrees % 180 else (48, 64, 3)
    assert frame.rgb.shape == size == (clip.info.height, clip.info.width, 3)


def mapped(path):
    """The corners by the definition of the matrix: (x, y) goes to (a x + c y, b x + d y)."""
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
        a, b, _, c, d = struct.unpack("=9i", bytes(frame.side_data["DISPLAYMATRIX"]))[:5]
    places = {(-1, -1): RED, (1, -1): GREEN, (-1, 1): BLUE, (1, 1): WHITE}
    turned = {(np.sign(a * x + c * y), np.sign(b * x + d * y)): colour for (x, y), colour in places.items()}
    return [turned[corner] for corner in ((-1, -1), (1, -1), (-1, 1), (1, 1))]


def test_pixels_that_are_not_square(tmp_path):
    def wide(stream):
        stream.codec_context.sample_aspect_ratio = Fraction(2, 1)

    clip = Clip(record(tmp_path / "wide.mp4", steady(0.2), prepare=wide))
    assert (clip.info.width, clip.info.height) == (128, 48)
    assert next(clip.frames()).rgb.shape == (48, 128, 3)


def test_a_recording_that_starts_late_starts_at_zero(tmp_path):
    shots = [(100 + when, image) for when, image in steady(1)]
    clip = Clip(record(tmp_path / "late.mkv", shots, tone(1, 48_000), sound_at=100, audio="flac"))
    assert clip.info.duration == pytest.approx(1, abs=0.05)
    assert [f.time for f in clip.frames()] == [0, 0.25, 0.5, 0.75]
    assert len(clip.audio()) == pytest.approx(16_000, abs=400)


def test_sound_and_pictures_keep_their_distance(tmp_path):
    late_sound = Clip(record(tmp_path / "s.mkv", steady(1.5), tone(1, 48_000), sound_at=0.5, audio="flac")).audio()
    assert len(late_sound) == pytest.approx(24_000, abs=400)
    assert np.abs(late_sound[:7900]).max() == 0
    assert np.abs(late_sound[8200:8400]).max() > 0.4
    shots = [(1 + when, image) for when, image in steady(1)]
    late_pictures = Clip(record(tmp_path / "p.mkv", shots, tone(2, 48_000), audio="flac"))
    assert [f.time for f in late_pictures.frames()] == [1, 1.25, 1.5, 1.75]
    assert late_pictures.info.duration == pytest.approx(2, abs=0.05)


def test_a_hole_in_the_sound_is_silence(tmp_path):
    path = tmp_path / "hole.mkv"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("flac", rate=16_000, layout="mono")
        for at in (0.0, 2.0):
            for k in range(10):
                part = (tone(0.1, 16_000) * 32767).astype(np.int16)
                frame = av.AudioFrame.from_ndarray(part, "s16", "mono")
                frame.sample_rate, frame.time_base, frame.pts = (
                    16_000,
                    Fraction(1, 16_000),
                    round((at + k / 10) * 16_000),
                )
                out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    sound = Clip(path).audio()
    assert len(sound) == pytest.approx(48_000, abs=500)
    loud = np.abs(sound.reshape(-1)[:47_000]).reshape(-1, 1000).max(axis=1) > 0.1
    assert loud.tolist()[:15] == [True] * 15 and not loud[17:31].any() and loud[33:].all()


def test_times_before_zero_and_times_that_are_not_there(tmp_path):
    shots = [(k / 25, grey(40 + 4 * k)) for k in range(50)]
    options = {"bf": "2"}
    negative = record(
        tmp_path / "n.mp4",
        shots,
        tone(2, 44_100),
        44_100,
        options=options,
        container={"movflags": "negative_cts_offsets"},
    )
    without = record(tmp_path / "w.avi", shots, video="mpeg4", options=options)
    for path in (negative, without):
        clip = Clip(path)
        frames = list(clip.frames(fps=5))
        levels = [float(f.rgb.mean()) for f in frames]
        assert len(frames) == pytest.approx(10, abs=1)
        assert levels == sorted(levels) and np.abs(np.array(levels) - (40 + 20 * np.arange(len(frames)))).max() < 10


class Pipe(io.RawIOBase):
    """A place that can only be appended to, like the stream of a browser's recorder."""

    def __init__(self):
        self.data = bytearray()

    def writable(self):
        return True

    def write(self, data):
        self.data += data
        return len(data)


def test_a_recording_of_a_browser_does_not_know_how_long_it_is(tmp_path):
    pipe = Pipe()
    record(pipe, steady(2), tone(2, 48_000), video="libvpx", audio="libopus", format="webm", container={"live": "1"})
    path = tmp_path / "browser.webm"
    path.write_bytes(pipe.data)
    with av.open(str(path)) as container:
        assert container.duration is None
    assert Clip(path).info.duration == pytest.approx(2, abs=0.05)
    assert Clip(path).info.fps == pytest.approx(25, abs=0.1)
    assert len(list(Clip(path).frames())) == 8
    assert refusal(path, Limits(seconds=1)) == "is longer than 1 s; cut it, or raise the limit"


@pytest.mark.parametrize(
    ("name", "container"), [("cut.mkv", None), ("cut.mp4", {"movflags": "faststart"}), ("cut.webm", None)]
)
def test_of_a_file_that_was_cut_off_the_beginning_is_read(tmp_path, name, container):
    noise = np.random.default_rng(1).integers(0, 255, (50, 48, 64, 3), np.uint8)
    shots = [(k / 25, image) for k, image in enumerate(noise)]
    codecs = {"video": "libvpx", "audio": "libopus"} if name.endswith("webm") else {}
    path = record(tmp_path / name, shots, tone(2, 48_000), container=container, **codecs)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    clip = Clip(path)
    assert 0.3 < clip.info.duration < 1.9
    assert 1 < len(list(clip.frames())) < 8
    assert 0.3 * 16_000 < len(clip.audio()) < 1.9 * 16_000


def test_damage_in_the_middle_is_passed_over(tmp_path):
    path = record(tmp_path / "holed.mkv", steady(2), tone(2, 48_000), video="mpeg4", options={"g": "5"})
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 200] = np.random.default_rng(2).bytes(200)
    path.write_bytes(data)
    clip = Clip(path)
    assert clip.info.has_video
    assert len(list(clip.frames())) >= 6
    assert len(clip.audio()) > 24_000


# ── images ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("form", ["jpg", "png", "webp"])
def test_an_image_is_one_frame_at_zero(tmp_path, form):
    path = tmp_path / f"face.{form}"
    Image.fromarray(picture(200, 100)).save(path)
    clip = Clip(path.rename(tmp_path / "face.mp4"))
    info = clip.info
    assert (info.kind, info.duration, info.has_audio, info.has_video) == ("image", 0, False, True)
    assert (info.width, info.height, info.fps) == (200, 100, 0)
    (frame,) = clip.frames(fps=30, longest=50)
    assert frame.time == 0 and frame.rgb.shape == (25, 50, 3) and corners(frame.rgb) == CORNERS
    assert clip.audio().shape == (0,)


@pytest.mark.parametrize(("form", "orientation"), [*(("jpg", k) for k in range(1, 9)), ("png", 6), ("webp", 6)])
def test_photographs_are_turned_upright(tmp_path, form, orientation):
    from PIL import ImageOps

    path, exif = tmp_path / f"photo.{form}", Image.Exif()
    exif[274] = orientation
    Image.fromarray(picture()).save(path, exif=exif)
    with Image.open(path) as image:
        expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    clip = Clip(path)
    (frame,) = clip.frames()
    assert frame.rgb.shape == expected.shape == (clip.info.height, clip.info.width, 3)
    assert frame.rgb.shape == ((64, 48, 3) if orientation > 4 else (48, 64, 3))
    assert corners(frame.rgb) == corners(expected)


def test_kinds_of_images(tmp_path):
    image = Image.fromarray(picture())
    image.convert("P").save(tmp_path / "palette.png")
    image.convert("CMYK").save(tmp_path / "print.jpg")
    image.save(tmp_path / "two.jpg", format="MPO", save_all=True, append_images=[image])
    image.save(tmp_path / "moving.webp", save_all=True, append_images=[Image.fromarray(grey(9))])
    image.save(tmp_path / "slow.jpg", progressive=True)
    for name in ("palette.png", "print.jpg", "two.jpg", "moving.webp", "slow.jpg"):
        (frame,) = Clip(tmp_path / name).frames()
        assert corners(frame.rgb) == CORNERS, name
    Image.fromarray(np.linspace(0, 65535, 48 * 64).reshape(48, 64).astype(np.uint16)).save(tmp_path / "deep.png")
    (frame,) = Clip(tmp_path / "deep.png").frames()
    assert frame.rgb[0, 0, 0] == 0 and frame.rgb[-1, -1, 0] == 255 and 120 < frame.rgb[24, 0, 0] < 135
    Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    (frame,) = Clip(tmp_path / "clear.png").frames()
    assert (frame.rgb == 255).all()


# ── what is refused ──────────────────────────────────────────────────────────────────────────────────────────────────

PLAYLISTS = {
    "text": "Hello, this is no film.\n" * 40,
    "m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nfile://{secret}\n#EXT-X-ENDLIST\n",
    "ffconcat": "ffconcat version 1.0\nfile '{secret}'\n",
    "dash": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><Period><AdaptationSet mimeType="video/mp4">'
    "<Representation><BaseURL>file://{secret}</BaseURL></Representation></AdaptationSet></Period></MPD>",
    "srt": "1\n00:00:01,000 --> 00:00:02,000\nwords\n\n2\n00:00:03,000 --> 00:00:04,000\nmore\n",
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
    "svg": '<svg xmlns="http://www.w3.org/2000/svg"><image href="file://{secret}"/></svg>',
    "html": "<!doctype html><html><body><video src='x.mp4'></video></body></html>",
}


@pytest.mark.parametrize("name", PLAYLISTS)
def test_playlists_and_texts_are_no_clips(tmp_path, talk, name):
    path = tmp_path / f"{name}.mp4"
    path.write_text(PLAYLISTS[name].format(secret=talk))
    assert refusal(path).startswith("not a recording or picture that elmd reads")


def test_other_containers_are_refused_however_good_they_are(tmp_path):
    path = record(tmp_path / "a.flv", steady(0.4), tone(0.4, 44_100), 44_100, video="flv", audio="libmp3lame")
    assert refusal(path.rename(tmp_path / "a.mp4")).startswith("not a recording or picture that elmd reads")
    Image.fromarray(picture()).save(tmp_path / "a.gif")
    assert refusal(tmp_path / "a.gif").startswith("not a recording or picture that elmd reads")


def test_a_codec_that_is_not_read_is_named(tmp_path):
    path = record(tmp_path / "a.mkv", steady(0.2), video="ffv1")
    assert refusal(path) == "its codec is not read (ffv1); convert it to H.264 and AAC"


def test_damaged_files_are_refused_in_one_line(tmp_path, talk):
    whole = talk.read_bytes()
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(3).integers(0, 255, (64, 64, 3), np.uint8)).save(buffer, "PNG")
    bad = {
        "head.mp4": whole[:40],
        "tail-less.mp4": whole[: len(whole) // 2],
        "noise.mp4": np.random.default_rng(4).bytes(5000),
        "zeros.mp4": bytes(5000),
        "cut.png": buffer.getvalue()[:3000],
        "head.png": buffer.getvalue()[:20],
        "head.jpg": b"\xff\xd8\xff\xe0\x00\x10JFIF",
        "head.webp": b"RIFF\x10\x00\x00\x00WEBPVP8 ",
        "head.wav": b"RIFF\x10\x00\x00\x00WAVEfmt ",
    }
    for name, data in bad.items():
        (tmp_path / name).write_bytes(data)
        uses = ("info", "frames") if name.startswith(("cut", "head.")) else ("info", "audio", "frames")
        for use in uses:
            assert refusal(tmp_path / name, uses=(use,))


def test_what_is_no_file_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "device.mp4").symlink_to("/dev/zero")
    (tmp_path / "loop.mp4").symlink_to(tmp_path / "loop.mp4")
    (tmp_path / "big.mp4").write_bytes(bytes(3 << 20))
    start = time.monotonic()
    assert refusal(tmp_path / "pipe.mp4") == "is not a regular file"
    assert refusal(tmp_path / "device.mp4") == "is not a regular file"
    assert refusal(tmp_path / "folder.mp4") == "is a folder"
    assert refusal(tmp_path / "empty.mp4") == "is empty"
    assert refusal(tmp_path / "missing.mp4") == "cannot be opened (No such file or directory)"
    assert "cannot be opened" in refusal(tmp_path / "loop.mp4")
    assert "cannot be opened" in refusal(Path("a\0b.mp4"))
    assert refusal(tmp_path / "big.mp4", Limits(bytes=1 << 20)) == "is larger than 1 MiB"
    with pytest.raises(BadData, match="is not a regular file"):
        _ = Clip(tmp_path / "pipe.mp4").sha256
    assert time.monotonic() - start < 5


def test_a_link_to_a_clip_is_a_clip(tmp_path, talk):
    (tmp_path / "link.mp4").symlink_to(talk)
    assert Clip(tmp_path / "link.mp4").info == Clip(talk).info
    assert Clip(tmp_path / "link.mp4").sha256 == Clip(str(talk)).sha256 != ""


def test_a_name_is_never_a_protocol_or_a_pattern(tmp_path, monkeypatch, talk):
    monkeypatch.chdir(tmp_path)
    for name in ("concat:a.mp4|b.mp4", "file:x.mp4", "img%03d.png", "-i", "data:text"):
        assert "cannot be opened" in refusal(Path(name))
        Path(name).write_bytes(talk.read_bytes())
        assert Clip(name).info.has_video


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_bomb(width, height):
    """A picture that is real, of one colour and one bit a pixel."""
    packer, row = zlib.compressobj(9), bytes(1 + (width + 7) // 8)
    body = b"".join(packer.compress(row * 100) for _ in range(height // 100)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def test_picture_bombs_are_refused_before_they_go_off(tmp_path):
    (tmp_path / "a.png").write_bytes(png_bomb(30_000, 30_000))
    canvas = struct.pack("<I", 30_000 - 1)[:3]
    webp = b"VP8X" + struct.pack("<I", 10) + bytes(4) + canvas + canvas + b"VP8 " + struct.pack("<I", 10) + bytes(10)
    (tmp_path / "a.webp").write_bytes(b"RIFF" + struct.pack("<I", len(webp) + 4) + b"WEBP" + webp)
    buffer = io.BytesIO()
    Image.fromarray(grey(1)).save(buffer, "JPEG")
    jpeg = buffer.getvalue()
    at = jpeg.index(b"\xff\xc0") + 5
    (tmp_path / "a.jpg").write_bytes(jpeg[:at] + struct.pack(">HH", 30_000, 30_000) + jpeg[at + 4 :])
    for name in ("a.png", "a.webp", "a.jpg"):
        assert (tmp_path / name).stat().st_size < 200_000
        assert refusal(tmp_path / name) == "its pictures are 30000 x 30000 pixels; at most 50,000,000 pixels are read"


@pytest.mark.parametrize("lossless", [True, False])
def test_the_size_of_a_webp_is_read_from_its_header(tmp_path, lossless):
    path = tmp_path / "a.webp"
    Image.fromarray(picture(300, 200)).save(path, lossless=lossless)
    assert child._webp_size(path.read_bytes()[:32]) == (300, 200)
    assert "300 x 200" in refusal(path, Limits(pixels=59_999))
    assert Clip(path, Limits(pixels=60_000)).info.width == 300


def test_a_video_of_huge_pictures_is_refused(tmp_path):
    path = record(tmp_path / "a.mp4", steady(0.2, image=picture(640, 480)))
    assert "640 x 480 pixels; at most 10,000" in refusal(path, Limits(pixels=10_000), uses=("info", "frames"))
    data = path.read_bytes()
    claim = struct.pack(">HH", 640, 480)  # in the sample description
    assert data.count(claim) == 1
    path.write_bytes(data.replace(claim, struct.pack(">HH", 16, 16)))
    assert "640 x 480 pixels; at most 10,000" in refusal(path, Limits(pixels=10_000), uses=("info", "frames"))


def test_pictures_that_are_larger_than_the_file_says_are_not_decoded(tmp_path):
    path = record(tmp_path / "a.webm", steady(0.2), video="libvpx")
    start = b"\x9d\x01\x2a"  # of a VP8 key frame; its size follows
    data = path.read_bytes()
    assert start + struct.pack("<HH", 64, 48) in data
    path.write_bytes(data.replace(start + struct.pack("<HH", 64, 48), start + struct.pack("<HH", 16_000, 16_000)))
    for use in ("info", "frames"):
        assert "damaged" in refusal(path, uses=(use,)) or "16000 x 16000 pixels" in refusal(path, uses=(use,))


def test_a_recording_that_is_too_long_is_refused(tmp_path, talk):
    assert refusal(talk, Limits(seconds=1.5)) == "is longer than 1.5 s; cut it, or raise the limit"
    path = wav(tmp_path / "a.wav", bytes(2 * 8000 * 5))
    assert refusal(path, Limits(seconds=4), uses=("info", "audio")).startswith("is longer than 4 s")
    assert len(Clip(path, Limits(seconds=5)).audio()) == 80_000


def test_a_recording_that_needs_too_much_memory_is_refused(tmp_path):
    Image.new("RGB", (6000, 6000)).save(tmp_path / "a.png")
    assert Clip(tmp_path / "a.png").info.width == 6000
    assert refusal(tmp_path / "a.png", Limits(memory=300 << 20), ("info", "frames")) == (
        "needs more than 300 MiB of memory to decode"
    )


@pytest.mark.parametrize(("fps", "longest"), [(0, 10), (-1, 10), (math.nan, 10), (1e9, 10), (4, 0)])
def test_impossible_wishes_are_named_at_once(talk, fps, longest):
    with pytest.raises(UsageError, match="frames needs"):
        Clip(talk).frames(fps, longest)


# ── the process that decodes ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def act(tmp_path, monkeypatch):
    """Put a script in the place of the decoder, to see what the parent does."""

    def put(code):
        script = tmp_path / "act.py"
        start = "import os, sys, json, struct, signal\nfrom elmd._media_child import *\nfrom elmd._media_child import _confine\n"
        start += "job = Job(**json.loads(sys.argv[1]))\ndef send(kind, data): os.write(1, HEADER.pack(kind, len(data)) + data)\n"
        script.write_text(start + textwrap.dedent(code))
        monkeypatch.setattr(child, "__file__", str(script))

    return put


def test_the_process_is_confined_before_it_reads(talk, act):
    act("""
        import socket
        _confine(job)
        tried = []
        for name, do in {
            "file": lambda: open("/etc/passwd"), "socket": socket.socket, "pipe": os.pipe,
            "memory": lambda: bytearray(job.memory), "write": lambda: os.write(1, b""),
        }.items():
            try:
                do()
                tried.append(name)
            except (OSError, MemoryError):
                pass
        send(IS_REFUSED, f"could {tried} with {sorted(os.environ)}".encode())
    """)
    reason = refusal(talk)
    assert "could ['write'] with" in reason
    assert set(reason.partition("with ")[2].strip("[]").replace("'", "").split(", ")) <= {
        "LC_CTYPE",
        "LD_LIBRARY_PATH",
        "MALLOC_ARENA_MAX",
        "OPENBLAS_NUM_THREADS",
        "PYTHONPATH",
    }


def test_too_much_work_and_crashes_are_bad_files(talk, act, processes, monkeypatch):
    monkeypatch.setattr(media, "_PATIENCE", 60)
    act("_confine(job)\nwhile True: pass")
    reason = "takes more than 1 s of processor time to decode"
    assert refusal(talk, Limits(cpu_seconds=1), ("frames",)) == reason
    monkeypatch.setattr(media, "_PATIENCE", 1)
    act("import time; time.sleep(60)")
    start = time.monotonic()
    assert refusal(talk, Limits(cpu_seconds=1), ("audio",)) == "the decoder got stuck on it for 1 s"
    assert time.monotonic() - start < 30
    act("os.kill(os.getpid(), signal.SIGSEGV)")
    assert refusal(talk).startswith("the decoder crashed on it")
    act("os.write(1, b'ab')")
    assert refusal(talk).startswith("the decoder crashed on it")
    assert all(gone(p) for p in processes)


LIES = {
    "frames": ["HEADER.pack(IS_FRAME, 1 << 31)", "HEADER.pack(b'?', 1 << 20)", "HEADER.pack(IS_REFUSED, 1 << 30)",
               "HEADER.pack(IS_FRAME, 19) + PICTURE.pack(0, 60000, 60000) + b'abc'", "HEADER.pack(IS_FRAME, 1) + b'a'",
               "HEADER.pack(IS_INFO, 1) + b'a'"],
    "audio": ["HEADER.pack(IS_AUDIO, 3) + b'abc'", "HEADER.pack(IS_AUDIO, 1 << 30)"],
    "info": ["HEADER.pack(IS_INFO, 3) + b'abc'", "HEADER.pack(IS_END, 0)", "HEADER.pack(IS_FRAME, 0)"],
}  # fmt: skip


@pytest.mark.parametrize(("use", "message"), [(use, message) for use, lies in LIES.items() for message in lies])
def test_a_decoder_that_lies_is_not_believed(talk, act, use, message):
    act(f"os.write(1, {message})\nimport time; time.sleep(30)")
    assert refusal(talk, uses=(use,)) == "the decoder failed on it; it is damaged"


def test_what_a_decoder_says_is_one_printable_line(talk, act):
    act("send(IS_REFUSED, b'a\\n\\x1b[31mb\\xff' + b'c' * 3000)")
    reason = refusal(talk)
    assert reason.startswith("a [31mb") and len(reason) == 300 and reason.isprintable()


def test_a_broken_installation_is_not_the_files_fault(talk, act):
    act("send(IS_BROKEN, b'no av')")
    with pytest.raises(ElmdError, match="cannot decode media: no av; install elmd again") as caught:
        _ = Clip(talk).info
    assert not isinstance(caught.value, BadData)


def test_the_process_is_light(talk, processes):
    frames = Clip(talk).frames(fps=200)
    next(frames)
    maps = Path(f"/proc/{processes[0].pid}/maps").read_text()
    frames.close()
    assert "libavcodec" in maps
    assert not any(name in maps for name in ("libtorch", "pydantic", "sklearn", "faiss"))
    loaded = python("import sys, elmd._media_child; print(*sys.modules)").split()
    assert not {"av", "numpy", "PIL", "pydantic", "torch"} & set(loaded)
    assert not {"av", "numpy", "PIL", "torch"} & set(python("import sys, elmd.media; print(*sys.modules)").split())


def test_no_process_and_no_file_is_left(talk, tmp_path, processes, monkeypatch):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    for name in ("TMPDIR", "TMP", "TEMP"):
        monkeypatch.setenv(name, str(scratch))
    monkeypatch.chdir(scratch)
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(bytes(100))
    frames = Clip(talk).frames(fps=200)
    next(frames)
    assert processes[-1].poll() is None
    frames.close()
    assert gone(processes[-1])
    dropped = Clip(talk).frames(fps=200)
    next(dropped)
    del dropped
    assert gone(processes[-1])
    with pytest.raises(RuntimeError, match="mine"):
        _fail_within(Clip(talk).frames(fps=200))
    refusal(bad)
    list(Clip(talk).frames())
    Clip(talk).audio()
    assert len(processes) == 8
    assert all(gone(p) for p in processes)
    assert list(scratch.iterdir()) == []


def _fail_within(frames):
    for _ in frames:
        raise RuntimeError("mine")


def test_frames_that_nobody_takes_start_nothing(talk, processes):
    Clip(talk).frames()
    assert processes == []


def test_clips_can_be_read_side_by_side(talk):
    iterators = [Clip(talk).frames() for _ in range(3)]
    assert len(list(zip(*iterators, strict=True))) == 8


def test_the_process_ends_with_its_parent(talk):
    code = (
        "import sys, time\nfrom elmd import media\nfrom elmd.media import Clip\n"
        "real = media.subprocess.Popen\n"
        "def spy(*a, **k):\n    p = real(*a, **k)\n    print(p.pid, flush=True)\n    return p\n"
        "media.subprocess.Popen = spy\nframes = Clip(sys.argv[1]).frames(fps=200)\nnext(frames)\nprint('on', flush=True)\ntime.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, str(talk)], stdout=subprocess.PIPE, text=True)
    try:
        pid = int(parent.stdout.readline())
        assert parent.stdout.readline() == "on\n"
        assert Path(f"/proc/{pid}").exists()
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        parent.stdout.close()
    assert waited_for(lambda: not alive(pid))


def test_a_process_that_computes_sees_that_its_parent_is_gone(tmp_path):
    code = "from elmd._media_child import _end_with; import os; print(os.getpid(), flush=True); _end_with(int(os.sys.argv[1]))"
    process = subprocess.Popen([sys.executable, "-c", code, str(os.getpid())], stdout=subprocess.PIPE, text=True)
    process.stdout.readline()
    time.sleep(1)
    assert process.poll() is None
    process.kill()
    process.communicate()
    assert (
        subprocess.run([sys.executable, "-c", code, "1"], capture_output=True, timeout=20, check=True).returncode == 0
    )


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"  # init may reap it late
    except FileNotFoundError:
        return False


def waited_for(done, seconds=15):
    end = time.monotonic() + seconds
    while not done() and time.monotonic() < end:
        time.sleep(0.05)
    return done()


def resident(pid):
    """Resident memory of a process in MiB."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / 2**20


def test_memory_stays_flat_over_ten_minutes_and_the_decoder_waits(tmp_path, processes):
    images = [np.random.default_rng(k).integers(0, 255, (120, 160, 3), np.uint8) for k in range(8)]
    shots = [(k / 5, images[k % 8]) for k in range(3000)]
    options = {"g": "50", "preset": "ultrafast"}
    path = record(tmp_path / "long.mkv", shots, tone(600, 8000), 8000, options=options, audio="flac")
    clip, seen, count = Clip(path), [], 0
    assert clip.info.duration == pytest.approx(600, abs=1)
    frames = clip.frames(fps=4)
    for count, _ in enumerate(frames, 1):
        if count == 1:
            time.sleep(1)
            assert processes[-1].poll() is None  # 2400 frames are 130 MiB: the pipe cannot hold them
        if count % 300 == 0:
            seen.append(
                (resident(os.getpid()), resident(processes[-1].pid)) if processes[-1].poll() is None else seen[-1]
            )
    assert count == 2400
    for side in (0, 1):
        assert max(s[side] for s in seen) - seen[0][side] < 12, seen
    before = resident(os.getpid())
    assert len(clip.audio()) == pytest.approx(9_600_000, abs=100)
    assert resident(os.getpid()) - before < 100
