"""Self-MM: one multimodal and three unimodal tasks, the labels of the latter generated (Yu et al., AAAI 2021).

Paper: "Learning Modality-Specific Representations with Self-Supervised Multi-Task Learning for Multimodal Sentiment
Analysis". Sizes are those of the authors' framework for MOSI. Choices made here: the encoder of the text works outside
the model, and the text is by default the mean of its vectors (see `text_pool`), not [CLS]; labels of exactly 0 belong
to neither centre, as in the paper; see `_ulgm` for the rest.
"""

import torch
from torch import nn

from elmd.sentiment.base import Prediction, Shape
from elmd.sentiment.batch import Batch
from elmd.sentiment.models._ulgm import FUSED, LastState, MultiTask, TaskConfig, pooled


class Config(TaskConfig):
    """Sizes of Self-MM."""

    audio: int = 16
    """Width of the audio's vector."""
    vision: int = 32
    audio_state: int = 16
    """Width of the state of the audio's LSTM."""
    vision_state: int = 32


class Model(MultiTask):
    """LSTMs over audio and vision, their last states beside the text's vector, and a head a task."""

    config: Config

    def __init__(self, config: Config, shape: Shape) -> None:
        widths = {"text": shape.widths["text"], "audio": config.audio, "vision": config.vision}
        super().__init__(config, shape, {FUSED: sum(widths.values()), **widths})
        self.encoders = nn.ModuleDict(
            {
                "audio": LastState(shape.widths["audio"], config.audio_state, config.audio),
                "vision": LastState(shape.widths["vision"], config.vision_state, config.vision),
            }
        )

    def forward(self, batch: Batch) -> Prediction:
        """Encode each modality alone, and all of them together; see `SentimentModel`."""
        inputs = self.inputs(batch)
        vectors = {
            "text": pooled(inputs["text"], self.config.text_pool),
            "audio": self.encoders["audio"](inputs["audio"]),
            "vision": self.encoders["vision"](inputs["vision"]),
        }
        return self.predict(batch, {FUSED: torch.cat(list(vectors.values()), -1), **vectors})

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Return the encoders of audio and vision as "audio" and "vision", the rest as "main"."""
        return self.groups_by_prefix(audio=("encoders.audio.",), vision=("encoders.vision.",))
