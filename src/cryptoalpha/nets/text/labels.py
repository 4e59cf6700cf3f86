"""Which side a label is on, by its name and never by its index.

Published sentiment models put their classes in any order (positive, negative, neutral; bearish, neutral, bullish; neutral first), so only
the names in a model's `id2label` say what its numbers mean. Names without a side, such as LABEL_0, are refused.

Polarity of a class: in sets of two or three classes −1, 0, 1; where there are grades, very negative −1, negative −½, neutral 0, positive ½,
very positive 1; stars 1 to 5 likewise. The expected polarity Σ p·polarity then lies in [−1, 1].
"""

from __future__ import annotations

from collections.abc import Mapping

from cryptoalpha.core.errors import ModelError

SENTIMENTS = ("very negative", "negative", "neutral", "positive", "very positive")
POLARITY = (-1.0, -0.5, 0.0, 0.5, 1.0)

_SIDES = {
    "negative": -1, "neg": -1, "bearish": -1, "bear": -1, "down": -1, "sell": -1, "bad": -1,
    "neutral": 0, "neu": 0, "none": 0, "hold": 0, "sideways": 0, "mixed": 0,
    "positive": 1, "pos": 1, "bullish": 1, "bull": 1, "up": 1, "buy": 1, "good": 1,
}  # fmt: skip
_STRONG = ("very", "strong", "strongly", "extremely")
_STARS = {f"{n} star{'s' if n > 1 else ''}": grade for n, grade in enumerate(POLARITY, 1)}


def polarities(labels: Mapping[int, str], where: str) -> tuple[float, ...]:
    """Polarity of each class of a model, by index.

    Args:
        labels: the model's `id2label`.
        where: the model's name, for the error.

    Raises:
        ModelError: if a name says no side, names do not count 0, 1, 2 …, or there are not two different sides.
    """
    names = [" ".join(str(labels[i]).lower().replace("_", " ").replace("-", " ").split()) for i in sorted(labels)]
    if sorted(labels) != list(range(len(names))):
        raise ModelError(f"{where} numbers its labels {sorted(labels)}, expected 0 to {len(names) - 1}")
    if set(names) <= set(_STARS):
        found = [_STARS[name] for name in names]
    else:
        graded = any(_is_strong(name) for name in names)
        found = [_polarity(name, graded=graded, where=where, names=names) for name in names]
    if len(set(found)) < 2:
        raise ModelError(f"the labels of {where} are all on one side: {', '.join(names)}")
    return tuple(found)


def _is_strong(name: str) -> bool:
    return name.partition(" ")[0] in _STRONG


def _polarity(name: str, *, graded: bool, where: str, names: list[str]) -> float:
    strong = _is_strong(name)
    side = _SIDES.get(name.partition(" ")[2] if strong else name)
    if side is None:
        raise ModelError(
            f"label {name!r} of {where} says no side (its labels: {', '.join(names)})",
            hint="use a model whose id2label names sentiments such as positive, neutral, bearish; or write the names into its config.json",
        )
    return side * (1.0 if strong or not graded else 0.5)
