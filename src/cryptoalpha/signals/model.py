"""What a signal model is: bars and readings of one window in, one opinion per bar and instrument out.

The promises every model keeps (`tests/contracts/test_signal_models.py`):

- Row t is a pure function of what was known at `panel.known_at[t]` and of at most `reach` rows before t, to the last bit. So later rows
  change nothing, and a window cut at the front changes nothing either, as long as `reach` rows remain.
- Where an input is missing there is no opinion (NaN); an absent bar has none.
- Values lie in [−1, 1], confidences in [0, 1].
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from cryptoalpha.signals.frame import Frame
from cryptoalpha.store.tables import Floats


@dataclass(frozen=True, eq=False)
class Opinions:
    """One source's opinions. Shapes: `[T, A]`; NaN = none, in all three at once.

    `impact` is the expected move over the horizon in units of the instrument's volatility over that horizon. `reference` is the place in
    `references` of the text an opinion was read from, −1 where there is none. `traces` are arrays `[T, ...]` that the audit compares:
    fitted weights, scalers, labels. `quantiles` `[T, A, Q]`, for sources that have them, are quantiles of the move over the source's
    shortest horizon h, rising, in units of σ_t √h; all NaN where there is no opinion.
    """

    value: Floats
    confidence: Floats
    impact: Floats
    reference: npt.NDArray[np.int64] | None = None
    references: tuple[str, ...] = ()
    traces: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)
    quantiles: Floats | None = None


class SignalModel(Protocol):
    """A source of opinions. Stateless: all it knows is in its configuration and the frame."""

    source: str
    type: str
    """Family of evidence: `price`, `volatility`, `funding`, `mood`, `news`, `chain`, `model`."""
    horizon: int
    """How far ahead it looks, ns."""

    def reach(self, interval: int) -> int:
        """Rows before t, for bars of `interval` ns, beyond which nothing can change row t."""
        ...

    def compute(self, frame: Frame) -> Opinions:
        """Opinions at every row of the frame from `frame.first` on."""
        ...


def opinions(
    frame: Frame,
    value: Floats,
    confidence: Floats,
    impact: Floats,
    *,
    reference: npt.NDArray[np.int64] | None = None,
    references: tuple[str, ...] = (),
    traces: Mapping[str, npt.NDArray[Any]] | None = None,
    quantiles: Floats | None = None,
) -> Opinions:
    """Opinions with the common rules applied: bounded, and none where the bar or any part is missing.

    Shapes: `[T, A]` each, `quantiles` `[T, A, Q]`.
    """
    there = frame.usable & np.isfinite(value) & np.isfinite(confidence) & np.isfinite(impact)
    if quantiles is not None:
        there = there & np.isfinite(quantiles).all(axis=2)
    return Opinions(
        value=np.where(there, np.clip(value, -1.0, 1.0), np.nan),
        confidence=np.where(there, np.clip(confidence, 0.0, 1.0), np.nan),
        impact=np.where(there, impact, np.nan),
        reference=None if reference is None else np.where(there, reference, -1),
        references=references,
        traces=traces or {},
        quantiles=None if quantiles is None else np.where(there[:, :, None], quantiles, np.nan),
    )
