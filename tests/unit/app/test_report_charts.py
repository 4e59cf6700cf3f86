"""Charts of the report: what is left out of a long line, and where grid lines lie."""

from __future__ import annotations

import numpy as np
import pytest

from cryptoalpha.app.report.charts import thin, thin_rows
from cryptoalpha.app.report.picture import ticks


def test_thinning_keeps_the_ends_every_peak_and_every_trough_of_a_stretch():
    values = np.sin(np.arange(20_000) / 50.0)
    values[7_777], values[12_345] = 9.0, -9.0
    kept = thin(values, 500)
    assert kept.size <= 500
    assert {0, 7_777, 12_345, 19_999} <= set(kept.tolist())
    assert np.all(np.diff(kept) > 0)
    assert thin(values[:300], 500).tolist() == list(range(300))


def test_thinning_rows_follows_the_column_that_moves_most():
    rows = np.zeros((5_000, 3))
    rows[2_500, 1] = 1.0
    assert 2_500 in thin_rows(rows, 100).tolist()


def test_grid_lines_lie_at_round_values():
    assert ticks(0.49, 3.38).tolist() == pytest.approx([1.0, 2.0, 3.0])
    assert ticks(-0.411, 0.0).tolist() == pytest.approx([-0.4, -0.3, -0.2, -0.1, 0.0])
    assert ticks(0.0, 1.0).tolist() == pytest.approx([0.0, 0.2, 0.4, 0.6, 0.8, 1.0])
