"""Speed and memory of the face extractor on 720p video: the nets alone, a clip with its decoding, a long clip.

Run: python benchmarks/face_speed.py [--threads 2] [--minutes 10] [--json FILE]

The clip is a public-domain photograph (scikit-image's astronaut) that moves over a 1280 x 720 backdrop at 25 frames a
second, coded as MPEG-4. `wall` is the median of the passes, `cpu` their mean processor time, which a busy machine
stretches less. The memory of a long clip is the growth of this process from its first to its last minute.
"""

import argparse
import json
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np


@cache
def parts() -> tuple[np.ndarray, np.ndarray]:
    """Backdrop and head."""
    from PIL import Image
    from skimage import data

    rows, columns = np.mgrid[:720, :1280]
    backdrop = np.stack([90 + rows // 12, 80 + columns // 18, 120 - rows // 16], 2).astype(np.uint8)
    return backdrop, np.asarray(Image.fromarray(data.astronaut()[:260, 95:355]).resize((480, 480)))


def scene(step: int) -> np.ndarray:
    """One picture of the clip."""
    backdrop, head = parts()
    picture, left = backdrop.copy(), 300 + round(80 * np.sin(step / 20))
    picture[60:540, left : left + 480] = head
    return picture


def write(path: Path, seconds: int) -> None:
    """Write the clip."""
    import av

    with av.open(str(path), "w") as out:
        stream = out.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.bit_rate = 1280, 720, 4_000_000
        for step in range(25 * seconds):
            for packet in stream.encode(av.VideoFrame.from_ndarray(scene(step), format="rgb24")):
                out.mux(packet)
        for packet in stream.encode():
            out.mux(packet)


def timed(work: Callable[[], Any], passes: int = 9) -> dict[str, float]:
    """Milliseconds of one call."""
    work()
    walls, start = [], time.process_time()
    for _ in range(passes):
        begin = time.perf_counter()
        work()
        walls.append(time.perf_counter() - begin)
    cpu = (time.process_time() - start) / passes
    return {"wall": round(1e3 * statistics.median(walls), 1), "cpu": round(1e3 * cpu, 1)}


def nets(batch: int) -> dict[str, dict[str, float]]:
    """Milliseconds a frame of each step, on frames of 640 x 360."""
    from PIL import Image

    from elmd.extractors._face_geometry import Place
    from elmd.extractors._face_nets import cut
    from elmd.extractors.face import Config, Extractor

    extractor = Extractor(Config())
    frames = [np.asarray(Image.fromarray(scene(i)).resize((640, 360))) for i in range(batch)]
    loaded = extractor._nets
    crops = np.stack([cut(frame, Place.of(np.array([200.0, 50, 120, 120]))) for frame in frames])
    steps: dict[str, Callable[[], Any]] = {
        "detect": lambda: loaded.detect(frames, 416, 0.3),
        "cut": lambda: [cut(frame, Place.of(np.array([200.0, 50, 120, 120]))) for frame in frames],
        "landmarks": lambda: loaded.mark(crops),
        "expression": lambda: loaded.express(crops),
    }
    rows = {name: timed(work) for name, work in steps.items()}
    return {name: {key: round(value / batch, 2) for key, value in row.items()} for name, row in rows.items()}


def resident() -> float:
    """Memory of this process in MiB, now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def long_clip(minutes: float) -> dict[str, float]:
    """Memory over a long stream of frames, whose rows are dropped as they come."""
    from PIL import Image

    from elmd.extractors.face import Config, Extractor
    from elmd.media import Frame

    base = [np.asarray(Image.fromarray(scene(i)).resize((640, 360))) for i in range(0, 80, 8)]

    def frames() -> Iterator[Frame]:
        for i in range(round(minutes * 240)):
            yield Frame(i / 4, base[i % len(base)].copy())

    sizes = [resident() for features in Extractor(Config()).watch(frames()) if features.times[0, 0] % 60 == 0]
    return {"minutes": minutes, "first_minute_mib": round(sizes[1], 1), "last_minute_mib": round(sizes[-1], 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    begin = time.perf_counter()
    import torch

    torch.set_num_threads(asked.threads)
    imported = time.perf_counter() - begin
    from elmd.extractors.face import Config, Extractor
    from elmd.media import Clip

    extractor, begin = Extractor(Config()), time.perf_counter()
    _ = extractor._nets
    found: dict[str, Any] = {"threads": asked.threads, "import_torch_s": round(imported, 2)}
    found["load_s"] = round(time.perf_counter() - begin, 3)
    found["ms_a_frame"] = nets(8)
    print(json.dumps(found), file=sys.stderr)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        write(path, 10)
        begin = time.perf_counter()
        next(extractor.watch(Clip(path).frames(4.0)))
        found["first_state_s"] = round(time.perf_counter() - begin, 2)
        decoding = timed(lambda: [*Clip(path).frames(4.0)], 3)
        whole = timed(lambda: extractor.extract(Clip(path)), 3)
        found["rows_of_10_s"] = len(extractor.extract(Clip(path)))
    found["real_time_factor"] = {"decoding": round(decoding["wall"] / 1e4, 3), "whole": round(whole["wall"] / 1e4, 3)}
    found["cpu_seconds_of_10_s"] = round(whole["cpu"] / 1e3, 2)
    print(json.dumps(found), file=sys.stderr)
    found["memory"] = long_clip(asked.minutes)
    found["peak_mib"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    print(json.dumps(found, indent=1))
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
