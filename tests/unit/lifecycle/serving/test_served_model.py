"""A model under supervision: a real process that is asked too much, stopped, killed, and outgrows its memory."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import msgspec
import pytest

from cryptoalpha.core.errors import ModelError
from cryptoalpha.core.time import HOUR, parse_time
from cryptoalpha.data.config import SimulatedConfig
from cryptoalpha.data.simulated import simulate
from cryptoalpha.lifecycle.serving.config import ServingConfig
from cryptoalpha.lifecycle.serving.faults import BusyError, MalformedWindowError, UnavailableError, UnfitWindowError
from cryptoalpha.lifecycle.serving.messages import AssetForecast, ForecastAnswer, HorizonForecast, fault_of
from cryptoalpha.lifecycle.serving.served_model import ServedModel, _read
from cryptoalpha.lifecycle.serving.windows import BINARY, encode_window, newest_rows
from cryptoalpha.lifecycle.serving.wire import Ask, Opening
from cryptoalpha.signals.config import ForecastConfig, TextConfig
from cryptoalpha.signals.frame import Frame
from cryptoalpha.store.panel import build_panel

START, NEEDED = parse_time("2021-01-01"), 2_069


@pytest.fixture(scope="module")
def market():
    return simulate(SimulatedConfig(assets=2, bars=2_400, start="2021-01-01"), seed=1).dataset


@pytest.fixture(scope="module")
def opening(market, random_forecaster, tmp_path_factory) -> Opening:
    frame = Frame(build_panel(market, since=0, until=2**62), market, first=2_250)
    config = ForecastConfig(context_bars=8, block_bars=12, correlation_bars=(24,), horizon_bars=(1, 24))
    folder = random_forecaster(tmp_path_factory.mktemp("model") / "m", frame, config, (2_300,))
    return Opening(folder=str(folder), version="v1", text=TextConfig().model_dump())


def asking(market, row: int = 2_350, rows: int = NEEDED) -> Ask:
    return Ask(media=BINARY, body=encode_window(newest_rows(market, START + (row + 1) * HOUR, rows)), now=2**62)


async def until(claim) -> None:
    async with asyncio.timeout(30):
        while not claim():
            await asyncio.sleep(0.02)


def test_whose_fault_it_is_is_told_apart(opening, market):
    async def run() -> None:
        model = await ServedModel.start(opening, ServingConfig())
        assert model.about.rows_needed == NEEDED
        with pytest.raises(UnfitWindowError, match="2,068 bars, the model looks back 2,069"):
            await model.ask(asking(market, rows=NEEDED - 1))
        with pytest.raises(UnfitWindowError, match="no model may answer"):
            await model.ask(asking(market, row=2_299))
        with pytest.raises(MalformedWindowError, match="open_bar"):
            await model.ask(msgspec.structs.replace(asking(market), now=START + 2_351 * HOUR - 1))
        reply = await model.ask(asking(market, row=2_300))
        assert (reply.fault, reply.version, reply.answer.fold) == (None, "v1", 0)
        await model.retire()

    asyncio.run(run())


def test_a_full_line_turns_away_and_a_killed_process_is_replaced(opening, market):
    """The process is stopped so that requests wait: three do, the fourth is told to come back. Then it is killed."""

    async def run() -> None:
        told: list[str] = []
        model = await ServedModel.start(opening, ServingConfig(queue=3), told.append)
        before = model.pid
        os.kill(before, signal.SIGSTOP)
        computed = asyncio.create_task(model.ask(asking(market)))
        for _ in range(5):  # it comes into line and out of it again, to be computed
            await asyncio.sleep(0)
        assert model.waiting == 0
        waiting = [asyncio.create_task(model.ask(asking(market))) for _ in range(3)]
        await until(lambda: model.waiting == 3)
        with pytest.raises(BusyError) as busy:
            await model.ask(asking(market))
        assert busy.value.retry_seconds >= 1
        waiting[0].cancel()
        await asyncio.sleep(0)
        assert model.waiting == 2, "who leaves makes room"
        os.kill(before, signal.SIGKILL)
        with pytest.raises(ModelError, match="exit code -9"):
            await computed
        for one in waiting[1:]:
            with pytest.raises(UnavailableError):
                await one
        assert not model.is_ready
        await until(lambda: model.is_ready)
        assert (await model.ask(asking(market))).fault is None
        assert model.pid != before
        assert model.replaced == 1
        assert "another one is started" in told[0]
        await model.retire()
        assert not Path(f"/proc/{before}").exists()

    asyncio.run(run())


def test_one_that_is_stuck_is_replaced(opening, market):
    async def run() -> None:
        model = await ServedModel.start(opening, ServingConfig(stuck_seconds=0.3))
        os.kill(model.pid, signal.SIGSTOP)
        with pytest.raises(ModelError, match=r"stuck for 0\.3 s"):
            await model.ask(asking(market))
        await until(lambda: model.is_ready)
        await model.retire()

    asyncio.run(run())


def test_one_that_outgrows_its_memory_is_replaced_while_all_are_answered(opening, market):
    """Every process is above a budget of a megabyte: a fresh one takes over again and again, and nobody is refused."""

    async def run() -> None:
        model = await ServedModel.start(opening, ServingConfig(memory_megabytes=1.0))
        pids = set()
        async with asyncio.timeout(40):
            while model.replaced < 1:
                assert (await model.ask(asking(market))).fault is None
                pids.add(model.pid)
        assert (await model.ask(asking(market))).fault is None
        await model.retire()
        for pid in pids:
            assert not Path(f"/proc/{pid}").exists()

    asyncio.run(run())


def test_retiring_answers_who_waits(opening, market):
    async def run() -> None:
        model = await ServedModel.start(opening, ServingConfig())
        asked = [asyncio.create_task(model.ask(asking(market, row=row))) for row in range(2_340, 2_345)]
        await until(lambda: model.waiting >= 3)
        await model.retire()
        assert [(await one).fault for one in asked] == [None] * 5
        with pytest.raises(UnavailableError):
            await model.ask(asking(market))

    asyncio.run(run())


def test_a_folder_that_is_none_is_refused_with_what_to_do(tmp_path):
    opening = Opening(folder=str(tmp_path), version="v9", text=TextConfig().model_dump())
    with pytest.raises(ModelError, match=r"version v9 cannot be served.*holds no trained model"):
        asyncio.run(ServedModel.start(opening, ServingConfig()))


HORIZON = HorizonForecast(
    bars=1, unit=0.01, up=0.5, down=0.25, sideways=0.25, expected_move=0.1, volatility=1.0, confidence=0.6, quantiles=[-1.0, 0.0, 1.0]
)
ASSET = AssetForecast(instrument="A/B", signal=0.2, confidence=0.6, horizons=[HORIZON])
ANSWER = ForecastAnswer(known_at=1, fold=0, levels=[0.1, 0.5, 0.9], forecasts=[ASSET], unanswered=[])


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({}, None),
        ({"expected_move": float("nan")}, "nan"),
        ({"quantiles": [-1.0, float("inf"), 1.0]}, "nan"),
        ({"up": float("nan")}, "nan"),
        ({"up": 1.5}, "out_of_range"),
        ({"up": 0.6}, "out_of_range"),
        ({"volatility": 0.0}, "out_of_range"),
        ({"quantiles": [0.0, -1.0, 1.0]}, "out_of_range"),
        ({"quantiles": [0.0, 1.0]}, "schema"),
    ],
)
def test_an_answer_that_cannot_be_used_is_named_by_its_fault(change, fault):
    """In hand and as it comes from another process."""
    one = msgspec.structs.replace(HORIZON, **change)
    answer = msgspec.structs.replace(ANSWER, forecasts=[msgspec.structs.replace(ASSET, horizons=[one])])
    assert fault_of(answer) == fault
    assert _read(msgspec.Raw(msgspec.msgpack.encode(answer)))[1] == fault


def test_an_answer_of_another_shape_is_a_fault_of_schema():
    assert _read(msgspec.Raw(msgspec.msgpack.encode({"known_at": 1})))[1] == "schema"
    assert _read(msgspec.Raw(b"\xc1"))[1] == "schema"
    assert fault_of(msgspec.structs.replace(ANSWER, forecasts=[])) == "schema"
