"""Estimates of mutual information between vectors: a variational q(y|x), its bounds, Gaussian entropy, CPC.

With q(y|x) fitted by likelihood, I(x; y) is bounded from below by E log q(y|x) + H(y) (Barber and Agakov 2003, "The IM
algorithm") and by InfoNCE with log q as the critic (Oord et al. 2018, "Representation Learning with Contrastive
Predictive Coding"), from above by vCLUB (Cheng et al. 2020, "CLUB: A Contrastive Log-ratio Upper Bound of Mutual
Information"). All take the mask of the rows that count; with no such row they are 0.
"""

from math import e, log, pi

import torch
from torch import Tensor, nn
from torch.nn import functional

from elmd.labels import EKMAN, POLARITY, polarity
from elmd.sentiment.target import Target

_SIGN = {name: float(POLARITY.index(name) - 1) for name in POLARITY}
_SIGN |= {name: _SIGN[polarity(name)] for name in EKMAN if name not in _SIGN}
"""Every class of any target as -1, 0 or 1 (both sets have a "neutral")."""


class Likelihood(nn.Module):
    """q(y|x), a diagonal Gaussian whose mean and variance are networks of x.

    The log-variance ends in tanh, so that neither a vanishing nor an endless variance can buy likelihood.

    Args:
        given: Width of x.
        width: Width of y.
        hidden: Width inside the networks, `width` when None.
    """

    def __init__(self, given: int, width: int, hidden: int | None = None) -> None:
        super().__init__()
        hidden = hidden or width
        self.mean = nn.Sequential(nn.Linear(given, hidden), nn.ReLU(), nn.Linear(hidden, width))
        self.log_variance = nn.Sequential(nn.Linear(given, hidden), nn.ReLU(), nn.Linear(hidden, width), nn.Tanh())

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Return log q(y_j|x_i), without its constant, of all pairs of rows, (B, B)."""
        mean, log_variance, y = self.mean(x).float(), self.log_variance(x).float(), y.float()
        precision = torch.exp(-log_variance)
        # The square is multiplied out, so that no (B, B, width) tensor is needed; bf16 would cancel to noise here.
        with torch.autocast(y.device.type, enabled=False):
            crossed = precision @ (y**2).T - 2 * (mean * precision) @ y.T
        scores: Tensor = -0.5 * (crossed + (mean**2 * precision + log_variance).sum(-1, keepdim=True))
        return scores


def log_likelihood(scores: Tensor, mask: Tensor) -> Tensor:
    """Return E log q(y|x) from the scores of all pairs (B, B)."""
    return mean_of(scores.diagonal(), mask)


def vclub(scores: Tensor, mask: Tensor) -> Tensor:
    """Return the upper bound E log q(y|x) - E log q(y'|x) from the scores of all pairs (B, B)."""
    others = (scores * mask).sum(-1) / mask.sum().clamp(min=1)
    return mean_of(scores.diagonal() - others, mask)


def info_nce(scores: Tensor, mask: Tensor) -> Tensor:
    """Return the lower bound E log(exp f(x, y) / mean exp f(x', y)) from the scores f of all pairs (B, B).

    The contrast is over x: for these scores the bound is tight then, as log q(y|x) lacks only a term of y.
    """
    scores, count = scores.float(), mask.sum().clamp(min=1)
    # A finite floor: a column of nothing but -inf has no gradient but nan.
    against = scores.masked_fill(~mask[:, None], -1e9).logsumexp(0) - count.log()
    return mean_of(scores.diagonal() - against, mask)


class CPC(nn.Module):
    """How well a fused vector tells a modality's own from those of the other rows: cosines as the scores of InfoNCE.

    Args:
        width: Of the modality's vector.
        fused: Of the fused vector, from which it is predicted.
    """

    def __init__(self, width: int, fused: int) -> None:
        super().__init__()
        self.predict = nn.Linear(fused, width)

    def forward(self, x: Tensor, fused: Tensor, mask: Tensor) -> Tensor:
        """Return the lower bound of I(x; fused), a scalar."""
        predicted = functional.normalize(self.predict(fused).float(), dim=-1)
        return info_nce(predicted @ functional.normalize(x.float(), dim=-1).T, mask)


def gaussian_entropy(points: Tensor, mask: Tensor, ridge: float = 1e-3) -> Tensor:
    """Return the entropy of a Gaussian fitted to the rows of `points` (N, d) that `mask` (N,) counts, a scalar.

    It is 0 with too few rows for a covariance of full rank: they say nothing of the entropy.

    Args:
        points: Vectors.
        mask: Which rows count.
        ridge: Added to the variances, without which a direction that hardly varies has an endless gradient.
    """
    width = points.shape[1]
    count = mask.sum()
    with torch.autocast(points.device.type, enabled=False):
        points = points.float() * mask[:, None]
        centred = (points - points.sum(0) / count.clamp(min=1)) * mask[:, None]
        covariance = centred.T @ centred / count.clamp(min=1) + ridge * torch.eye(width, device=points.device)
        entropy = 0.5 * torch.logdet(covariance) + 0.5 * width * log(2 * pi * e)
    return torch.where(count > width, entropy, 0.0)


def mean_of(rows: Tensor, mask: Tensor) -> Tensor:
    """Return the mean of (B,) over the rows that count, 0 when none does."""
    return (rows * mask).sum() / mask.sum().clamp(min=1)


def signs(target: Target, labels: Tensor) -> Tensor:
    """Return whether each label (B, width) is negative, neutral or positive, (B,) in -1, 0, 1; nan where unknown.

    Numbers go by their sign (valence and arousal by the valence's), classes by their polarity.
    """
    first = labels[:, 0]
    if target.labels:
        found = first.new_tensor([_SIGN[name] for name in target.labels])[first.nan_to_num(0.0).long()]
    else:
        found = first.sign()
    # The sign of nan is 0.
    return found.where(target.known(labels), torch.nan)
