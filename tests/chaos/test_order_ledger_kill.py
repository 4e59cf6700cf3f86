"""The order ledger under kill -9, a full disk, a read-only file and a torn tail: never half a write, never a trade told twice or not."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
from decimal import Decimal
from pathlib import Path

import pytest

from cryptoalpha.core.errors import StoreError
from cryptoalpha.core.values import Fill, Order
from cryptoalpha.store.journal import Journal
from cryptoalpha.store.order_ledger import Booking, OrderLedger, OrderRecord, read_summary

HEADER = {"run": "k"}

RUN = """
import json, os, signal, sys
from decimal import Decimal
from pathlib import Path
from cryptoalpha.core.values import Fill, Order
from cryptoalpha.store import sqlite
from cryptoalpha.store.journal import Journal
from cryptoalpha.store.order_ledger import Booking, OrderLedger, OrderRecord

STEPS = 4

def order(k):
    return Order(happened_at=k, known_at=k, client_id=f"ca{k}", instrument="BTC/USDT", side="buy", quantity=Decimal(k + 1))

def answer(ledger, placed):
    # the venue fills every order at once; a fill it tells twice counts once
    k, done = placed.happened_at, placed.quantity
    fill = Fill(happened_at=k, known_at=k, trade_id=f"t{k}", client_id=placed.client_id, instrument="BTC/USDT", side="buy",
                quantity=done, price=Decimal(100), fee=Decimal(0), fee_asset="USDT")
    record = OrderRecord(client_id=placed.client_id, instrument="BTC/USDT", state="filled", ended=True, quantity=done, filled=done,
                         changed_at=k, since=k)
    ledger.write(at=k, records=[record], fills=[Booking(fill=fill)], cursors={"trades": f"t{k}"})

def run(path):
    with Journal(path, durable=True, header={"run": "k"}) as journal, OrderLedger(path) as ledger:
        for _, placed, _ in ledger.unfinished():  # what a restart asks the venue for
            answer(ledger, placed)
        for k in range(STEPS):
            was_there = journal.is_replaying
            told = journal.outcomes()
            with journal.turn():
                journal.append(k, [*told, order(k)])
            if not was_there:
                answer(ledger, order(k))
        told = [value.trade_id for _, value in ledger.told()]
        return [journal.digest(), told, ledger.cursor("trades"), len(ledger.unfinished()), [b.fill.trade_id for b in ledger.fills()]]

def killed_at(statement):
    # the engine, killed immediately before its n-th SQL statement, of whichever connection
    seen = 0
    def trace(sql):
        nonlocal seen
        seen += 1
        if seen == statement:
            os.kill(os.getpid(), signal.SIGKILL)
    connect = sqlite._connect
    def traced(path, *, read_only):
        connection = connect(path, read_only=read_only)
        connection.set_trace_callback(trace)
        return connection
    sqlite._connect = traced
    run(path)

folder = Path(sys.argv[1])
statement, results = 0, []
while True:
    statement += 1
    path = folder / f"{statement}" / "journal.sqlite"
    child = os.fork()
    if child == 0:
        killed_at(statement)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    results.append([os.WIFSIGNALED(status), *run(path)])
    for file in path.parent.iterdir():
        file.unlink()
    if not os.WIFSIGNALED(status):
        break
print(json.dumps(results))
"""


@pytest.mark.lengthy
def test_killed_before_any_statement_a_run_ends_as_if_never_killed(tmp_path):
    done = subprocess.run([sys.executable, "-c", RUN, str(tmp_path)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    assert len(results) > 60  # kill points; the last run was not killed
    assert [was_killed for was_killed, *_ in results] == [True] * (len(results) - 1) + [False]
    expected = ["t0", "t1", "t2", "t3"]
    assert {json.dumps(result) for _, *result in results} == {json.dumps([results[-1][1], expected, "t3", 0, expected])}


def order(k: int) -> Order:
    return Order(happened_at=k, known_at=k, client_id=f"ca{k}", instrument="BTC/USDT", side="buy", quantity=Decimal(1))


def record(k: int) -> OrderRecord:
    return OrderRecord(
        client_id=f"ca{k}", instrument="BTC/USDT", state="filled", ended=True, quantity=Decimal(1), filled=Decimal(1), changed_at=k, since=k
    )


def booking(k: int) -> Booking:
    return Booking(
        fill=Fill(
            happened_at=k,
            known_at=k,
            trade_id=f"t{k}",
            client_id=f"ca{k}",
            instrument="BTC/USDT",
            side="buy",
            quantity=Decimal(1),
            price=Decimal(100),
            fee=Decimal(0),
            fee_asset="USDT",
        )
    )


def write(ledger: OrderLedger, k: int) -> None:
    ledger.write(at=k, records=[record(k)], fills=[booking(k)], cursors={"trades": f"t{k}"})


def content(path: Path) -> tuple[list[str], list[str], list[str], str | None]:
    """Records, trades, what is told, cursor."""
    with OrderLedger(path) as ledger:
        return (
            [found.client_id for found in ledger.records()],
            [found.fill.client_id for found in ledger.fills()],
            [value.client_id for _, value in ledger.told() if isinstance(value, Fill)],
            ledger.cursor("trades"),
        )


def whole(content: tuple[list[str], list[str], list[str], str | None]) -> int:
    """How many whole writes it is; fails where one is there in part."""
    records, trades, told, cursor = content
    count = len(trades)
    assert sorted(records) == sorted(f"ca{k}" for k in range(count))
    assert trades == told == [f"ca{k}" for k in range(count)]
    assert cursor == (f"t{count - 1}" if count else None)
    return count


def test_a_full_disk_fails_a_write_as_a_whole_and_the_next_succeeds(tmp_path):
    path = tmp_path / "journal.sqlite"
    Journal(path, durable=True, header=HEADER).close()
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a write beyond the limit fails instead of ending the process
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with OrderLedger(path) as ledger:
            largest = max(file.stat().st_size for file in tmp_path.iterdir())
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest + 100_000, hard))
            written = 0
            refused = None
            while refused is None and written < 1000:
                try:
                    write(ledger, written)
                    written += 1
                except StoreError as error:
                    refused = error
            assert refused is not None
            assert written > 0
            with pytest.raises(StoreError):
                write(ledger, written)
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            write(ledger, written)  # the same ledger goes on when there is space again
        assert whole(content(path)) == written + 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)


READ_ONLY = """
import os, sys
from pathlib import Path
from cryptoalpha.core.errors import StoreError
from cryptoalpha.store.order_ledger import OrderLedger
if os.getuid() == 0:
    os.setuid(65534)  # nobody: root may write everywhere
try:
    OrderLedger(Path(sys.argv[1]))
except StoreError as error:
    print(error)
"""


def test_a_read_only_journal_is_refused_before_anything_is_sent():
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = folder / "journal.sqlite"
        Journal(path, durable=True, header=HEADER).close()
        path.chmod(0o444)
        folder.chmod(0o555)
        done = subprocess.run([sys.executable, "-c", READ_ONLY, str(path)], capture_output=True, text=True, timeout=60)
        folder.chmod(0o755)
    assert "cannot be used" in done.stdout, done.stderr


@pytest.fixture
def torn(tmp_path: Path) -> tuple[Path, Path]:
    """A journal with 12 writes that its killed writer left in the write-ahead log, and that log."""
    path = tmp_path / "a" / "journal.sqlite"
    path.parent.mkdir()
    copy = tmp_path / "b"
    with Journal(path, durable=True, header=HEADER) as journal:
        journal.append(0, [order(k) for k in range(12)])
    with OrderLedger(path) as ledger:
        for k in range(12):
            write(ledger, k)
        shutil.copytree(path.parent, copy)  # as a power cut would leave it: nothing is folded into the file
    return copy / "journal.sqlite", copy / "journal.sqlite-wal"


def test_a_torn_tail_loses_whole_writes_only_and_they_can_be_written_again(torn, tmp_path):
    path, log = torn
    kept, length = set(), log.stat().st_size
    for n, cut in enumerate(range(length, length // 3, -(length // 24) - 7)):
        folder = tmp_path / f"cut{n}"
        shutil.copytree(path.parent, folder)
        with (folder / log.name).open("r+b") as file:
            if n % 2:
                file.truncate(cut)
            else:  # garbage where the last pages were
                file.seek(cut - 64)
                file.write(os.urandom(64) if n else b"\xff" * 64)
        target = folder / path.name
        count = whole(content(target))
        kept.add(count)
        with OrderLedger(target) as ledger:
            lost = {found.client_id for _, found, _ in ledger.unfinished()}
            assert lost == {f"ca{k}" for k in range(count, 12)}  # what the venue is asked for again
            for k in range(count - 1 if count else 0, 12):  # it tells one trade that is known already
                if k >= count:
                    write(ledger, k)
                else:
                    assert ledger.write(at=k, fills=[booking(k)]).fills == ()
        assert whole(content(target)) == 12
    assert len(kept) > 4  # the cuts did reach different writes


def test_damage_inside_is_an_error_never_a_wrong_answer(torn):
    path, _ = torn
    content(path)
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE venue_event SET body = X'00' WHERE id = 3")
        connection.execute("UPDATE venue_fill SET body = X'93' WHERE id = 4")
    connection.close()
    with OrderLedger(path) as ledger:
        with pytest.raises(StoreError, match="damaged"):
            ledger.told()
        with pytest.raises(StoreError, match="damaged"):
            ledger.fills(client_id="ca3")
        assert len(ledger.fills(client_id="ca2")) == 1
    with Journal(path, durable=True, header=HEADER) as journal:
        journal.append(0, [order(k) for k in range(12)])
        with pytest.raises(StoreError, match="damaged"):
            journal.outcomes()
    damaged = path.read_bytes()
    path.write_bytes(damaged[:8192] + b"\x5a" * (len(damaged) - 8192))
    with pytest.raises(StoreError):
        read_summary(path)


def test_ledger_and_engine_write_side_by_side_and_each_trade_is_told_once(tmp_path):
    path = tmp_path / "journal.sqlite"
    failures: list[BaseException] = []

    def venue(offset: int) -> None:
        try:
            with OrderLedger(path) as ledger:  # two that hear the same trades: stream and question
                for k in range(25):
                    write(ledger, k) if offset else ledger.write(at=k, fills=[booking(k)])
        except StoreError as error:
            failures.append(error)

    with Journal(path, durable=True, header=HEADER) as journal:
        threads = [threading.Thread(target=venue, args=(offset,)) for offset in (0, 1)]
        for thread in threads:
            thread.start()
        told: list[str] = []
        row = 0
        while any(thread.is_alive() for thread in threads) or journal.has_outcomes():
            told += [value.trade_id for value in journal.outcomes() if isinstance(value, Fill)]
            with journal.turn():
                journal.append(row, [])
            row += 1
        for thread in threads:
            thread.join()
    assert not failures
    assert sorted(told, key=lambda name: int(name[1:])) == [f"t{k}" for k in range(25)]
