"""Bring features to one scale, with statistics of the training rows and no others.

Centre and scale are median and median distance (× 1.4826, which equals the standard deviation of normal data): one bad print must not
decide them. Scaled values are cut at ±8; a missing value becomes 0, the centre, and the mask says which ones were observed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.store.tables import Floats

CLIP = 8.0
"""Scaled values beyond this are cut."""

MAD_TO_DEVIATION = 1.4826


@dataclass(frozen=True, eq=False)
class Scaler:
    """Centre and scale of F features, and the moment the newest row they were fitted on became known.

    Shapes: `centre`, `scale` `[F]`; `scale` is 0 for a feature that never varied or was never observed: it scales to 0.
    """

    centre: Floats
    scale: Floats
    fitted_until: int

    def apply(self, values: npt.NDArray[np.floating[Any]], clip: float = CLIP) -> tuple[Floats, npt.NDArray[np.bool_]]:
        """Scaled values, cut at ± `clip`, and which were observed. Shapes: `[..., F]` → `[..., F]`, `[..., F]`; never NaN."""
        observed = np.isfinite(values) & (self.scale > 0.0)
        with np.errstate(invalid="ignore", over="ignore"):
            scaled = np.clip((values - self.centre) / np.where(self.scale > 0.0, self.scale, 1.0), -clip, clip)
        return np.where(observed, scaled, 0.0), observed


def fit_scaler(rows: Floats, *, fitted_until: int) -> Scaler:
    """Fit on the training rows. Shapes: `[n, F]`, NaN = missing.

    A feature whose median distance is 0 (most rows equal) takes its standard deviation as scale.

    Raises:
        ConfigError: if `rows` is not two-dimensional.
    """
    if rows.ndim != 2:
        raise ConfigError(f"fit_scaler: rows of shape {rows.shape}", hint="flatten time and assets to [n, F]")
    width = rows.shape[1]
    centre, scale = np.zeros(width), np.zeros(width)
    for f in range(width):
        seen = rows[:, f][np.isfinite(rows[:, f])]
        if seen.size:
            centre[f] = np.median(seen)
            scale[f] = MAD_TO_DEVIATION * np.median(np.abs(seen - centre[f])) or np.std(seen)
    scale[~np.isfinite(scale)] = 0.0
    return Scaler(centre, scale, fitted_until)
