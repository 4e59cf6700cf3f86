"""What a forecaster said, what happened, and how the two are put side by side.

Axes: `T` moments, `N` assets, `H` horizons, `Q` quantiles. Moves and volatilities are in units of σ_t √h, as in `nets.forecaster.values`.
NaN = not said, or not known. Classes are up 0, down 1, sideways 2.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from cryptoalpha.core.errors import DataError

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

UP, DOWN, SIDEWAYS = 0, 1, 2


@dataclass(frozen=True, eq=False)
class Predictions:
    """What one model said at every moment. A part that a model does not have is None, and is not judged."""

    name: str
    location: Floats | None = None
    """Expected move, `[T, N, H]`."""
    direction: Floats | None = None
    """Probabilities of up, down, sideways, `[T, N, H, 3]`."""
    volatility: Floats | None = None
    """Volatility over the horizon, above 0, `[T, N, H]`."""
    confidence: Floats | None = None
    """Probability that the likeliest class comes true, `[T, N, H]`."""
    quantiles: Floats | None = None
    """Quantiles of the move, rising, `[T, N, H, Q]`."""

    def parts(self) -> dict[str, Floats]:
        """The parts that there are, by name."""
        named = {name: getattr(self, name) for name in ("location", "direction", "volatility", "confidence", "quantiles")}
        return {name: part for name, part in named.items() if part is not None}

    def rows(self, chosen: npt.NDArray[np.int64]) -> Predictions:
        """Only some moments."""
        return Predictions(self.name, **{name: part[chosen] for name, part in self.parts().items()})

    def under(self, name: str) -> Predictions:
        """The same under another name."""
        return replace(self, name=name)


@dataclass(frozen=True, eq=False)
class Outcomes:
    """What happened. `sideways` is the largest move that is neither up nor down."""

    known_at: npt.NDArray[np.int64]
    """When each row was decided on, UTC ns, `[T]`."""
    move: Floats
    """`[T, N, H]`."""
    volatility: Floats
    """Realised volatility over the horizon, `[T, N, H]`."""
    horizon_bars: tuple[int, ...]
    sideways: float

    def __post_init__(self) -> None:
        shape = (len(self.known_at), *self.move.shape[1:])
        if self.move.ndim != 3 or self.move.shape != shape or self.volatility.shape != shape or shape[2] != len(self.horizon_bars):
            raise DataError(
                f"moves {self.move.shape} and volatilities {self.volatility.shape} for {len(self.known_at)} moments and "
                f"{len(self.horizon_bars)} horizons: expected [T, N, H]"
            )

    def rows(self, chosen: npt.NDArray[np.int64]) -> Outcomes:
        """Only some moments."""
        return replace(self, known_at=self.known_at[chosen], move=self.move[chosen], volatility=self.volatility[chosen])

    def classes(self) -> npt.NDArray[np.int64]:
        """Which class came true, `[T, N, H]`; −1 where the move is not known."""
        return classes_of(self.move, self.sideways)


def classes_of(move: Floats, sideways: float) -> npt.NDArray[np.int64]:
    """Up 0, down 1, sideways 2 of each move; −1 where it is NaN. Any shape."""
    with np.errstate(invalid="ignore"):
        found = np.where(np.abs(move) <= sideways, SIDEWAYS, np.where(move > 0.0, UP, DOWN))
    return np.where(np.isfinite(move), found, -1)


def joined(parts: list[Predictions], name: str) -> Predictions:
    """What the models of several folds said, one after the other. A part counts only if all have it."""
    named = [part.parts() for part in parts]
    common = [key for key in named[0] if all(key in each for each in named)]
    return Predictions(name, **{key: np.concatenate([each[key] for each in named]) for key in common})


def check(predictions: Predictions, outcomes: Outcomes) -> None:
    """Refuse shapes that do not fit what happened.

    Raises:
        DataError: naming the part.
    """
    for name, part in predictions.parts().items():
        if part.shape[:3] != outcomes.move.shape:
            raise DataError(f"{predictions.name}: {name} has the shape {part.shape}, what happened {outcomes.move.shape}")
