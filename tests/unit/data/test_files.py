"""A directory of history: layout, times of knowledge, and refusals that say what to do. Files are written here with DuckDB."""

from __future__ import annotations

from pathlib import Path

import duckdb
import numpy as np
import pytest

from cryptoalpha.core.errors import BarGateError, DataError, DataMissingError
from cryptoalpha.core.time import DAY, HOUR, iso, parse_time
from cryptoalpha.data.config import FilesConfig
from cryptoalpha.data.files import instrument_of, load_directory
from cryptoalpha.store.bar_gate import BarGate
from cryptoalpha.store.config import BarGateConfig


def write(path: Path, query: str) -> None:
    """Write the rows of a query as Parquet or CSV."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = "(format csv, header)" if path.suffix == ".csv" else "(format parquet)"
    with duckdb.connect() as connection:
        connection.execute("set TimeZone = 'UTC'")
        connection.execute(f"copy ({query}) to '{path}' {kind}")


def bars(hours: int = 48, start: str = "2022-01-01", stamp: str = "ts") -> str:
    """Hourly bars: open 100 + i, range ±1, close open + 0.5, volume 10."""
    return (
        f"select timestamptz '{start} 00:00:00+00' + i * interval 1 hour as {stamp}, 100.0 + i as open, 101.5 + i as high, "
        f"99.0 + i as low, 100.5 + i as close, 10.0 as volume from range({hours}) t(i)"
    )


@pytest.fixture
def history(tmp_path: Path) -> Path:
    """Two instruments, funding, chain, mood and texts of the first two days of 2022."""
    write(tmp_path / "price_1h/BTCUSDT.parquet", bars())
    write(tmp_path / "price_1h/ETHUSDT.parquet", bars(24, "2022-01-02"))
    write(
        tmp_path / "funding_8h/BTCUSDT.parquet",
        "select timestamptz '2022-01-01 00:00:00+00' + i * interval 8 hour as ts, 0.0001 * i as funding_rate from range(6) t(i)",
    )
    write(
        tmp_path / "onchain_1d/btc_coinmetrics.parquet",
        "select timestamptz '2022-01-01 00:00:00+00' + i * interval 1 day as time, 10 + i as AdrActCnt, 1000.0 as CapMrktCurUSD, "
        "2.0 as CapMVRVCur, 3.0 as FeeTotNtv, 50.0 as PriceUSD, 99.0 as NVT_proxy from range(2) t(i)",
    )
    write(
        tmp_path / "onchain_1d/btc_coinmetrics_to202201.parquet",
        "select timestamptz '2022-01-01 00:00:00+00' as time, 7777.0 as AdrActCnt, 1000.0 as CapMrktCurUSD, 250.0 as TxTfrValUSD",
    )
    write(
        tmp_path / "fear_greed_1d.parquet",
        "select timestamptz '2022-01-01 00:00:00+00' + i * interval 1 day as date, 20 + i as fear_greed from range(2) t(i)",
    )
    write(
        tmp_path / "text/a_descriptions.parquet",
        "select timestamptz '2022-01-01 05:00:30+00' as ts, 'Coins rise' as text, 0.9 as transformer_sentiment "
        "union all select timestamptz '2022-01-01 00:00:00+00', 'No hour given', 0.1",
    )
    write(
        tmp_path / "text/b_titles.parquet",
        "select timestamptz '2022-01-01 05:00:00+00' as ts, 'A title' as title, 'Coins  rise' as text "
        "union all select timestamptz '2022-01-01 09:00:00+00', 'Again', 'Coins rise'",
    )
    write(tmp_path / "text/major_events.parquet", "select timestamptz '2022-01-01 00:00:00+00' as date, 'Hindsight' as title")
    return tmp_path


def test_every_row_carries_the_time_it_became_known(history: Path) -> None:
    dataset = load_directory(history, gate=BarGate())
    assert " 1 instrument, " in load_directory(history, gate=BarGate(), instruments=["BTC/USDT"]).origin
    day = parse_time("2022-01-01")
    assert sorted(dataset.bars) == ["BTC/USDT", "ETH/USDT"]
    btc = dataset.bars["BTC/USDT"]
    assert (int(btc.open_time[0]), int(btc.known_at[0])) == (day, day + HOUR)
    funding = dataset.readings["BTC", "funding_rate"]
    assert funding.known_at.tolist() == funding.happened_at.tolist() == [day + 8 * HOUR * i for i in range(6)]
    active = dataset.readings["BTC", "active_addresses"]
    assert active.known_at.tolist() == [day + DAY + HOUR, day + 2 * DAY + HOUR]
    assert dataset.readings["*", "fear_greed"].known_at.tolist() == [day + HOUR, day + DAY + HOUR]
    news = dataset.posts["news"]
    assert [iso(int(t)) for t in news.known_at] == ["2022-01-01T06:00:00Z", "2022-01-02T01:00:00Z"]


def test_equal_texts_keep_only_the_one_known_first(history: Path) -> None:
    news = load_directory(history, gate=BarGate()).posts["news"]
    assert news.text.tolist() == ["A title. Coins  rise", "No hour given"]
    until = parse_time("2022-01-01T05:00:10") + HOUR  # before the copy with seconds became known
    assert load_directory(history, gate=BarGate(), until=until).posts["news"].text.tolist() == ["A title. Coins  rise"]


def test_derived_metrics_are_recomputed_and_the_full_file_counts_first(history: Path) -> None:
    readings = load_directory(history, gate=BarGate()).readings
    assert readings["BTC", "active_addresses"].value.tolist() == [10.0, 11.0]
    assert readings["BTC", "realised_cap_usd"].value[0] == 500.0  # 1000 / MVRV 2
    assert readings["BTC", "fees_usd"].value[0] == 150.0  # 3 coins at 50
    assert readings["BTC", "nvt"].value.tolist() == [4.0]  # 1000 / 250, from the second file, not its author's proxy
    assert ("BTC", "transactions") not in readings


def test_the_lags_are_settings(history: Path) -> None:
    dataset = load_directory(history, gate=BarGate(), config=FilesConfig(chain_lag_hours=6, mood_lag_hours=2, text_embargo_hours=0))
    day = parse_time("2022-01-01")
    assert int(dataset.readings["BTC", "active_addresses"].known_at[0]) == day + DAY + 6 * HOUR
    assert int(dataset.readings["*", "fear_greed"].known_at[0]) == day + 2 * HOUR
    assert int(dataset.posts["news"].known_at[0]) == day + 5 * HOUR


def test_only_what_was_asked_for_is_loaded(history: Path) -> None:
    since, until = parse_time("2022-01-02T03:00"), parse_time("2022-01-02T05:00")
    dataset = load_directory(history, gate=BarGate(), instruments=["ETH/USDT"], since=since, until=until)
    assert list(dataset.bars) == ["ETH/USDT"]
    assert dataset.bars["ETH/USDT"].open_time.tolist() == [since, since + HOUR]
    assert dataset.bars["ETH/USDT"].row.tolist() == [3, 4]
    assert all(asset in ("ETH", "*") for asset, _ in dataset.readings)
    assert max(int(table.known_at[-1]) for table in dataset.readings.values()) < until


def test_csv_reads_like_parquet(tmp_path: Path) -> None:
    write(tmp_path / "parquet/price_1h/BTCUSDT.parquet", bars())
    text = bars().replace("ts,", "ts0,", 1)
    write(tmp_path / "csv/BTCUSDT.csv", f"select strftime(ts0 at time zone 'UTC', '%Y-%m-%dT%H:%M:%SZ') as ts, * exclude ts0 from ({text})")
    left = load_directory(tmp_path / "parquet", gate=BarGate()).bars["BTC/USDT"]
    right = load_directory(tmp_path / "csv", gate=BarGate()).bars["BTC/USDT"]
    assert left.open_time.tolist() == right.open_time.tolist()
    assert left.close.tolist() == right.close.tolist()
    alone = load_directory(tmp_path / "csv/BTCUSDT.csv", gate=BarGate()).bars["BTC/USDT"]
    assert alone.volume.tolist() == right.volume.tolist()


def test_the_fingerprint_is_of_the_files_used(history: Path) -> None:
    whole = load_directory(history, gate=BarGate()).fingerprint
    assert whole == load_directory(history, gate=BarGate()).fingerprint
    assert whole != load_directory(history, gate=BarGate(), instruments=["ETH/USDT"]).fingerprint


def test_lot_and_tick_of_an_unknown_asset_follow_from_its_first_bar_alone(tmp_path: Path) -> None:
    write(tmp_path / "price_1h/ABCUSDT.parquet", bars())
    short, long = (load_directory(tmp_path, gate=BarGate(), until=until) for until in (parse_time("2022-01-01T05:00"), None))
    assert short.rules == long.rules
    rules = long.rules["ABC/USDT"]
    assert (str(rules.lot), str(rules.tick)) == ("0.001", "0.001")  # first open 100: a lot of 10 cents, a tick of 1/100,000


def test_now_and_the_gate_decide_which_bars_have_closed(history: Path) -> None:
    now = parse_time("2022-01-02T03:30")
    assert len(load_directory(history, gate=BarGate(), now=now).bars["ETH/USDT"]) == 3
    with pytest.raises(BarGateError, match="refuses"):
        load_directory(history, gate=BarGate(BarGateConfig.strict()), now=now)


@pytest.mark.parametrize(
    ("stem", "name"),
    [
        ("BTCUSDT", "BTC/USDT"),
        ("ETHBTC_freqtrade", "ETH/BTC"),
        ("BTC-USDT", "BTC/USDT"),
        ("BTC-PERP_20211231", "BTC/USD"),
        ("SIM1_USDT", "SIM1/USDT"),
        ("fear_greed_1d", None),
        ("BTCXYZ", None),
    ],
)
def test_instruments_are_read_from_file_names(stem: str, name: str | None) -> None:
    assert instrument_of(stem) == name


# ── bad input ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def refusal(path: Path, kind: type[DataError] = DataError, **arguments: object) -> str:
    """Message and hint with which a directory is refused."""
    with pytest.raises(kind) as caught:
        load_directory(path, gate=BarGate(), **arguments)  # type: ignore[arg-type]
    assert caught.value.exit_code == 3
    assert caught.value.hint
    return f"{caught.value} | {caught.value.hint}"


def test_a_missing_directory_or_period_or_instrument_says_so(history: Path, tmp_path: Path) -> None:
    assert "no directory" in refusal(tmp_path / "nowhere", DataMissingError)
    message = refusal(history, DataMissingError, since=parse_time("2030-01-01"))
    assert "no bars from 2030-01-01" in message
    assert "2022-01-01T00:00:00Z to 2022-01-03" in message
    assert "BTC/USDT, ETH/USDT" in refusal(history, DataMissingError, instruments=["XRP/USDT"])
    assert "price_5m/BTCUSDT.parquet" in refusal(history, DataMissingError, interval="5m")
    assert "there is price_1h" in refusal(history, DataMissingError, interval="5m")


def test_a_damaged_file_is_named(history: Path) -> None:
    whole = (history / "price_1h/BTCUSDT.parquet").read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", b"not parquet at all, but long enough to look at"):
        (history / "price_1h/BTCUSDT.parquet").write_bytes(damaged)
        message = refusal(history)
        assert "BTCUSDT.parquet: cannot be read as Parquet" in message
        assert "get it again" in message


def test_wrong_columns_name_what_was_expected(history: Path) -> None:
    write(history / "price_1h/BTCUSDT.parquet", bars().replace("volume", "amount"))
    assert "no column volume (it has: ts, open, high, low, close, amount)" in refusal(history)
    write(history / "price_1h/BTCUSDT.parquet", bars().replace("10.0 as volume", "'ten' as volume"))
    assert "column volume holds VARCHAR, not numbers" in refusal(history)


@pytest.mark.parametrize(
    ("stamp", "complaint"),
    [
        ("timestamp '2022-01-01 00:00:00' + i * interval 1 hour", "has no time zone"),
        ("'2022-01-01 0' || i || ':00:00'", "has no time zone"),
        ("'2022-01-01T0' || i || ':00:00' || if(i < 3, 'Z', '+01:00')", "mixes the time zones +0000, +0100"),
        ("i", "holds BIGINT, not times"),
        ("'soon' || i || 'Z'", "cannot be read"),
    ],
)
def test_stamps_without_or_of_several_time_zones_are_refused(tmp_path: Path, stamp: str, complaint: str) -> None:
    query = f"select {stamp} as ts, 1.0 as open, 1.0 as high, 1.0 as low, 1.0 as close, 1.0 as volume from range(6) t(i)"
    for suffix in ("parquet", "csv"):
        folder = tmp_path / suffix
        write(folder / f"price_1h/BTCUSDT.{suffix}", query)
        assert complaint in refusal(folder)


def test_bars_of_another_length_are_refused_with_the_right_interval(tmp_path: Path) -> None:
    write(tmp_path / "BTCUSDT.parquet", bars().replace("1 hour", "1 day"))
    assert "bars are usually 1d apart, not 1h" in refusal(tmp_path)
    assert len(load_directory(tmp_path, gate=BarGate(), interval="1d").bars["BTC/USDT"]) == 48


def test_an_empty_file_and_two_files_of_one_instrument_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "BTCUSDT.parquet", bars(0))
    assert "holds no rows" in refusal(tmp_path, DataMissingError)
    write(tmp_path / "BTC-USDT.parquet", bars())
    assert "both bars of BTC/USDT" in refusal(tmp_path)


def test_no_text_no_chain_no_funding_is_fine(tmp_path: Path) -> None:
    write(tmp_path / "price_1h/BTCUSDT.parquet", bars())
    dataset = load_directory(tmp_path, gate=BarGate())
    assert (dict(dataset.readings), dict(dataset.posts)) == ({}, {})
    assert len(dataset.bars["BTC/USDT"]) == 48
    assert not dataset.simulated


def test_close_stamped_bars_of_the_perpetual_venue_are_moved_to_their_open(tmp_path: Path) -> None:
    write(tmp_path / "perp_1m/BTC-PERP_202201.parquet", bars().replace("1 hour", "1 minute"))
    dataset = load_directory(tmp_path, gate=BarGate(), interval="1m", config=FilesConfig(market="perp"))
    table = dataset.bars["BTC/USD"]
    assert iso(int(table.known_at[0])) == "2022-01-01T00:00:00Z"
    np.testing.assert_allclose(table.volume, 10.0 / table.close)  # quote units become coins
    assert dataset.rules["BTC/USD"].perpetual


def test_other_faults_of_files_are_named(history: Path) -> None:
    write(history / "fear_greed_1d.parquet", "select cast(null as timestamptz) as date, 5 as fear_greed")
    assert "row 0 has no date" in refusal(history)
    (history / "fear_greed_1d.parquet").unlink()
    write(history / "onchain_1d/btc_coinmetrics.parquet", "select timestamptz '2022-01-01 00:00:00+00' as time, 1.0 as SomethingElse")
    assert "none of its columns is a known on-chain metric" in refusal(history)


def test_dates_without_an_hour_are_midnights_of_utc(tmp_path: Path) -> None:
    query = "select date '2022-01-01' + i::int as ts, 1.0 as open, 1.0 as high, 1.0 as low, 1.0 as close, 1.0 as volume from range(5) t(i)"
    for suffix in ("parquet", "csv"):
        write(tmp_path / suffix / f"BTCUSDT.{suffix}", query)
        table = load_directory(tmp_path / suffix, gate=BarGate(), interval="1d").bars["BTC/USDT"]
        assert table.open_time.tolist() == [parse_time("2022-01-01") + k * DAY for k in range(5)]


def test_stablecoin_supply_is_summed_day_by_day(history: Path) -> None:
    day = "timestamptz '2022-01-01 00:00:00+00' + i * interval 1 day as time"
    write(history / "onchain_1d/usdt_coinmetrics.parquet", f"select {day}, 100.0 + i as SplyCur from range(4) t(i)")
    write(history / "onchain_1d/usdc_coinmetrics.parquet", f"select {day}, 10.0 as SplyCur from range(1, 3) t(i)")
    table = load_directory(history, gate=BarGate()).readings["*", "stablecoin_supply_usd"]
    assert table.value.tolist() == [100.0, 111.0, 112.0]  # no USDC yet, both, both; on the fourth day USDC is unknown


def test_empty_texts_are_left_out(history: Path) -> None:
    write(history / "text/c.parquet", "select timestamptz '2022-01-01 07:00:00+00' as ts, '  ' as text")
    dataset = load_directory(history, gate=BarGate())
    assert len(dataset.posts["news"]) == 2
    assert "c: 1 texts, 0 kept, 0 repeats, 1 empty, 0 date-only" in dataset.notes
