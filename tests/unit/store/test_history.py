"""The history: what is written comes back with its origin; what is damaged, doubled or missing is named."""

from __future__ import annotations

import hashlib
import sqlite3
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import duckdb
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from cryptoalpha.core.errors import ConfigError, DataMissingError, StoreError, StoreLockedError
from cryptoalpha.core.time import DAY, HOUR, parse_time
from cryptoalpha.core.values import InstrumentRules
from cryptoalpha.store.history import History
from cryptoalpha.store.home import Home
from cryptoalpha.store.lock import StoreLock
from cryptoalpha.store.partition import Series
from cryptoalpha.store.tables import BarTable, PostTable, ReadingTable

START = parse_time("2022-01-30")


def bars(n: int = 96, *, instrument: str = "BTC/USDT", first: int = 0, interval: int = HOUR) -> BarTable:
    """Hourly bars across the end of January 2022; prices tell their place."""
    place = np.arange(first, first + n, dtype=np.float64)
    return BarTable(
        instrument=instrument,
        interval=interval,
        open_time=START + interval * np.arange(first, first + n),
        open=100 + place,
        high=102 + place,
        low=99 + place,
        close=101 + place,
        volume=place,
        taker_buy_volume=np.where(place % 2 == 0, np.nan, place / 2),
    )


def readings(values: list[float], *, asset: str = "BTC", source: str = "chain", lag: int = DAY) -> ReadingTable:
    times = START + DAY * np.arange(len(values))
    return ReadingTable(asset=asset, metric="fees_usd", source=source, happened_at=times, known_at=times + lag, value=np.array(values))


def posts(texts: list[str], source: str = "news") -> PostTable:
    times = START + DAY * np.arange(len(texts))
    return PostTable(
        source=source,
        happened_at=times,
        known_at=times + HOUR,
        text=np.array(texts, object),
        post_id=np.array([f"id{i}" for i in range(len(texts))], object),
    )


@pytest.fixture
def history(tmp_path):
    with History(Home(tmp_path)) as opened:
        yield opened


def assert_same(table: BarTable | ReadingTable | PostTable, expected: BarTable | ReadingTable | PostTable) -> None:
    for name in expected.columns():
        if name not in ("partition", "row"):
            assert_array_equal(getattr(table, name), getattr(expected, name))


def test_bars_come_back_as_written_with_file_and_row(history, tmp_path):
    report = history.write_bars("binance", bars(), origin="test")
    assert (report.partitions, report.added, report.already_there, report.conflicts) == (2, 96, 0, ())
    assert history.load(interval=HOUR).origin.startswith("store: 1 instrument of binance")
    table = history.load(interval=HOUR).bars["BTC/USDT"]
    assert_same(table, bars())
    january = tmp_path / "bars/binance/BTC-USDT/1h/2022-01.parquet"
    february = tmp_path / "bars/binance/BTC-USDT/1h/2022-02.parquet"
    assert table.partition[47] == hashlib.sha256(january.read_bytes()).hexdigest()[:16]
    assert table.partition[48] == hashlib.sha256(february.read_bytes()).hexdigest()[:16]
    assert list(table.row[[0, 47, 48, 95]]) == [0, 47, 0, 47]
    closes = duckdb.connect().execute(f"SELECT close FROM '{february}'").fetchall()
    assert closes[int(table.row[50])] == (table.close[50],)


def test_since_and_until_cut_bars_by_their_open(history):
    history.write_bars("binance", bars(), origin="test")
    table = history.load(interval=HOUR, since=START + 3 * HOUR, until=START + 50 * HOUR).bars["BTC/USDT"]
    assert_array_equal(table.open_time, START + HOUR * np.arange(3, 50))
    assert list(table.row[[0, -1]]) == [3, 1]


def test_newer_bars_join_the_month_and_writing_again_changes_nothing(history, tmp_path):
    history.write_bars("binance", bars(40), origin="test")
    before = history.load(interval=HOUR)
    report = history.write_bars("binance", bars(20, first=30), origin="test")
    assert (report.partitions, report.added, report.already_there) == (2, 10, 10)
    assert_same(history.load(interval=HOUR).bars["BTC/USDT"], bars(50))
    files = {path: path.read_bytes() for path in tmp_path.rglob("*.parquet")}
    report = history.write_bars("binance", bars(50), origin="test")
    assert (report.partitions, report.added, report.already_there) == (0, 0, 50)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.parquet")} == files
    after = history.load(interval=HOUR)
    assert before.fingerprint != after.fingerprint
    assert history.locate(str(before.bars["BTC/USDT"].partition[0])) == ("bars/binance/BTC-USDT/1h/2022-01.parquet", False)
    assert history.locate(str(after.bars["BTC/USDT"].partition[0])) == ("bars/binance/BTC-USDT/1h/2022-01.parquet", True)
    assert history.locate("0" * 16) is None


def test_older_bars_are_sorted_in(history):
    history.write_bars("binance", bars(10, first=10), origin="test")
    history.write_bars("binance", bars(10), origin="test")
    assert_same(history.load(interval=HOUR).bars["BTC/USDT"], bars(20))


def test_a_bar_that_contradicts_the_stored_one_is_reported_and_not_believed(history):
    history.write_bars("binance", bars(10), origin="test")
    other = bars(12)
    close = other.close.copy()
    close[4] = 101.5
    report = history.write_bars("binance", replace(other, close=close), origin="test")
    assert (report.added, report.already_there, len(report.conflicts)) == (2, 9, 1)
    assert str(report.conflicts[0]) == "BTC/USDT at 2022-01-30T04:00:00Z: stored close 105.0, offered close 101.5"
    assert_same(history.load(interval=HOUR).bars["BTC/USDT"], bars(12))


def test_equal_contents_make_equal_files(tmp_path):
    hashes = []
    for name in ("a", "b"):
        with History(Home(tmp_path / name)) as history:
            history.write_bars("binance", bars(), origin="test")
            hashes.append(history.load(interval=HOUR).fingerprint)
    assert hashes[0] == hashes[1]


def test_unsorted_bars_are_sent_to_the_gate(history):
    with pytest.raises(StoreError, match="not sorted and unique") as caught:
        history.write_bars("binance", bars(3).take(np.array([0, 2, 1])), origin="test")
    assert "bar gate" in caught.value.hint


def test_readings_and_posts_come_back_in_the_order_they_became_known(history, tmp_path):
    history.write_bars("binance", bars(), origin="test")
    history.write_readings(readings([1.0, np.nan, 3.0]), origin="test")
    history.write_readings(readings([7.0], asset="*", source="mood"), origin="test")
    history.write_posts(posts(["Bitcoin »rises«", "it's 'quoted'", ""]), origin="test")
    dataset = history.load(interval=HOUR)
    assert_same(dataset.readings["BTC", "fees_usd"], readings([1.0, np.nan, 3.0]))
    assert_same(dataset.readings["*", "fees_usd"], readings([7.0], asset="*"))
    assert_same(dataset.posts["news"], posts(["Bitcoin »rises«", "it's 'quoted'", ""]))
    assert (tmp_path / "readings/mood/market-wide/fees_usd.parquet").is_file()
    assert (tmp_path / "posts/news/2022-02.parquet").is_file()
    assert dataset.posts["news"].partition[0] != ""


def test_readings_known_by_until_come_from_the_beginning(history):
    history.write_bars("binance", bars(), origin="test")
    history.write_readings(readings([1.0, 2.0, 3.0]), origin="test")
    dataset = history.load(interval=HOUR, since=START + 30 * HOUR, until=START + 2 * DAY)
    assert list(dataset.readings["BTC", "fees_usd"].value) == [1.0, 2.0]


def test_a_revision_is_stored_beside_what_it_revises(history):
    history.write_bars("binance", bars(), origin="test")
    history.write_readings(readings([1.0, 2.0]), origin="test")
    history.write_readings(readings([1.5], lag=5 * DAY), origin="test")
    table = history.load(interval=HOUR).readings["BTC", "fees_usd"]
    assert list(table.value) == [1.0, 2.0, 1.5]
    assert list(table.known_at) == [START + DAY, START + 2 * DAY, START + 5 * DAY]


def test_a_post_is_stored_once_and_needs_an_id(history):
    history.write_posts(posts(["a", "b"]), origin="test")
    report = history.write_posts(posts(["a", "changed", "c"]), origin="test")
    assert (report.added, report.already_there, len(report.conflicts)) == (1, 1, 1)
    with pytest.raises(StoreError, match="without a post_id"):
        history.write_posts(replace(posts(["x"]), post_id=np.array([""], object)), origin="test")


def test_two_sources_of_one_series_need_a_choice(history):
    history.write_bars("binance", bars(), origin="test")
    history.write_readings(readings([1.0]), origin="test")
    history.write_readings(readings([2.0], source="other"), origin="test")
    with pytest.raises(StoreError, match="both chain and other offer fees_usd of BTC"):
        history.load(interval=HOUR)
    assert list(history.load(interval=HOUR, sources=["other"]).readings["BTC", "fees_usd"].value) == [2.0]


def test_two_venues_of_one_interval_need_a_choice(history):
    history.write_bars("binance", bars(), origin="test")
    history.write_bars("kraken", bars(10), origin="test")
    with pytest.raises(StoreError, match="binance and kraken"):
        history.load(interval=HOUR)
    assert len(history.load(interval=HOUR, venue="kraken").bars["BTC/USDT"]) == 10


def test_what_is_not_there_is_named_with_what_is(history):
    with pytest.raises(DataMissingError, match=r"no 1h bars\n→") as caught:
        history.load(interval=HOUR)
    assert "data fetch" in caught.value.hint
    history.write_bars("binance", bars(), origin="test")
    with pytest.raises(DataMissingError, match="no 1d bars; it holds 1h bars"):
        history.load(interval=DAY)
    with pytest.raises(DataMissingError, match="bars of DOGE/USDT"):
        history.load(interval=HOUR, instruments=["DOGE/USDT"])
    with pytest.raises(DataMissingError, match="bars of DOGE/USDT from binance"):
        history.load(interval=HOUR, instruments=["BTC/USDT", "DOGE/USDT"])
    with pytest.raises(DataMissingError, match="from kraken"):
        history.load(interval=HOUR, venue="kraken")
    with pytest.raises(DataMissingError, match="from binance from 2030-01-01T00:00:00Z until 2031-01-01T00:00:00Z"):
        history.load(interval=HOUR, since=parse_time("2030-01-01"), until=parse_time("2031-01-01"))


def test_rules_are_kept_per_venue(history):
    rule = InstrumentRules(
        happened_at=0,
        known_at=0,
        instrument="BTC/USDT",
        venue="binance",
        base="BTC",
        quote="USDT",
        lot=Decimal("0.00001"),
        tick=Decimal("0.01"),
        min_notional=Decimal(5),
    )
    history.write_rules([rule, replace_rule(rule, "kraken", "0.1")])
    history.write_rules([replace_rule(rule, "binance", "0.02")])
    history.write_bars("binance", bars(), origin="test")
    assert history.load(interval=HOUR).rules == {"BTC/USDT": replace_rule(rule, "binance", "0.02")}


def replace_rule(rule: InstrumentRules, venue: str, tick: str) -> InstrumentRules:
    import msgspec

    return msgspec.structs.replace(rule, venue=venue, tick=Decimal(tick))


def test_damaged_rules_are_named(history, tmp_path):
    history.write_bars("binance", bars(), origin="test")
    raw = sqlite3.connect(tmp_path / "manifest.sqlite", isolation_level=None)
    raw.execute("INSERT INTO rules VALUES ('binance', 'BTC/USDT', x'00')")
    raw.close()
    with pytest.raises(StoreError, match="rules of binance are damaged"):
        history.load(interval=HOUR)


def test_coverage_sums_a_series_over_its_files(history):
    history.write_bars("binance", bars(), origin="exchange binance")
    history.write_readings(readings([1.0]), origin="files")
    bar_series, reading_series = history.coverage()
    assert bar_series.series == Series("bars", "binance", "BTC/USDT", interval=HOUR)
    assert (bar_series.rows, bar_series.partitions, bar_series.first, bar_series.last) == (96, 2, START, START + 95 * HOUR)
    assert reading_series.origin == "files"


def test_simulated_rows_keep_their_label_and_do_not_mix_with_real_ones(history):
    history.write_bars("planted", bars(), origin="simulated, seed 1", simulated=True)
    assert history.load(interval=HOUR).simulated
    assert history.coverage()[0].simulated
    with pytest.raises(StoreError, match="holds simulated rows"):
        history.write_bars("planted", bars(), origin="exchange")


@pytest.mark.parametrize("damage", ["flip", "truncate", "delete"])
def test_a_damaged_file_is_named_with_the_way_out(history, tmp_path, damage):
    history.write_bars("binance", bars(), origin="test")
    assert history.verify() == []
    path = tmp_path / "bars/binance/BTC-USDT/1h/2022-02.parquet"
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[100] ^= 1
        path.write_bytes(content)
    elif damage == "truncate":
        path.write_bytes(content[:50])
    else:
        path.unlink()
    with pytest.raises(StoreError, match=r"2022-02\.parquet is (damaged|missing)") as caught:
        history.load(interval=HOUR)
    assert "cryptoalpha data verify" in caught.value.hint
    (fault,) = history.verify()
    assert fault.path == "bars/binance/BTC-USDT/1h/2022-02.parquet"
    assert len(history.load(interval=HOUR, until=parse_time("2022-02-01")).bars["BTC/USDT"]) == 48  # January is still good
    with pytest.raises(StoreError):
        history.write_bars("binance", bars(97), origin="test")  # nothing is merged into a damaged file


def test_a_file_that_matches_its_hash_but_is_no_parquet_is_still_refused(history, tmp_path):
    history.write_bars("binance", bars(), origin="test")
    path = tmp_path / "bars/binance/BTC-USDT/1h/2022-02.parquet"
    path.write_bytes(b"garbage")
    raw = sqlite3.connect(tmp_path / "manifest.sqlite", isolation_level=None)
    raw.execute("UPDATE partition SET sha256 = ? WHERE path LIKE '%2022-02%'", (hashlib.sha256(b"garbage").hexdigest(),))
    raw.close()
    with pytest.raises(StoreError, match="not readable as bars"):
        history.load(interval=HOUR)


def test_a_manifest_that_disagrees_about_rows_is_refused(history, tmp_path):
    history.write_bars("binance", bars(), origin="test")
    raw = sqlite3.connect(tmp_path / "manifest.sqlite", isolation_level=None)
    raw.execute("UPDATE partition SET rows = rows + 1")
    raw.close()
    with pytest.raises(StoreError, match="rows are missing"):
        history.load(interval=HOUR)


def test_unknown_files_are_listed_by_verify(history, tmp_path):
    history.write_bars("binance", bars(), origin="test")
    stray = tmp_path / "bars/binance/BTC-USDT/1h/2019-01.parquet"
    stray.write_bytes(b"x")
    left_over = stray.with_name(".2022-01.parquet.1.tmp")
    left_over.write_bytes(b"x")
    assert {(fault.path.rsplit("/", 1)[1], fault.problem) for fault in history.verify()} == {
        ("2019-01.parquet", "not in the manifest"),
        (".2022-01.parquet.1.tmp", "left over from an interrupted write"),
    }
    history.write_bars("binance", bars(), origin="test")
    assert not left_over.exists()


def test_a_folder_name_with_pattern_letters_and_quotes_is_a_folder(tmp_path):
    with History(Home(tmp_path / "it's [1]*?")) as history:
        history.write_bars("binance", bars(), origin="test")
        assert_same(history.load(interval=HOUR).bars["BTC/USDT"], bars())


def test_perpetuals_have_their_own_folder_and_names_cannot_leave_the_store(history, tmp_path):
    history.write_bars("binance", bars(instrument="BTC/USDT:USDT"), origin="test")
    assert (tmp_path / "bars/binance/BTC-USDT_USDT/1h/2022-01.parquet").is_file()
    for venue in ("..", "a b", ""):
        with pytest.raises(ConfigError, match="cannot be stored under its name"):
            history.write_bars(venue, bars(), origin="test")


def test_writing_waits_for_nobody_and_reading_needs_no_lock(tmp_path):
    with History(Home(tmp_path)) as history, StoreLock(Home(tmp_path)) as held:
        with pytest.raises(StoreLockedError):
            history.write_bars("binance", bars(), origin="test")
        with History(Home(tmp_path), lock=held) as holder:
            holder.write_bars("binance", bars(), origin="test")
            assert held.is_held
        assert_same(history.load(interval=HOUR).bars["BTC/USDT"], bars())


def test_a_store_that_cannot_be_written_is_refused_at_once(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written"):
        History(Home(tmp_path / "file"))


def test_a_folder_that_is_a_file_stops_the_write_with_nothing_half_done(history, tmp_path):
    (tmp_path / "bars").write_text("in the way")
    with pytest.raises(StoreError, match="cannot be written"):
        history.write_bars("binance", bars(), origin="test")
    assert history.coverage() == []


def test_a_rename_that_fails_leaves_the_old_file(history, monkeypatch, tmp_path):
    history.write_bars("binance", bars(10), origin="test")

    def no_space(source: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("cryptoalpha.store.partition.os.replace", no_space)
        with pytest.raises(StoreError, match="No space left"):
            history.write_bars("binance", bars(20), origin="test")
    assert_same(history.load(interval=HOUR).bars["BTC/USDT"], bars(10))
    assert history.verify()[0].problem == "a write was interrupted"
    history.write_bars("binance", bars(20), origin="test")
    assert history.verify() == []
    assert_same(history.load(interval=HOUR).bars["BTC/USDT"], bars(20))
