"""openSMILE's eGeMAPS v02: 88 functionals of the voice a window; openSMILE is free for research and personal use only.

eGeMAPS: Eyben et al. 2016. openSMILE's licence forbids commercial products, so it is an extra and never the default.
"""

import warnings
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from elmd.config import Strict
from elmd.extractors._windows import RATE, windows
from elmd.types import Features

if TYPE_CHECKING:
    from elmd.media import Clip

REQUIRES = {"opensmile": "opensmile"}
_PITCH = "F0semitoneFrom27.5Hz_sma3nz_amean"


class Config(Strict):
    """Windows, in seconds."""

    window: float = Field(default=2.0, ge=0.5, le=60)
    hop: float = Field(default=1.0, ge=0.25, le=60)


class Extractor:
    """Measures the voice of a clip with openSMILE."""

    name = "opensmile"
    modality = "audio"

    def __init__(self, config: Config | None = None) -> None:
        self.config = config or Config()

    @property
    def revision(self) -> str:
        """Changes with what the values depend on."""
        import opensmile

        return f"1/{opensmile.__version__}/{self.config.model_dump_json()}"

    @property
    def columns(self) -> tuple[str, ...]:
        """The names that openSMILE gives the 88 functionals."""
        return tuple(self._smile.feature_names)

    def extract(self, clip: "Clip") -> Features:
        """Return a row for every window of the clip that has a pitch; none where there is no sound."""
        return self.measure(clip.audio())

    def measure(self, audio: np.ndarray) -> Features:
        """Return a row for every window of mono audio, 16 kHz in [-1, 1], that has a pitch."""
        rows, times = [], []
        pitch = self.columns.index(_PITCH)
        for start, end in windows(len(audio), round(self.config.window * RATE), round(self.config.hop * RATE)):
            row = self._functionals(audio[start:end])
            if np.isfinite(row).all() and row[pitch] > 0:
                rows.append(row)
                times.append((start / RATE, end / RATE))
        return Features(
            np.array(times, dtype=np.float32).reshape(-1, 2),
            np.array(rows, dtype=np.float32).reshape(-1, len(self.columns)),
            self.columns,
        )

    def _functionals(self, audio: np.ndarray) -> np.ndarray:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a segment that is too short comes back as NaN, and is left out
            row: np.ndarray = self._smile.process_signal(audio, RATE).to_numpy(dtype=np.float32)[0]
        return row

    @cached_property
    def _smile(self) -> Any:
        import opensmile

        return opensmile.Smile(opensmile.FeatureSet.eGeMAPSv02, opensmile.FeatureLevel.Functionals)
