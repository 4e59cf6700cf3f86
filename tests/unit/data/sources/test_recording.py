"""Raw messages come back byte for byte, whatever they are and however the recorder ended, and replay through the live parsers."""

from __future__ import annotations

import asyncio
import gzip
import subprocess
import sys
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cryptoalpha.core.clock import VirtualClock
from cryptoalpha.core.errors import ConfigError, DataError
from cryptoalpha.core.streamed import Trade
from cryptoalpha.core.time import MILLISECOND, SECOND
from cryptoalpha.data.bus.envelope import sealed
from cryptoalpha.data.sources.config import RecordingSection
from cryptoalpha.data.sources.market_reader import MarketReader
from cryptoalpha.data.sources.recording import (
    Recorded,
    Recorder,
    ReplaySource,
    as_line,
    from_line,
    open_recorder,
    read_recording,
    read_recordings,
    recordings,
)

START = 1_700_000_000 * SECOND


@settings(max_examples=200)
@given(
    received_at=st.integers(0, 2**63 - 1),
    raw=st.one_of(
        st.binary(max_size=60),
        st.text(max_size=60).map(str.encode),
        st.sampled_from([b"", b'"', b'b64"', b'b64"AA=="', b'"x"', b"\n", b"a\r", b'{"a":\n1}', b" x ", b"1 2", "\u2028\x85".encode()]),
    ),
)
def test_a_line_holds_any_message(received_at, raw):
    line = as_line(received_at, raw)
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert from_line(line, "x") == Recorded(received_at, raw, "x")


def test_json_of_one_line_is_written_as_it_came():
    assert as_line(17, b'{"e":"trade"}') == b'17 {"e":"trade"}\n'


@settings(max_examples=200)
@given(line=st.binary(max_size=60))
def test_what_is_no_line_is_a_data_error_and_nothing_else(line):
    try:
        recorded = from_line(line)
    except DataError:
        return
    assert from_line(as_line(recorded.received_at, recorded.raw)) == recorded


def filled(folder, messages, **options):
    recorder = Recorder(folder, **options)
    for channel, received_at, raw in messages:
        recorder.record(channel, received_at, raw)
    recorder.close()
    recorder.close()  # again, it does nothing
    return recorder


def test_channels_are_kept_apart_and_read_as_one_by_time(tmp_path):
    messages = [("x", START + 1, b"one"), ("news", START + 2, b"<rss>\n</rss>"), ("x", START + 3, b"\xff"), ("news", START + 4, b"{}")]
    recorder = filled(tmp_path, messages)
    assert (recorder.written, recorder.left_out, recorder.problem) == (4, 0, "")
    paths = sorted(tmp_path.iterdir())
    assert [path.name for path in paths] == [f"news-{START + 2}.jsonl.gz", f"x-{START + 1}.jsonl.gz"]
    found = list(read_recordings(paths))
    assert [(one.channel, one.received_at, one.raw) for one in found] == messages


def test_files_are_completed_by_size_and_the_oldest_make_room(tmp_path):
    messages = [("x", START + number, f"{number:>1000}".encode()) for number in range(100)]
    filled(tmp_path / "all", messages, most_bytes=10_000)
    paths = recordings(tmp_path / "all", "x")
    assert len(paths) == 10  # 1,020 bytes a line: ten lines pass 10,000
    assert [one.raw for path in paths for one in read_recording(path)] == [raw for _, _, raw in messages]

    filled(tmp_path / "some", messages, most_bytes=10_000, keep_bytes=4 * paths[0].stat().st_size + 100)
    assert [path.name for path in recordings(tmp_path / "some", "x")] == [path.name for path in paths[-4:]]


def test_settings_say_whether_and_how_much_is_recorded(tmp_path):
    assert open_recorder(RecordingSection(), tmp_path) is None
    recorder = open_recorder(RecordingSection(enabled=True, file_megabytes=0.01, keep_megabytes=0.000_2), tmp_path)
    for number in range(100):
        recorder.record("x", START + number, f"{number:>1000}".encode())
    recorder.close()
    # a file of ten lines packs to about 100 bytes: of ten files, 200 bytes of the newest are kept
    kept = recordings(tmp_path, "x")
    assert 1 <= len(kept) <= 3
    assert [one.raw for one in read_recording(kept[-1])][-1] == f"{99:>1000}".encode()


def test_channels_whose_names_begin_alike_are_not_mixed_up(tmp_path):
    filled(tmp_path, [("x", START, b"1"), ("x-2", START + 1, b"2"), ("x.y", START + 2, b"3")])
    assert [path.name for path in recordings(tmp_path, "x")] == [f"x-{START}.jsonl.gz"]
    assert recordings(tmp_path / "none", "x") == []


def test_a_recorder_that_is_killed_leaves_all_but_the_newest(tmp_path):
    script = (
        "import sys\nfrom pathlib import Path\nfrom cryptoalpha.data.sources.recording import Recorder\n"
        "recorder = Recorder(Path(sys.argv[1]), most_bytes=20_000)\nnumber = 0\n"
        "while True:\n  recorder.record('x', number, b'%d ' % number * 20)\n  number += 1\n"
        "  if number % 500 == 0:\n"
        "    while recorder.written + recorder.left_out < number - 100: pass\n    print(recorder.written, flush=True)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if int(line) > 3_000:
                break
        process.kill()
        written = int(line)
    found = [one for path in recordings(tmp_path, "x") for one in read_recording(path)]
    assert [one.received_at for one in found] == list(range(len(found)))
    assert all(one.raw == b"%d " % one.received_at * 20 for one in found)
    assert len(found) >= written - 2 * 20_000 / 100  # what had not left the file's buffer yet


@pytest.mark.parametrize("cut", [1, 7, 200])
def test_a_file_that_breaks_off_is_read_as_far_as_it_goes(tmp_path, cut):
    lines = b"".join(as_line(START + number, b'{"n":%d}' % number) for number in range(500))
    plain, packed = tmp_path / "a-1.jsonl", tmp_path / "b-1.jsonl.gz"
    plain.write_bytes(lines[:-cut])
    packed.write_bytes(gzip.compress(lines)[:-cut])
    whole = list(range(500))
    for path in (plain, packed):
        numbers = [one.received_at - START for one in read_recording(path)]
        assert numbers == whole[: len(numbers)]
        assert len(numbers) >= 400 - cut


def test_a_line_that_is_none_is_named(tmp_path):
    path = tmp_path / "a-1.jsonl"
    path.write_bytes(as_line(START, b"{}") + b"nonsense\n")
    with pytest.raises(DataError, match="nonsense"):
        list(read_recording(path))
    with pytest.raises(DataError, match="cannot be read"):
        list(read_recording(tmp_path / "none.jsonl"))
    path.with_suffix(".gz").write_bytes(b"not packed")
    with pytest.raises(DataError, match="cannot be read"):
        list(read_recording(path.with_suffix(".gz")))


def test_a_disk_that_fails_costs_the_recording_and_nothing_else(tmp_path):
    (tmp_path / "file").write_text("in the way")
    recorder = filled(tmp_path / "file", [("x", START, b"1"), ("x", START + 1, b"2")])
    assert (recorder.written, recorder.left_out) == (0, 2)
    assert "recording x" in recorder.problem


@pytest.mark.parametrize("channel", ["", "../x", "a/b", ".x", "a b"])
def test_a_channel_that_cannot_be_a_file_is_refused(tmp_path, channel):
    recorder = Recorder(tmp_path)
    with pytest.raises(ConfigError, match="no name of a channel"):
        recorder.record(channel, START, b"1")
    recorder.close()


def numbered(raw, received_at):
    """A parser of decimal numbers."""
    try:
        number = int(raw)
    except ValueError as error:
        raise DataError(f"no number: {error}") from None
    at = received_at
    trade = Trade(
        happened_at=at - SECOND, known_at=at, instrument="A/B", venue="v", trade_id=str(number), side="buy", price=1.0, amount=1.0
    )
    return [sealed(trade, topic="market", key="v:A/B", source="v", native_id=str(number))]


def replay(recorded, position="", **options):
    source = ReplaySource("v", ("market",), lambda: recorded, numbered, **options)

    async def run():
        return [arrival async for arrival in source.arrivals(position)]

    return asyncio.run(run()), source


TAPE = [Recorded(START + number * 250 * MILLISECOND, str(number).encode()) for number in range(20)]


def test_a_replay_gives_each_message_once_and_ends():
    arrivals, source = replay(TAPE)
    assert [envelope.id for arrival in arrivals for envelope in arrival.envelopes] == [f"v/{number}" for number in range(20)]
    assert [arrival.position for arrival in arrivals] == [str(number) for number in range(1, 21)]
    assert (source.health.messages, source.health.lag_seconds, source.health.state) == (20, 1.0, "closed")


@pytest.mark.parametrize("place", [0, 1, 7, 19, 20])
def test_a_replay_goes_on_from_any_place(place):
    arrivals, _ = replay(TAPE, position=str(place))
    assert [envelope.id for arrival in arrivals for envelope in arrival.envelopes] == [f"v/{number}" for number in range(place, 20)]


def test_a_position_of_a_live_source_is_refused():
    with pytest.raises(ConfigError, match="a state of their own"):
        replay(TAPE, position='{"cursor": "abc"}')


def test_what_cannot_be_read_is_a_dead_letter_in_its_place():
    arrivals, source = replay([TAPE[0], Recorded(START + 1, b"garbage"), TAPE[1]])
    assert [len(arrival.envelopes) for arrival in arrivals] == [1, 0, 1]
    (letter,) = arrivals[1].dead
    assert (letter.data, letter.observed_time, letter.source) == (b"garbage", START + 1, "v")
    assert "no number" in letter.reason
    assert source.health.dead == 1


@pytest.mark.parametrize("speed", [0.5, 1.0, 10.0])
def test_speed_is_how_long_it_takes(virtual_time, speed):
    arrivals, _ = replay(TAPE, speed=speed, wait=virtual_time.wait)
    assert len(arrivals) == 20
    assert sum(virtual_time.waits) == pytest.approx(19 * 0.25 / speed)


def test_real_time_passes_at_real_speed_and_closing_ends_it():
    source = ReplaySource("v", ("market",), lambda: TAPE, numbered, speed=25.0)  # 10 ms between two

    async def run():
        loop = asyncio.get_running_loop()
        begun, moments = loop.time(), []
        async for arrival in source.arrivals(""):
            moments.append(loop.time() - begun)
            if arrival.position == "10":
                break
        slow = ReplaySource("v", ("market",), lambda: TAPE, numbered, speed=0.001)
        task = asyncio.create_task(anext(slow.arrivals("19"), None))
        waiting = asyncio.create_task(_all(slow))
        await asyncio.sleep(0.01)
        await slow.close()
        await asyncio.wait_for(asyncio.gather(task, waiting), 2.0)
        return moments

    async def _all(slow):
        return [arrival async for arrival in slow.arrivals("")]

    moments = asyncio.run(run())
    assert all(moment >= 0.01 * place - 1e-6 for place, moment in enumerate(moments))


@pytest.mark.parametrize("speed", [-1.0, float("inf"), float("nan")])
def test_a_speed_without_sense_is_refused(speed):
    with pytest.raises(ConfigError):
        ReplaySource("v", (), lambda: [], numbered, speed=speed)


def test_a_clock_follows_the_recording_and_never_goes_back():
    clock = VirtualClock()
    tape = [TAPE[0], TAPE[3], TAPE[2], TAPE[4]]  # the recorder's clock was set back once

    async def run():
        return [clock.now() async for _ in ReplaySource("v", ("market",), lambda: tape, numbered, clock=clock).arrivals("")]

    seen = asyncio.run(run())
    assert seen == [TAPE[0].received_at, TAPE[3].received_at, TAPE[3].received_at, TAPE[4].received_at]
    assert all(one <= two for one, two in pairwise(seen))


def test_a_real_recording_is_read_whole_written_again_and_replayed_through_the_live_parser(payloads, tmp_path):
    """hftbacktest's ETH spot file, 33,618 lines: the same bytes come out again, and a replay says what reading line by line says."""
    path = payloads / "hft" / "binance_spot_ethusdt.gz"
    lines = gzip.decompress(path.read_bytes())
    found = list(read_recording(path))
    assert len(found) == 33_618
    filled(tmp_path, [("eth", one.received_at, one.raw) for one in found])
    (again,) = tmp_path.iterdir()
    assert gzip.decompress(again.read_bytes()) == lines

    reader = MarketReader("binance", subject="ETHUSDT")
    straight = [envelope for one in found for envelope in reader.read(one.raw, one.received_at)]
    source = ReplaySource("binance", ("market",), lambda: read_recording(again), MarketReader("binance", subject="ETHUSDT").read)

    async def run():
        return [arrival async for arrival in source.arrivals("")]

    arrivals = asyncio.run(run())
    assert [envelope for arrival in arrivals for envelope in arrival.envelopes] == straight
    assert len(arrivals) == 33_618
    assert source.health.dead == 0
    assert source.health.messages == len(straight) > 30_000
