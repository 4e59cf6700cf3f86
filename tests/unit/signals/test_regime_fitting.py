"""How the temper of a chain is chosen: on the later half of the rows with features, by a scaler that has seen the earlier half alone."""

from __future__ import annotations

import numpy as np
import pytest

from cryptoalpha.core.seeds import stream
from cryptoalpha.core.time import DAY
from cryptoalpha.signals.config import RegimeConfig
from cryptoalpha.signals.regime import fitting
from cryptoalpha.signals.regime.features import TREND, VOLATILITY
from cryptoalpha.signals.regime.fitting import fit_regime, foretold
from cryptoalpha.signals.regime.model import RegimeDesign, RegimeModel
from cryptoalpha.signals.scaler import fit_scaler

DESIGN = RegimeDesign(RegimeConfig(spell_days=10.0), DAY)
BEGIN, EMPTY, END = 30, 70, 870


@pytest.fixture(scope="module")
def features() -> np.ndarray:
    """Two instruments whose features stay high or low for a while; none before row 70, and twice as wide in the later half."""
    random = stream(5, "fitting")
    level = np.cumsum(random.random(END) < 0.05) % 2 * 2.0 - 1.0
    found = level[:, None, None] + random.standard_normal((END, 2, 20))
    found[(EMPTY + END) // 2 :] *= 2.0
    found[:EMPTY] = np.nan
    return found


@pytest.fixture(autouse=True)
def two_tempers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitting, "TEMPERS", (1.0, 0.1))


def test_a_temper_is_judged_on_rows_that_neither_chain_nor_scaler_has_seen(features: np.ndarray) -> None:
    _, fits = fit_regime(features, DESIGN, begin=BEGIN, end=END, usable_from=1, fitted_until=0)
    later = (EMPTY + END) // 2  # half of the rows that have features
    scaled = RegimeModel.scale(features, fit_scaler(features[EMPTY:later].reshape(-1, 20), fitted_until=0))
    for name, states, axis in (("trend", 3, TREND), ("volatility", 2, VOLATILITY)):
        chain = fitting._fit(scaled[BEGIN:later, :, axis], states, 0.1, DESIGN).model
        assert fits[name].scores[0.1] == pytest.approx(foretold(chain, scaled[BEGIN:, :, axis], later - BEGIN, DAY))


@pytest.mark.parametrize(("lead", "chosen"), [(0.02, 0.1), (0.04, 1.0), (-1.0, 0.1)])
def test_of_near_equals_the_more_cautious_temper_is_taken(
    features: np.ndarray, monkeypatch: pytest.MonkeyPatch, lead: float, chosen: float
) -> None:
    monkeypatch.setattr(fitting, "foretold", lambda chain, *given: lead if chain.temper == 1.0 else 0.0)
    _, fits = fit_regime(features[:400], DESIGN, begin=0, end=400, usable_from=1, fitted_until=0)
    assert {name: fit.temper for name, fit in fits.items()} == {"trend": chosen, "volatility": chosen}
