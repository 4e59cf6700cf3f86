"""The journal: what is appended is what is read, explained, resumed and hashed."""

from __future__ import annotations

import hashlib
import sqlite3
import struct
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cryptoalpha.core.errors import ConfigError, JournalDivergenceError, RiskHaltError, StoreError
from cryptoalpha.core.values import ChainReading, Decision, Fill, Order, Signal, Travelling, event_id
from cryptoalpha.store import journal as journal_module
from cryptoalpha.store.journal import Journal
from cryptoalpha.store.journal_reader import JournalReader

HEADER = {"run": "r1", "seed": "7"}


def decision(at: int, weight: float = 0.1, reason: str = "trend") -> Decision:
    return Decision(happened_at=at, known_at=at, instrument="BTC/USDT", agent="rule", target_weight=weight, confidence=0.5, reason=reason)


def order(at: int, client_id: str = "ca1", quantity: str = "1.5") -> Order:
    return Order(happened_at=at, known_at=at, client_id=client_id, instrument="BTC/USDT", side="buy", quantity=Decimal(quantity))


def fill(at: int, trade_id: str = "t1", client_id: str = "ca1", instrument: str = "BTC/USDT", price: str = "100") -> Fill:
    return Fill(
        happened_at=at,
        known_at=at,
        trade_id=trade_id,
        client_id=client_id,
        instrument=instrument,
        side="buy",
        quantity=Decimal(1),
        price=Decimal(price),
        fee=Decimal("0.1"),
        fee_asset="USDT",
    )


def reading(at: int, value: float = 1.0) -> ChainReading:
    return ChainReading(happened_at=at, known_at=at, asset="BTC", metric="fees_usd", value=value, source="test")


def write(path: Path | None, steps: list[list[Travelling]], *, durable: bool = False) -> str:
    with Journal(path, durable=durable, header=HEADER) as journal:
        for at, values in enumerate(steps):
            journal.append(at, values)
        return journal.digest()


def test_rows_count_from_one_and_come_back_as_they_went_in(tmp_path):
    steps: list[list[Travelling]] = [[decision(0), reading(0)], [], [order(2), fill(2)]]
    with Journal(tmp_path / "j", durable=True, header=HEADER) as journal:
        assert [journal.append(at, values) for at, values in enumerate(steps)] == [1, 2, 3]
        assert journal.next_row == 4
        assert len(journal) == 3
    with JournalReader(tmp_path / "j") as reader:
        assert [(row, at, values) for row, at, values in reader.rows()] == [(1, 0, steps[0]), (2, 1, []), (3, 2, steps[2])]
        assert [row for row, _, _ in reader.rows(2, 3)] == [2]
        assert reader.read(3) == (2, steps[2])
        assert reader.get(event_id(3, 1)) == fill(2)
        assert reader.header == HEADER


def test_what_is_not_there_is_refused_by_name(tmp_path):
    write(tmp_path / "j", [[decision(0)]])
    with JournalReader(tmp_path / "j") as reader:
        with pytest.raises(StoreError, match="has no row 2: it holds 1 to 1"):
            reader.read(2)
        with pytest.raises(StoreError, match=r"no event 1\.5: row 1 holds 1 values"):
            reader.get(event_id(1, 5))


def test_digest_is_sha256_of_row_time_length_and_body_computed_by_hand():
    bodies = [msgspec.msgpack.encode([decision(0)]), msgspec.msgpack.encode([reading(1)])]
    expected = hashlib.sha256(b"".join(struct.pack("<qqI", i + 1, i, len(b)) + b for i, b in enumerate(bodies))).hexdigest()
    assert write(None, [[decision(0)], [reading(1)]]) == expected


@settings(max_examples=20, deadline=None)
@given(sizes=st.lists(st.integers(0, 40), max_size=25), block=st.integers(1, 7), cut=st.integers(0, 25))
def test_digest_does_not_depend_on_commits_or_on_reopening(tmp_path_factory, sizes, block, cut):
    folder = tmp_path_factory.mktemp("journal")
    steps: list[list[Travelling]] = [[reading(at, float(i)) for i in range(size)] for at, size in enumerate(sizes)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(journal_module, "BLOCK_ROWS", block)
        in_blocks = write(folder / "blocks", steps)
    assert in_blocks == write(folder / "durable", steps, durable=True)
    write(folder / "resumed", steps[:cut])
    assert in_blocks == write(folder / "resumed", steps)  # replays the first part, appends the rest
    with JournalReader(folder / "resumed") as reader:
        assert reader.digest() == in_blocks


def test_digest_while_rows_are_still_being_appended(tmp_path):
    with Journal(tmp_path / "j", durable=False, header=HEADER) as journal:
        journal.append(0, [decision(0)])
        assert journal.digest() == write(None, [[decision(0)]])
        journal.append(1, [decision(1)])
        assert journal.digest() == write(None, [[decision(0)], [decision(1)]])


def test_long_bodies_are_compressed_on_disk_and_whole_when_read(tmp_path):
    long = decision(0, reason="because " * 1000)
    write(tmp_path / "j", [[long]])
    with sqlite3.connect(tmp_path / "j") as raw:
        assert len(raw.execute("SELECT body FROM block").fetchone()[0]) < 500
    raw.close()
    with JournalReader(tmp_path / "j") as reader:
        assert reader.read(1) == (0, [long])


def test_durable_rows_are_on_disk_when_append_returns_and_blocks_when_they_commit(tmp_path):
    with Journal(tmp_path / "d", durable=True, header=HEADER) as journal:
        journal.append(0, [decision(0)])
        with JournalReader(tmp_path / "d") as beside:
            assert len(beside) == 1
    with Journal(tmp_path / "b", durable=False, header=HEADER) as journal:
        journal.append(0, [decision(0)])
        with JournalReader(tmp_path / "b") as beside:
            assert len(beside) == 0
            journal.commit()
            assert len(beside) == 1


def test_writer_reads_its_own_uncommitted_rows(tmp_path):
    with Journal(tmp_path / "j", durable=False, header=HEADER) as journal:
        journal.append(0, [decision(0)])
        assert journal.get(event_id(1, 0)) == decision(0)
        journal.append(1, [decision(1)])
        assert [row for row, _, _ in journal.rows()] == [1, 2]


def test_replay_compares_then_appends(tmp_path):
    write(tmp_path / "j", [[decision(0)], [decision(1)]])
    with Journal(tmp_path / "j", durable=True, header=HEADER) as journal:
        assert journal.is_replaying
        assert journal.next_row == 1
        assert len(journal) == 2
        journal.append(0, [decision(0)])
        journal.append(1, [decision(1)])
        assert not journal.is_replaying
        assert journal.append(2, [decision(2)]) == 3
    with JournalReader(tmp_path / "j") as reader:
        assert len(reader) == 3


def test_replay_that_differs_names_row_time_event_and_both_values(tmp_path):
    write(tmp_path / "j", [[decision(0), reading(0)], [decision(1)]])
    with Journal(tmp_path / "j", durable=True, header=HEADER) as journal:
        with pytest.raises(JournalDivergenceError) as caught:
            journal.append(0, [decision(0), reading(0, 2.0)])
        assert "row 1 (1970-01-01T00:00:00Z)" in str(caught.value)
        assert "event 1.1" in str(caught.value)
        assert "value=1.0" in str(caught.value)
        assert "value=2.0" in str(caught.value)
        assert "new run" in caught.value.hint


@pytest.mark.parametrize(
    ("at", "values", "expected"),
    [(5, [decision(0)], "the replay is at"), (0, [], "it held 1 values, the replay has 0")],
)
def test_replay_at_another_time_or_with_fewer_values_is_named(tmp_path, at, values, expected):
    write(tmp_path / "j", [[decision(0)]])
    with Journal(tmp_path / "j", durable=True, header=HEADER) as journal, pytest.raises(JournalDivergenceError, match=expected):
        journal.append(at, values)


def test_header_of_another_run_is_refused_key_by_key(tmp_path):
    write(tmp_path / "j", [[decision(0)]])
    with pytest.raises(StoreError, match="belongs to another run: seed was '7' and is '8'"):
        Journal(tmp_path / "j", durable=True, header={"run": "r1", "seed": "8"})
    with pytest.raises(StoreError, match="extra was None and is 'x'"):
        Journal(tmp_path / "j", durable=True, header={**HEADER, "extra": "x"})


def test_time_runs_forward(tmp_path):
    with Journal(None, durable=False, header=HEADER) as journal:
        journal.append(10, [decision(10)])
        journal.append(10, [decision(10)])
        with pytest.raises(StoreError, match="time runs forward"):
            journal.append(9, [decision(9)])
        assert journal.next_row == 3


def test_an_id_names_one_order_for_ever(tmp_path):
    with Journal(tmp_path / "j", durable=True, header=HEADER) as journal:
        journal.append(0, [order(0)])
        journal.append(1, [order(0)])  # the very same order again is a resend, not a second one
        with pytest.raises(StoreError, match="order id 'ca1' already names"):
            journal.append(2, [order(0, quantity="2")])
        assert journal.next_row == 3
        journal.append(2, [order(0, client_id="ca2", quantity="2")])


def test_a_taken_id_is_seen_within_a_row_a_block_and_across_commits():
    with Journal(None, durable=False, header=HEADER) as journal:
        with pytest.raises(StoreError, match="already names"):
            journal.append(0, [order(0), order(0, quantity="9")])
        journal.append(0, [order(0)])  # the refused row left nothing behind
        with pytest.raises(StoreError, match="already names"):
            journal.append(1, [order(0, quantity="9")])
        journal.commit()
        with pytest.raises(StoreError, match="already names"):
            journal.append(1, [order(0, quantity="9")])


def test_trade_ids_are_counted_per_instrument():
    with Journal(None, durable=False, header=HEADER) as journal:
        journal.append(0, [fill(0), fill(0, instrument="ETH/USDT")])
        with pytest.raises(StoreError, match="fill id 't1' already names"):
            journal.append(1, [fill(0, price="101")])
        assert [event for event, _ in journal.find(Fill, trade_id="t1")] == [event_id(1, 1), event_id(1, 0)]


def test_find_by_id_uses_the_index_and_by_kind_reads_newest_first(tmp_path):
    with Journal(tmp_path / "j", durable=False, header=HEADER) as journal:
        journal.append(0, [decision(0, 0.1), order(0), decision(0, 0.2)])
        journal.append(1, [fill(1, "t1"), fill(1, "t2"), order(1, "ca2")])
    with JournalReader(tmp_path / "j") as reader:
        assert list(reader.find(Order, client_id="ca1")) == [(event_id(1, 1), order(0))]
        assert [value.trade_id for _, value in reader.find(Fill, client_id="ca1")] == ["t2", "t1"]
        assert [value for _, value in reader.find(Fill, trade_id="t2")] == [fill(1, "t2")]
        assert [value.target_weight for _, value in reader.find(Decision)] == [0.2, 0.1]
        assert list(reader.find(Order, client_id="nobody")) == []
        with pytest.raises(ConfigError, match="Signal has no such id"):
            next(reader.find(Signal, client_id="ca1"))


def test_only_travelling_values_and_no_more_than_an_event_id_can_name():
    with Journal(None, durable=False, header=HEADER) as journal:
        with pytest.raises(StoreError, match="a dict does not travel"):
            journal.append(0, [{"a": 1}])  # type: ignore[list-item]
        with pytest.raises(StoreError, match="65537 values"):
            journal.append(0, [decision(0)] * 65537)
        journal.append(0, [decision(0)] * 65536)
        assert journal.get(event_id(1, 65535)) == decision(0)


def test_a_file_that_is_no_journal_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "j"
    path.write_bytes(b"not a database, but long enough to be taken for one" * 100)
    before = path.read_bytes()
    with pytest.raises(StoreError, match="is corrupt") as caught:
        Journal(path, durable=True, header=HEADER)
    assert caught.value.hint
    assert path.read_bytes() == before
    foreign = sqlite3.connect(tmp_path / "foreign")
    foreign.execute("CREATE TABLE t (x)")
    foreign.close()
    with pytest.raises(StoreError, match="not a cryptoalpha journal"):
        Journal(tmp_path / "foreign", durable=True, header=HEADER)


def test_another_schema_version_is_refused(tmp_path):
    write(tmp_path / "j", [[decision(0)]])
    raw = sqlite3.connect(tmp_path / "j")
    raw.execute("PRAGMA user_version = 99")
    raw.close()
    with pytest.raises(StoreError, match="has schema 99"):
        JournalReader(tmp_path / "j")


def test_a_reader_does_not_create_a_journal(tmp_path):
    with pytest.raises(StoreError, match="no journal at"):
        JournalReader(tmp_path / "absent")
    assert not (tmp_path / "absent").exists()


def damage(path: Path, statement: str) -> None:
    raw = sqlite3.connect(path, isolation_level=None)
    raw.execute(statement)
    raw.close()


@pytest.mark.parametrize(
    ("statement", "why"),
    [
        ("DELETE FROM block WHERE first = 2", "row 2 .* is damaged: the row is missing"),
        ("UPDATE block SET packed = 1, body = x'78ffff' WHERE first = 2", "row 2 .* is damaged: its block, rows 2 to 2: "),
        ("UPDATE block SET body = x'00' WHERE first = 2", "row 2 .* is damaged: unpack_from requires"),
        ("UPDATE block SET body = (SELECT body FROM block WHERE first = 3) WHERE first = 2", "row 2 .* is damaged: it says it is row 3"),
        (
            "UPDATE block SET body = cast(body || x'91c1' AS BLOB) WHERE first = 2",
            "row 2 .* is damaged: its block has 77 bytes, its rows 75",
        ),
        (
            "UPDATE block SET body = x'020000000000000001000000000000000200000091c1' WHERE first = 2",
            "row 2 .* is damaged: MessagePack",
        ),
        ("UPDATE block SET last = 3 WHERE first = 2", "row 3 .* is damaged: unpack_from requires"),
    ],
)
def test_a_damaged_row_is_named(tmp_path, statement, why):
    write(tmp_path / "j", [[decision(0)], [decision(1)], [decision(2)]], durable=True)
    damage(tmp_path / "j", statement)
    with JournalReader(tmp_path / "j") as reader, pytest.raises(StoreError, match=why):
        list(reader.rows())


@pytest.mark.parametrize(
    ("statement", "why"),
    [
        ("DELETE FROM block WHERE first = 3", "row 3 .* is damaged: the row is missing"),
        ("INSERT INTO block SELECT 2, 2, packed, body FROM block WHERE first = 1", "row 2 .* is damaged: the row is there twice"),
        ("UPDATE block SET last = 1 WHERE first = 1", "row 1 .* is damaged: its block has 150 bytes, its rows 75"),
        ("UPDATE block SET body = substr(body, 1, length(body) - 1) WHERE first = 3", "row 4 .* is damaged: its block has"),
    ],
)
def test_a_damaged_block_is_named_by_the_row(tmp_path, monkeypatch, statement, why):
    monkeypatch.setattr(journal_module, "BLOCK_ROWS", 2)
    write(tmp_path / "j", [[decision(at)] for at in range(6)])
    damage(tmp_path / "j", statement)
    with JournalReader(tmp_path / "j") as reader:
        assert reader.read(5) == (4, [decision(4)])
        with pytest.raises(StoreError, match=why):
            list(reader.rows())


@settings(max_examples=20, deadline=None)
@given(count=st.integers(1, 40), block=st.integers(1, 7), asked=st.lists(st.integers(1, 40), min_size=1, max_size=8))
def test_rows_come_out_of_blocks_in_any_order(tmp_path_factory, count, block, asked):
    path = tmp_path_factory.mktemp("journal") / "j"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(journal_module, "BLOCK_ROWS", block)
        write(path, [[decision(at, reason="r" * (700 * (at % 3)))] for at in range(count)])  # some blocks packed, some not
    with JournalReader(path) as reader:
        for row in (min(row, count) for row in asked):
            assert reader.read(row)[0] == row - 1
            assert [found for found, _, _ in reader.rows(row, row + 4)] == list(range(row, min(row + 4, count + 1)))
        assert [event for event, _ in reader.find(Decision)] == [event_id(row, 0) for row in range(count, 0, -1)]


def test_rows_kept_while_the_disk_refuses_are_written_by_the_next_commit(tmp_path):
    steps: list[list[Travelling]] = [[decision(0)], [decision(1)]]
    with Journal(tmp_path / "j", durable=True, header=HEADER) as journal:
        journal._connection.execute("PRAGMA query_only = 1")
        with pytest.raises(StoreError, match="cannot be used"):
            journal.append(0, steps[0])
        journal._connection.execute("PRAGMA query_only = 0")
        journal.append(1, steps[1])
        assert journal.digest() == write(None, steps)


def test_a_huge_row_is_not_held_back(tmp_path):
    with Journal(tmp_path / "j", durable=False, header=HEADER) as journal, JournalReader(tmp_path / "j") as beside:
        journal.append(0, [decision(0)])
        assert len(beside) == 0
        journal.append(1, [decision(1, reason="x" * 65_536)])
        assert len(beside) == 2


def test_a_truncated_file_is_refused(tmp_path):
    write(tmp_path / "j", [[decision(at, reason=str(at) * 300)] for at in range(200)])
    content = (tmp_path / "j").read_bytes()
    (tmp_path / "j").write_bytes(content[: len(content) // 2])
    with pytest.raises(StoreError, match="is corrupt"), JournalReader(tmp_path / "j") as reader:
        list(reader.rows())


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be created") as caught:
        Journal(tmp_path / "file" / "j", durable=True, header=HEADER)
    assert "writable" in caught.value.hint


def test_two_writers_cannot_both_add_a_row(tmp_path):
    first = Journal(tmp_path / "j", durable=True, header=HEADER)
    second = Journal(tmp_path / "j", durable=True, header=HEADER)
    first.append(0, [decision(0)])
    with pytest.raises(StoreError, match="UNIQUE") as caught:
        second.append(0, [decision(0)])
    assert "another process" in caught.value.hint
    first.close()
    with pytest.raises(StoreError):
        second.close()


def test_a_durable_journal_that_is_gone_is_not_begun_anew(tmp_path):
    path = tmp_path / "runs" / "paper" / "journal.sqlite"
    write(path, [[decision(0)]], durable=True)
    path.rename(tmp_path / "elsewhere")
    for _ in range(2):
        with pytest.raises(RiskHaltError, match="is gone: the run has traded"):
            Journal(path, durable=True, header=HEADER)
        assert not path.exists()
    (tmp_path / "elsewhere").rename(path)
    with Journal(path, durable=True, header=HEADER) as journal:
        assert len(journal) == 1


def test_a_journal_from_before_the_mark_gets_one_and_that_of_a_backtest_none(tmp_path):
    path = tmp_path / "journal.sqlite"
    write(path, [[decision(0)]])
    assert [found.name for found in tmp_path.iterdir()] == ["journal.sqlite"]
    path.unlink()
    write(path, [[decision(0)]], durable=True)
    (tmp_path / "journal.sqlite.begun").unlink()
    Journal(path, durable=True, header=HEADER).close()
    assert (tmp_path / "journal.sqlite.begun").read_text(encoding="utf-8").startswith("A run has traded")
