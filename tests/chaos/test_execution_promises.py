"""The reliability list (R1–R16) and bugs that users of other bots reported, each as a schedule of its own through the real order path.

What a schedule demands beside its own point is the whole checker: every trade once, position and cash equal to the venue's to the last
digit, no duplicate, no orphan, a replay equal to the byte, a second comparison that changes nothing (R5).

| promise | covered here by | and elsewhere by |
|---|---|---|
| R1 kill -9 along the order path | `every_point` | `make chaos`; tests/chaos/test_order_ledger_kill.py |
| R2 no clear answer is UNKNOWN | `silence`, `garbage` | tests/unit/execution/test_order_answers.py, tests/unit/execution/venue |
| R3 exactly-once accounting | `odd_fills`, `base_fees` | tests/properties/test_order_messages.py |
| R4 restarts, other hands | `other_hands`, `long_outage` | tests/unit/execution/reconcile, tests/end_to_end |
| R5 reconcile twice | every schedule (`checker.check_replay`) | tests/unit/execution/reconcile |
| R6 clocks | `skew_back`, `skew_ahead` | tests/unit/execution/venue |
| R7 rate limits | `rate_limits` | tests/properties/test_backoff.py, tests/unit/execution/venue |
| R8 bar gate | – | tests/unit/store, tests/properties/test_bar_gate_properties.py |
| R9 models that fail | – | tests/unit/signals, tests/golden (forecasts are held, never NaN) |
| R10 disks, locks, SIGTERM | – | tests/chaos/test_order_ledger_kill.py, test_journal_kill.py, tests/end_to_end |
| R11 kill switch | – | tests/chaos/test_kill_switch.py, tests/unit/risk, tests/end_to_end |
| R12 paper cannot send | tests/chaos/test_execution_parity.py (0 requests that take a key) | tests/unit/app/live/test_live_gates.py |
| R13 parity | tests/chaos/test_execution_parity.py | tests/properties/test_fake_exchange_parity.py, tests/golden/test_oracles.py |
| R14 prefixes and poison | – | tests/end_to_end/test_audit_*.py, tests/properties/test_*_causality.py |
| R15 the dashboard's door | comes with the dashboard | tests/unit/app/test_secrets.py |
| R16 soak | `python -m cryptoalpha.app.chaos.soak` | – |
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cryptoalpha.app.chaos.exchange import KEY, SECRET
from cryptoalpha.app.chaos.schedule import Fault, Hand, Kill, Schedule, Strike
from cryptoalpha.execution.live.points import Point

ORDERS, QUERIES, CANCELS = "POST */order", "GET */order", "DELETE */order"


def strike(bar: int, action: str, route: str = "", *, times: int = 1, seconds: float | None = None) -> Strike:
    return Strike(bar=bar, fault=Fault(action=action, route=route, times=times, seconds=seconds))


def spot(seed: int, **changes: Any) -> Schedule:
    return msgspec.structs.replace(Schedule(seed=seed, market="spot", instruments=("BTC/USDT", "ETH/USDT"), bars=13), **changes)


def futures(seed: int, **changes: Any) -> Schedule:
    return msgspec.structs.replace(spot(seed), market="futures", **changes)


def killed_at(*points: Point) -> tuple[Kill, ...]:
    return tuple(Kill(point=point) for point in points)


EVERY_POINT = sorted(Point, key=lambda point: (point in (Point.BEFORE_CANCEL, Point.AFTER_CANCEL), point))
"""Those of cancels last: a life that passes no further cancel is not killed, and trades to the end."""
SILENCE = (strike(1, "timeout_after", ORDERS, times=2), strike(4, "drop_after", ORDERS), strike(5, "timeout_before", ORDERS))
PROMISES = {
    "R1 every_point": spot(
        9001, thin=True, kills=killed_at(*EVERY_POINT), missed=(0,) * len(EVERY_POINT), strikes=(strike(0, "drop_after", ORDERS, times=9),)
    ),
    "R2 silence": spot(9002, strikes=SILENCE),
    "R2 garbage": futures(
        9003, strikes=tuple(strike(n, kind, ORDERS) for n, kind in enumerate(("garbage", "empty_object", "null", "cut_json", "truncated")))
    ),
    "R3 odd_fills": spot(
        9004, thin=True, strikes=(strike(1, "duplicate", times=3), strike(2, "late"), strike(3, "swap"), strike(4, "fill_before_ack"))
    ),
    "R3 base_fees": spot(9005, fees="base", kills=killed_at(Point.FILL_RECEIVED, Point.FILL_BOOKED), missed=(0, 0)),
    "R4 other_hands": spot(
        9006, opening=(("BTC", "0.2"),), kills=killed_at(Point.AFTER_RECONCILE), missed=(0,),
        hands=(
            Hand(bar=3, kind="sell", instrument="BTC/USDT", quantity="0.05"),
            Hand(bar=4, kind="rest", instrument="ETH/USDT", quantity="0.4"),
            Hand(bar=5, kind="withdraw", instrument="BTC/USDT", quantity="0.05"),
        ),
    ),
    "R4 long_outage": spot(9007, kills=killed_at(Point.TOLD, Point.AFTER_INTENT), missed=(3, 1)),
    "R6 skew_back": spot(9008, strikes=(strike(2, "skew", seconds=-3600.0),)),
    "R6 skew_ahead": futures(9009, strikes=(strike(2, "skew", seconds=5.0),)),
    "R7 rate_limits": spot(9010, strikes=(strike(2, "rate_limit", ORDERS, seconds=1.0), strike(5, "banned", QUERIES, seconds=1.0))),
}  # fmt: skip
PEERS = {
    "nautilus#4736 a restart must not invent the opposite trade": futures(
        9101, kills=killed_at(Point.FILL_BOOKED, Point.TOLD), missed=(2, 0)
    ),
    "nautilus#3104 a trade told by stream and report is one trade": spot(9102, strikes=(strike(1, "duplicate", "WS account *", times=6),)),
    "nautilus#3023 a position older than what is looked back at": futures(
        9103, kills=killed_at(Point.IN_RECONCILE, Point.AFTER_OUTCOME), missed=(3, 3)
    ),
    "nautilus#4958 an unanswered order is not rejected": spot(9104, strikes=(strike(1, "timeout_after", ORDERS, times=4),)),
    "hummingbot#8457 orders accepted before an outage are not dropped": spot(
        9105, strikes=(strike(2, "drop_after", ORDERS, times=2), strike(2, "outage", seconds=0.8))
    ),
    "hummingbot#3374 not found once is not lost": spot(
        9106, strikes=(strike(1, "drop_after", ORDERS, times=2), strike(1, "not_found", QUERIES, times=2))
    ),
    "freqtrade#3647 a fill that races its cancel": spot(9117, bars=20, change=1.0, thin=True, strikes=(strike(1, "cancel_race", times=4),)),
    "freqtrade#8913 an order that errs and was placed all the same": futures(9108, strikes=(strike(2, "error_after", ORDERS, times=3),)),
    "OctoBot#3190 exits survive a restart in an outage": spot(
        9109, kills=killed_at(Point.AFTER_CANCEL, Point.BEFORE_SEND), missed=(1, 0), strikes=(strike(4, "maintenance", seconds=0.5),)
    ),
    "ccxt#2599 a timeout and a restart do not double an order": spot(
        9110, kills=killed_at(Point.AFTER_REPLY, Point.IN_QUERY), missed=(0, 0), strikes=(strike(1, "timeout_after", ORDERS, times=3),)
    ),
    "catalyst#315 an order is not sent again because a query failed": spot(
        9111, strikes=(strike(1, "drop_after", ORDERS, times=2), strike(1, "reset_before", QUERIES, times=3))
    ),
}  # fmt: skip


def drive(schedule: Schedule, folder: Path) -> dict[str, Any]:
    path = folder / "schedule.json"
    path.write_bytes(msgspec.json.encode(schedule))
    command = [sys.executable, "-m", "cryptoalpha.app.chaos", "--schedule", str(path), "--keep", str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False, env=environment)
    assert done.stdout, done.stderr
    assert SECRET not in done.stdout + done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def leaks(folder: Path, secrets: Sequence[str]) -> list[str]:
    """Files below a folder that hold one of these texts."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    assert len(files) >= 4
    return [path.name for path in files if any(secret.encode() in path.read_bytes() for secret in secrets)]


def holds(schedule: Schedule, folder: Path) -> dict[str, Any]:
    """Drive it, and demand that it was disturbed, that nothing is violated, and that no secret is in anything it left."""
    found = drive(schedule, folder)
    assert found["violations"] == []
    assert found["fills"] >= 2
    assert sum(found["kills"].values()) + sum(found["faults"].values()) + len(schedule.hands) > 0
    assert leaks(folder / f"seed-{schedule.seed}", [KEY, SECRET]) == []
    return found


@pytest.mark.lengthy
def test_no_secret_is_in_journal_log_or_traceback_of_a_run_that_failed_in_every_way(tmp_path: Path):
    refused = spot(9200, bars=9, strikes=(*SILENCE, strike(2, "unknown_after", ORDERS), strike(3, "revoked", times=2)))
    drive(refused, tmp_path)
    left = tmp_path / f"seed-{refused.seed}"
    assert leaks(left, [KEY, SECRET]) == []
    (left / "leak.log").write_text(f"secret={SECRET}", encoding="utf-8")
    assert leaks(left, [KEY, SECRET]) == ["leak.log"]


@pytest.mark.slow
@pytest.mark.parametrize("promise", sorted(PROMISES))
def test_promise(tmp_path: Path, promise: str):
    found = holds(PROMISES[promise], tmp_path)
    if promise == "R1 every_point":
        assert len(found["kills"]) >= 9  # the others are those of cancels, which not every life sends, and what follows them


@pytest.mark.slow
@pytest.mark.parametrize("bug", sorted(PEERS))
def test_bug_of_a_peer(tmp_path: Path, bug: str):
    holds(PEERS[bug], tmp_path)
