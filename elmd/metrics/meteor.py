"""METEOR with exact matches only: no stems and no synonyms, so it is the same for every language (nltk)."""

from collections.abc import Sequence

from elmd.metrics._base import Measure, Settings, mean, signature
from elmd.metrics._tokens import UNITS, Tokenizer, tokenizers
from elmd.types import Judged

NAMES = tuple(f"meteor_{unit}" for unit in UNITS)

ALPHA, BETA, GAMMA = 0.9, 3.0, 0.5
"""Weight of recall, and shape and weight of the fragmentation penalty: nltk's values."""


class _NoStems:
    """A stemmer that leaves words alone."""

    def stem(self, word: str) -> str:
        return word


class _NoSynonyms:
    """A WordNet that knows no word: the real one is English and needs a download."""

    def synsets(self, word: str) -> list[object]:
        return []


def scorer(rows: Sequence[Judged], settings: Settings) -> tuple[Measure, ...]:
    """Return the mean METEOR, 0-100 (Lavie and Agarwal 2007, "Meteor").

    As in METEOR 1.5, a reply that is the reference word for word has no fragmentation penalty and scores 100;
    nltk gives it less, and only 50 when it is one token.
    """
    return tuple(
        Measure(
            f"meteor_{tokenizer.unit}",
            _signature(len(rows), tokenizer),
            mean([_score(tokenizer.tokenize(row.hypothesis), tokenizer.tokenize(row.reference)) for row in rows]),
        )
        for tokenizer in tokenizers(settings.language)
    )


def _score(hypothesis: tuple[str, ...], reference: tuple[str, ...]) -> float:
    from nltk.translate.meteor_score import single_meteor_score

    if hypothesis == reference:
        return 100.0 if hypothesis else 0.0
    weights = {"alpha": ALPHA, "beta": BETA, "gamma": GAMMA}
    score = single_meteor_score(
        reference, hypothesis, preprocess=str, stemmer=_NoStems(), wordnet=_NoSynonyms(), **weights
    )
    return 100.0 * float(score)


def _signature(n: int, tokenizer: Tokenizer) -> str:
    weights = f"{ALPHA:g}/{BETA:g}/{GAMMA:g}"
    parts = {"match": "exact", "alpha/beta/gamma": weights, "identical": 100, "level": "mean", "n": n}
    return signature(f"meteor|{tokenizer.signature}", "nltk", **parts)
