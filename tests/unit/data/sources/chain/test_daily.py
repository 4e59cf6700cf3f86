"""Daily figures live: the words, values and times of history, revisions told once, limits kept."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cryptoalpha.core.errors import ConfigError, DataError
from cryptoalpha.core.time import DAY, HOUR, MINUTE, SECOND, day_of, parse_time
from cryptoalpha.core.values import ChainReading
from cryptoalpha.data import coinmetrics
from cryptoalpha.data.coinmetrics import daily_reading, read_chain, read_stablecoins
from cryptoalpha.data.metrics import METRICS
from cryptoalpha.data.sources.chain_config import CoinMetricsSection, FearGreedSection
from cryptoalpha.data.sources.chain_daily import Told, told
from cryptoalpha.data.sources.coinmetrics_live import CoinMetricsSource, open_source, tables_of
from cryptoalpha.data.sources.contract import Arrival
from cryptoalpha.data.sources.fear_greed import open_source as open_mood
from cryptoalpha.data.tabular import RawTable, connect, read_table
from cryptoalpha.store.tables import ReadingTable

Rows = dict[str, dict[int, dict[str, str]]]
"""Metric by name, by day (UTC ns), by asset."""


class CoinMetrics:
    """The publisher: rows of a day appear `delay` after its end."""

    def __init__(self, rows: Rows, clock: Any, *, delay: int = 20 * MINUTE) -> None:
        self.rows, self.clock, self.delay = rows, clock, delay
        self.faults: list[Any] = []
        self.times: list[int] = []

    def serve(self, fake: Any) -> None:
        self.fake = fake
        fake.answers("/v4/*", self.answer)

    def answer(self, asked: Any) -> Any:
        self.times.append(self.clock.now())
        if self.faults and (fault := self.faults.pop(0)) is not None:
            return fault
        assets = asked.query["assets"].split(",")
        if asked.path.endswith("catalog-v2/asset-metrics"):
            data = [
                {"asset": asset, "metrics": [{"metric": m, "frequencies": [{"frequency": "1d"}]} for m in self.metrics(asset)]}
                for asset in assets
                if asset.upper() in self.rows
            ]
            return self.fake.Reply({"data": data})
        wanted = asked.query["metrics"].split(",")
        unknown = [m for m in wanted if not any(m in self.metrics(asset) for asset in assets)]
        if unknown:
            return self.fake.Reply({"error": {"type": "bad_parameter", "message": f"{unknown} not supported"}}, status=400)
        begin = parse_time(asked.query["start_time"])
        lines = [
            {"asset": asset, "time": f"{day_of(day)}T00:00:00.000000000Z", **{m: row.get(m) for m in wanted}}
            for asset in assets
            for day, row in sorted(self.rows[asset.upper()].items())
            if begin <= day <= self.clock.now() - DAY - self.delay
        ]
        first, size = int(asked.query.get("next_page_token", 0)), int(asked.query["page_size"])
        more = {"next_page_token": str(first + size), "next_page_url": "…"} if first + size < len(lines) else {}
        return self.fake.Reply({"data": lines[first : first + size], **more})

    def metrics(self, asset: str) -> set[str]:
        return {metric for row in self.rows.get(asset.upper(), {}).values() for metric in row}


def made_up(days: int, *, assets: Sequence[str] = ("BTC", "ETH", "USDT", "USDC"), seed: int = 0) -> tuple[Rows, dict[str, RawTable]]:
    """The same figures as a publisher writes them and as a file holds them."""
    generator, start = np.random.default_rng(seed), parse_time("2023-10-01")
    stamp = start + DAY * np.arange(days)
    tables, rows = {}, {}
    for asset in assets:
        columns = coinmetrics.COLUMNS if asset in ("BTC", "ETH") else ("SplyCur", "PriceUSD")
        numbers = {name: generator.lognormal(10.0, 2.0, days) for name in columns}
        numbers["SplyCur"][days // 2] = math.nan if asset == "ETH" else 1e9
        tables[asset] = RawTable(Path(asset), "", stamp, numbers, {})
        rows[asset] = {
            int(day): {name: repr(float(column[n])) for name, column in numbers.items() if math.isfinite(column[n])}
            for n, day in enumerate(stamp)
        }
    return rows, tables


def history(tables: Mapping[str, RawTable], assets: Sequence[str]) -> dict[tuple[str, str], ReadingTable]:
    """As `data.files` reads them."""
    found: dict[tuple[str, str], ReadingTable] = {}
    for asset in assets:
        found |= read_chain(asset, [tables[asset]], lag=HOUR)
    return found | read_stablecoins([tables[coin] for coin in coinmetrics.STABLECOINS if coin in tables], lag=HOUR)


def as_live(tables: Mapping[tuple[str, str], ReadingTable], days: range) -> set[tuple[Any, ...]]:
    """All that history says of these days, bit for bit."""
    return {
        (asset, metric, table.source, int(happened), int(known), float(value).hex())
        for (asset, metric), table in tables.items()
        for happened, known, value in zip(table.happened_at, table.known_at, table.value, strict=True)
        if int(happened) in days
    }


def readings(arrivals: Sequence[Arrival]) -> list[ChainReading]:
    return [envelope.value() for arrival in arrivals for envelope in arrival.envelopes]


def told_live(values: Sequence[ChainReading]) -> set[tuple[Any, ...]]:
    return {(v.asset, v.metric, v.source, v.happened_at, v.known_at, v.value.hex()) for v in values}


@pytest.fixture
def run(publisher, tools, gather, virtual_time) -> Callable[..., list[Arrival]]:
    """Follow Coin Metrics from a time on, until another."""

    def follow(cm: CoinMetrics, *, until: int, start: int = 0, position: str = "", keep: Any = None, **changes: Any) -> list[Arrival]:
        async def scenario() -> list[Arrival]:
            async with publisher() as fake, tools(instruments=("BTC/USDT", "ETH/USDT")) as made:
                cm.serve(fake)
                if start:
                    virtual_time.clock.advance_to(start)
                fields = {"base_url": f"{fake.url}/v4", "requests_per_minute": 1e6, "burst": 100_000, "poll_minutes": 40.0, **changes}
                source = open_source(CoinMetricsSection(**fields), made)
                if keep is not None:
                    keep.append(source)
                found: list[Arrival] = []
                arrivals = source.arrivals(position)

                async def read() -> None:
                    found.extend([arrival async for arrival in arrivals])

                reading = asyncio.create_task(read())
                while virtual_time.clock.now() < until and not reading.done():
                    await asyncio.sleep(0.001)
                await source.close()
                await reading
                return found

        return asyncio.run(asyncio.wait_for(scenario(), 30.0))

    return follow


def test_live_and_history_agree_to_the_last_bit(run, virtual_time):
    """Also in time: what came before the time at which history counts a row as published waits for it."""
    rows, tables = made_up(60)
    start = parse_time("2023-11-16") + 30 * MINUTE  # virtual time begins on 2023-11-14
    found = run(CoinMetrics(rows, virtual_time.clock), start=start, until=start + 3 * DAY + HOUR)
    live = readings(found)
    days = range(parse_time("2023-11-16"), parse_time("2023-11-19"), DAY)
    wanted = as_live(history(tables, ("BTC", "ETH")), days)
    assert {row for row in told_live(live) if row[3] in days} == wanted
    assert len(wanted) == 3 * (2 * 14 + 1)
    assert {v.metric for v in live} <= METRICS.keys()
    names = [envelope.id for arrival in found for envelope in arrival.envelopes]
    assert len(names) == len(set(names))
    assert "coinmetrics/BTC/mvrv/2023-11-17/0" in names
    for arrival in found:
        for envelope in arrival.envelopes:
            assert (envelope.topic, envelope.key) == ("readings", envelope.value().asset)


def test_the_days_before_the_first_question_are_known_when_they_came(run, virtual_time):
    rows, tables = made_up(60)
    start = parse_time("2023-11-16") + 5 * HOUR
    live = readings(run(CoinMetrics(rows, virtual_time.clock), start=start, until=start + HOUR))
    assert {v.known_at for v in live} == {start}  # it would be a lie to say that they were known before
    days = range(parse_time("2023-11-09"), parse_time("2023-11-16"), DAY)
    same = {row[:4] + row[5:] for row in as_live(history(tables, ("BTC", "ETH")), days)}
    assert {row[:4] + row[5:] for row in told_live(live)} == same


def test_recorded_history_agrees_to_the_last_bit(run, virtual_time, market_data):
    """The real file, moved to the present by whole days."""
    path = market_data / "onchain_1d" / "btc_coinmetrics.parquet"
    with connect() as connection:
        raw = read_table(connection, path, stamp=coinmetrics.STAMP, optional=coinmetrics.COLUMNS)
    shift = (parse_time("2023-11-21") - int(raw.stamp[-1])) // DAY * DAY
    newest = slice(-40, None)
    raw = RawTable(raw.path, "", raw.stamp[newest] + shift, {name: column[newest] for name, column in raw.numbers.items()}, {})
    rows: Rows = {
        "BTC": {
            int(day): {name: repr(float(column[n])) for name, column in raw.numbers.items() if math.isfinite(column[n])}
            for n, day in enumerate(raw.stamp)
        }
    }
    start = parse_time("2023-11-15") + 30 * MINUTE
    live = readings(run(CoinMetrics(rows, virtual_time.clock), start=start, until=start + 4 * DAY))
    days = range(parse_time("2023-11-15"), parse_time("2023-11-18"), DAY)
    wanted = as_live(history({"BTC": raw}, ("BTC",)), days)
    assert {row for row in told_live(live) if row[3] in days} == wanted
    assert len(wanted) > 3 * 8


def test_pages_of_any_size_say_the_same(run, virtual_time):
    rows, _ = made_up(60)
    start = parse_time("2023-11-16") + 5 * HOUR
    whole = told_live(readings(run(CoinMetrics(rows, virtual_time.clock), start=start, until=start + MINUTE)))
    second = start + HOUR
    pages = CoinMetrics(rows, virtual_time.clock)
    small = told_live(readings(run(pages, start=second, until=second + MINUTE, page_rows=3)))
    assert {row[:4] + row[5:] for row in small} == {row[:4] + row[5:] for row in whole}
    assert len(pages.times) > 8


def test_the_publishers_limit_is_kept(run, virtual_time):
    rows, _ = made_up(60)
    start = parse_time("2023-11-16") + 5 * HOUR
    shipped = CoinMetricsSection()
    cm = CoinMetrics(rows, virtual_time.clock)
    limits = {"requests_per_minute": shipped.requests_per_minute, "burst": shipped.burst}
    run(cm, start=start, until=start + 10 * MINUTE, page_rows=1, **limits)
    assert len(cm.times) > 28
    assert max(sum(moment <= other < moment + 6 * SECOND for other in cm.times) for moment in cm.times) <= 10


def test_a_changed_value_is_a_revision_and_one_that_stays_is_not_told_again(run, virtual_time):
    rows, _ = made_up(60)
    start = parse_time("2023-11-16") + 5 * HOUR
    cm, keep = CoinMetrics(rows, virtual_time.clock), []
    first = run(cm, start=start, until=start + HOUR, keep=keep)
    assert keep[0].health.repeats >= len(readings(first)) > 0
    day = parse_time("2023-11-14")
    rows["BTC"][day]["AdrActCnt"] = "7.0"
    second = run(cm, until=start + 2 * HOUR, position=first[-1].position)
    (envelope,) = [e for arrival in second for e in arrival.envelopes]
    assert envelope.id == "coinmetrics/BTC/active_addresses/2023-11-14/1"
    assert (envelope.value().value, envelope.value().happened_at) == (7.0, day)
    assert envelope.value().known_at >= start + HOUR  # a revision is known when it came, not when the first value did
    third = run(cm, until=start + 3 * HOUR, position=second[-1].position)
    assert third == []


def test_failures_are_waited_out_and_nothing_is_lost(run, virtual_time):
    rows, _ = made_up(60)
    start = parse_time("2023-11-16") + 5 * HOUR
    clean = [e.id for arrival in run(CoinMetrics(rows, virtual_time.clock), start=start, until=start + MINUTE) for e in arrival.envelopes]
    cm = CoinMetrics(rows, virtual_time.clock)

    def prepare() -> None:
        Reply = cm.fake.Reply
        whole = {"data": [{"asset": "btc"}]}
        cm.faults = [
            Reply(status=429, headers={"Retry-After": "6"}),
            Reply(status=500),
            None,
            Reply(whole, cut=9),
            Reply(b'{"data": [{"asset": "b'),
            *[Reply(status=503)] * 6,
        ]

    serve = cm.serve
    cm.serve = lambda fake: (serve(fake), prepare())[0]  # type: ignore[method-assign]
    second = start + 2 * HOUR
    found = [e.id for arrival in run(cm, start=second, until=second + 20 * MINUTE) for e in arrival.envelopes]
    assert sorted(found) == sorted(clean)
    assert not cm.faults


def test_rows_that_cannot_be_read_are_dead_letters(run, virtual_time):
    rows, _ = made_up(60)
    rows["BTC"][parse_time("2023-11-14")]["HashRate"] = "plenty"
    start = parse_time("2023-11-16") + 5 * HOUR
    found = run(CoinMetrics(rows, virtual_time.clock), start=start, until=start + MINUTE)
    (letter,) = found[0].dead
    assert "HashRate" in letter.reason
    assert not any(v.asset == "BTC" and v.happened_at == parse_time("2023-11-14") for v in readings(found))


def test_stablecoins_count_only_where_all_have_days():
    rows, tables = made_up(6)
    del rows["USDC"][min(rows["USDC"])]
    parsed = {
        asset: [{"time": float(day), **{m: float(v) for m, v in row.items()}} for day, row in days.items()] for asset, days in rows.items()
    }
    (supply,) = [table for table in tables_of(parsed, (), lag=HOUR) if table.metric == "stablecoin_supply_usd"]
    both = tables["USDT"].numbers["SplyCur"] + tables["USDC"].numbers["SplyCur"]
    assert supply.value.tolist() == both[1:].tolist()
    assert tables_of({"USDT": parsed["USDT"]}, (), lag=HOUR) == []


def test_it_is_off_until_somebody_accepts_its_licence_and_needs_something_to_ask_for(tools):
    assert CoinMetricsSection().enabled is False

    async def scenario() -> None:
        async with tools() as made:
            open_source(CoinMetricsSection(enabled=True), made)

    with pytest.raises(ConfigError, match="no instrument is traded"):
        asyncio.run(scenario())


def test_what_is_remembered_is_bounded_and_survives_being_written_down():
    kept = Told()
    for n in range(100):
        day = parse_time("2023-01-01") + n * DAY
        reading = ChainReading(happened_at=day, known_at=day + DAY, asset="BTC", metric="mvrv", value=float(n), source="coinmetrics")
        said, _ = kept.news([reading, reading], name="coinmetrics", days_kept=5)
        assert [envelope.id for envelope in said] == [f"coinmetrics/BTC/mvrv/{day_of(day)}/0"]
    assert len(kept.days["BTC/mvrv"]) == 5
    assert told(kept.position()) == kept
    old = ChainReading(happened_at=parse_time("2023-01-01"), known_at=1 << 62, asset="BTC", metric="mvrv", value=9.0, source="coinmetrics")
    assert kept.news([old], name="coinmetrics", days_kept=5) == ([], 0)
    with pytest.raises(DataError, match="no position of daily readings"):
        told("17")


# ── mood ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def follow_mood(publisher, tools, virtual_time, days: dict[int, str], *, start: int, until: int, position: str = "") -> list[Arrival]:
    """The index, whose day appears ten minutes after midnight."""

    async def scenario() -> list[Arrival]:
        async with publisher() as fake, tools() as made:
            virtual_time.clock.advance_to(start)

            def answer(asked: Any) -> Any:
                out = [day for day in sorted(days, reverse=True) if day + 10 * MINUTE <= virtual_time.clock.now()]
                data = [{"value": days[day], "timestamp": str(day // SECOND)} for day in out[: int(asked.query["limit"])]]
                return fake.Reply({"name": "Fear and Greed Index", "data": data, "metadata": {"error": None}})

            fake.answers("/fng/", fake.Reply(status=502), answer)
            source = open_mood(FearGreedSection(base_url=fake.url, poll_minutes=45.0, requests_per_minute=60.0), made)
            found: list[Arrival] = []
            arrivals = source.arrivals(position)

            async def read() -> None:
                found.extend([arrival async for arrival in arrivals])

            reading = asyncio.create_task(read())
            while virtual_time.clock.now() < until and not reading.done():
                await asyncio.sleep(0.001)
            await source.close()
            await reading
            return found

    return asyncio.run(asyncio.wait_for(scenario(), 20.0))


def test_the_mood_agrees_with_history_to_the_last_bit(publisher, tools, virtual_time):
    first = parse_time("2023-11-15")
    days = {first + n * DAY: str(30 + 7 * n % 60) for n in range(6)}
    stamp = np.array(sorted(days), np.int64)
    value = np.array([float(days[day]) for day in sorted(days)])
    table = daily_reading("*", "fear_greed", "alternative.me", RawTable(Path("m"), "", stamp, {}, {}), value, delay=HOUR)
    found = follow_mood(publisher, tools, virtual_time, days, start=first + 5 * MINUTE, until=first + 6 * DAY)
    assert told_live(readings(found)) == as_live({("*", "fear_greed"): table}, range(0, 1 << 62, DAY))
    names = [envelope.id for arrival in found for envelope in arrival.envelopes]
    assert names == [f"fear_greed/*/fear_greed/{day_of(day)}/0" for day in sorted(days)]
    assert [arrival.envelopes[0].observed_time for arrival in found] == [day + HOUR for day in sorted(days)]
    days[first + 4 * DAY] = "99"
    later = first + 6 * DAY + HOUR
    (revised,) = follow_mood(publisher, tools, virtual_time, days, start=later, until=later + HOUR, position=found[-1].position)
    assert [envelope.id for envelope in revised.envelopes] == [f"fear_greed/*/fear_greed/{day_of(first + 4 * DAY)}/1"]


def test_the_mood_of_history_is_read_live_the_same(market_data):
    """The recorded index, said as its publisher says it, through the live parser."""
    import json

    from cryptoalpha.data.sources.fear_greed import parse_index, table_of

    with connect() as connection:
        raw = read_table(connection, market_data / "fear_greed_1d.parquet", stamp="date", numbers=("fear_greed",))
    values = raw.numbers["fear_greed"]
    said = [{"value": str(int(v)), "timestamp": str(int(s) // SECOND)} for s, v in zip(raw.stamp, values, strict=True)]
    days, faults = parse_index(json.dumps({"data": said[::-1]}).encode())
    live = table_of(days, lag=HOUR)
    old = daily_reading("*", "fear_greed", "alternative.me", raw, values, delay=HOUR)
    assert faults == []
    assert len(live) == len(old) == 2157
    for column in ("happened_at", "known_at", "value"):
        assert getattr(live, column).tobytes() == getattr(old, column).tobytes()
    assert (live.asset, live.metric, live.source) == (old.asset, old.metric, old.source)


def test_a_source_may_be_opened_for_any_assets(tools):
    async def scenario() -> None:
        async with tools() as made:
            source = CoinMetricsSource(CoinMetricsSection(), made, ("BTC",))
            assert (source.name, source.topics) == ("coinmetrics", ("readings",))
            await source.close()
            assert source.health.state == "closed"

    asyncio.run(scenario())
