"""`data …`, `check` and `status` on small stores: what they print, what they refuse, how they end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cryptoalpha.app.checks import check_machine, worst
from cryptoalpha.app.cli import main
from cryptoalpha.app.fetching import Wanted, fetch_history
from cryptoalpha.app.settings import Settings
from cryptoalpha.core.clock import VirtualClock
from cryptoalpha.core.time import HOUR, parse_time
from cryptoalpha.store.home import Home
from cryptoalpha.store.journal import Journal
from cryptoalpha.store.lock import StoreLock

START = parse_time("2023-01-01")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store of its own, in a working directory without settings."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("CRYPTOALPHA_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Three days of hourly bars of two instruments as CSV, one hour absent."""
    root = tmp_path / "market"
    (root / "price_1h").mkdir(parents=True)
    for name, price in (("BTCUSDT", 20_000.0), ("ETHUSDT", 1_500.0)):
        rows = ["ts,open,high,low,close,volume"]
        for hour in range(72):
            if hour != 40:
                stamp = f"2023-01-{hour // 24 + 1:02d}T{hour % 24:02d}:00:00Z"
                level = price * (1 + 0.001 * (hour % 7))
                rows.append(f"{stamp},{level},{level * 1.002},{level * 0.998},{level * 1.001},{10 + hour % 5}")
        (root / "price_1h" / f"{name}.csv").write_text("\n".join(rows) + "\n")
    return root


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict]:
    code = main([*arguments, "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_an_import_is_listed_verified_and_repeatable(capsys, directory, home):
    code, done = call(capsys, "data", "import", str(directory))
    assert (code, done["result"]["added"], done["result"]["conflicts"]) == (0, 142, [])
    code, again = call(capsys, "data", "import", str(directory))
    assert (code, again["result"]["added"], again["result"]["already_there"]) == (0, 0, 142)
    code, listed = call(capsys, "data", "list")
    assert code == 0
    assert [(row["source"], row["subject"], row["what"], row["rows"]) for row in listed["result"]["series"]] == [
        ("binance", "BTC/USDT", "1h", 71),
        ("binance", "ETH/USDT", "1h", 71),
    ]
    features = listed["result"]["features"]
    assert [(row["book"], row["instrument"], row["since"], row["bars"]) for row in features] == [
        ("binance 1h", "BTC/USDT", "2023-01-01", 71),
        ("binance 1h", "ETH/USDT", "2023-01-01", 71),
    ]
    assert all(row["chain_live"] == 0 and 0 < row["price_live"] < 50 for row in features)
    assert all(len(row["masked"]) == 80 - row["price_live"] for row in features)
    assert call(capsys, "data", "verify")[1]["result"] == {"files": 2, "faults": []}


def test_an_import_can_be_cut_and_kept_under_another_name(capsys, directory):
    code, done = call(capsys, "data", "import", str(directory), "--since", "2023-01-02", "--until", "2023-01-03", "--venue", "mine")
    assert (code, done["result"]["added"]) == (0, 2 * 23)
    listed = call(capsys, "data", "list", "--no-features")[1]["result"]
    assert {row["source"] for row in listed["series"]} == {"mine"}
    assert listed["features"] == []


def test_a_directory_can_be_looked_at_without_importing_it(capsys, directory, home):
    code, listed = call(capsys, "data", "list", "--data", str(directory))
    assert code == 0
    assert {row["instrument"] for row in listed["result"]["features"]} == {"BTC/USDT", "ETH/USDT"}
    assert not Home(home).manifest.exists()
    main(["data", "list", "--data", str(directory)])
    assert "price of 50" in capsys.readouterr().out


def test_an_empty_store_says_how_to_fill_it(capsys, home):
    assert main(["data", "list"]) == 0
    assert "cryptoalpha data fetch" in capsys.readouterr().out
    assert not home.exists()
    code, failed = call(capsys, "data", "verify")
    assert (code, failed["error"]["type"]) == (3, "DataMissingError")


def test_a_changed_file_is_found_and_ends_with_3(capsys, directory, home):
    call(capsys, "data", "import", str(directory))
    file = next((home / "bars").rglob("*.parquet"))
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    code, document = call(capsys, "data", "verify")
    assert (code, len(document["result"]["faults"])) == (3, 1)
    assert document["result"]["faults"][0]["path"] == file.relative_to(home).as_posix()


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["data", "import", "nowhere"], 3),
        (["data", "list", "--data", "nowhere"], 3),
        (["data", "import", ".", "--interval", "1x"], 2),
        (["data", "import", ".", "--since", "soon"], 2),
        (["data", "import"], 2),
    ],
)
def test_what_cannot_be_imported_ends_with_its_code_and_leaves_no_store(capsys, home, arguments, code):
    assert call(capsys, *arguments)[0] == code
    assert not Home(home).manifest.exists()


def test_a_second_process_is_refused_while_the_store_is_held(capsys, directory, home):
    script = "from cryptoalpha.store.lock import StoreLock\nfrom cryptoalpha.store.home import Home\nimport sys\n"
    script += "lock = StoreLock(Home.default()); lock.acquire(); print('held', flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        code, refused = call(capsys, "data", "import", str(directory))
        assert (code, refused["error"]["type"]) == (3, "StoreLockedError")
        assert str(other.pid) in refused["error"]["message"]
        checks = {row["name"]: row for row in call(capsys, "check")[1]["result"]["checks"]}
        assert (checks["store"]["state"], str(other.pid) in checks["store"]["found"]) == ("note", True)
        assert call(capsys, "status")[1]["result"]["in_use_by"] == other.pid
        other.communicate("")
    assert call(capsys, "status")[1]["result"]["in_use_by"] is None
    assert call(capsys, "data", "import", str(directory))[0] == 0


class CandleVenue:
    """A venue with two days of hourly candles of one instrument, behind ccxt's interface."""

    id = "fakevenue"
    has = {"fetchOHLCV": True, "fetchFundingRateHistory": True}  # noqa: RUF012  ccxt's own form
    last_response_headers: dict[str, str] = {}  # noqa: RUF012  ccxt's own form

    def __init__(self, name: str, settings: dict) -> None:
        self.id = name
        self.timeframes = {"1h": "1h"}

    def load_markets(self, reload: bool = False) -> dict:
        return {"BTC/USDT": {"precision": {"amount": 0.001, "price": 0.1}, "limits": {"cost": {"min": 5}}, "swap": False}}

    def fetch_ohlcv(self, symbol: str, timeframe: str, since: int | None, limit: int | None) -> list[list[float]]:
        first = START // 1_000_000
        stamps = [first + hour * 3_600_000 for hour in range(48)]
        wanted = [stamp for stamp in stamps if stamp >= (since or 0)][: limit or 1000]
        return [[stamp, 100.0, 101.0, 99.0, 100.5, 10.0] for stamp in wanted]

    def fetch_funding_rate_history(self, symbol: str, since: int | None, limit: int | None) -> list[dict]:
        return []


def test_a_fetch_fills_the_store_and_goes_on_where_it_stopped(home, capsys):
    said: list[tuple[int, int, str]] = []
    clock = VirtualClock(START + 48 * HOUR + HOUR // 2)
    wanted = Wanted(instruments=("BTC/USDT",), since=START, venues=("fakevenue",))

    def fetch():
        return fetch_history(home, Settings(), wanted, tell=lambda *words: said.append(words), factory=CandleVenue, clock=clock)

    done = fetch()
    assert (done.report.venue, done.report.instruments[0].added) == ("fakevenue", 48)
    assert said[-1][:2] == (48, 48)
    assert any("no funding rates" in problem for problem in done.problems)
    assert "48 bars added" in done.lines()[0]
    assert fetch().report.instruments[0].added == 0
    assert call(capsys, "data", "list", "--no-features")[1]["result"]["series"][0]["rows"] == 48


def test_a_machine_in_order_has_no_fault(capsys, home):
    code, document = call(capsys, "check")
    checks = document["result"]["checks"]
    assert code == 0
    assert [row["name"] for row in checks][:4] == ["python", "packages", "extras", "configuration"]
    assert [row for row in checks if row["state"] == "fault"] == []
    assert checks[-1]["name"] == "history"
    assert "cryptoalpha data fetch" in checks[-1]["fix"]


def test_gaps_and_age_of_stored_bars_are_told_with_the_command_that_mends_them(capsys, directory):
    call(capsys, "data", "import", str(directory))
    checks = {row["name"]: row for row in call(capsys, "check")[1]["result"]["checks"]}
    found = checks["binance BTC/USDT 1h"]
    assert "71 bars, 1 absent" in found["found"]
    assert found["fix"] == "cryptoalpha data fetch --instruments BTC/USDT"


def test_a_broken_configuration_is_a_fault_and_the_other_checks_are_made_all_the_same(capsys):
    Path("cryptoalpha.yaml").write_text("risk:\n  max_positon: 0.1\n")
    code, document = call(capsys, "check")
    checks = {row["name"]: row for row in document["result"]["checks"]}
    assert code == 2
    assert "risk.max_position" in checks["configuration"]["fix"]
    assert checks["store"]["state"] == "ok"


def test_a_dotenv_that_others_can_read_is_a_fault(capsys):
    Path(".env").write_text("CRYPTOALPHA_ENGINE__SEED=1\n")
    Path(".env").chmod(0o644)
    code, document = call(capsys, "check")
    assert (code, document["error"]["hint"]) == (2, "chmod 600 .env")
    Path(".env").chmod(0o600)
    assert call(capsys, "check")[0] == 0


def test_check_says_whether_real_orders_are_allowed_and_what_is_missing(capsys, monkeypatch):
    def found(*options: str) -> tuple[str, str]:
        (row,) = [row for row in call(capsys, "check", *options)[1]["result"]["checks"] if row["name"] == "real orders"]
        return row["state"], row["found"]

    monkeypatch.delenv("CRYPTOALPHA_LIVE", raising=False)
    state, said = found()
    assert state == "ok"
    assert "execution.allow_live is not true; CRYPTOALPHA_LIVE is not 1" in said
    monkeypatch.setenv("CRYPTOALPHA_LIVE", "1")
    meant = ("--set", "execution.allow_live=true")
    assert found(*meant) == ("note", "none may be sent: credentials.api_key is not set; credentials.api_secret is not set")
    monkeypatch.setenv("CRYPTOALPHA_CREDENTIALS__API_KEY", "a-key-of-nobody")
    monkeypatch.setenv("CRYPTOALPHA_CREDENTIALS__API_SECRET", "a-secret-of-nobody")
    state, said = found(*meant)
    assert (state, said[:31]) == ("ok", "allowed by `trade --live` at bi")


def test_a_credential_that_leads_nowhere_is_a_fault(capsys, monkeypatch):
    monkeypatch.setenv("CRYPTOALPHA_CREDENTIALS__API_KEY", "env:NOT_SET_ANYWHERE")
    code, document = call(capsys, "check")
    assert code == 2
    assert "api_key" in {row["name"]: row for row in document["result"]["checks"]}["credentials"]["found"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_store_that_cannot_be_written_is_a_fault(capsys, home):
    home.mkdir()
    home.chmod(0o500)
    assert call(capsys, "check")[0] == 3


def test_a_store_below_a_file_is_a_fault(capsys, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CRYPTOALPHA_HOME", str(tmp_path / "file" / "home"))
    code, document = call(capsys, "check")
    assert code == 3
    assert {row["name"]: row for row in document["result"]["checks"]}["store"]["state"] == "fault"


def test_a_clock_that_has_lost_its_time_is_a_fault(home, tmp_path):
    checks = check_machine(home, Settings, lambda secrets: None, now=parse_time("1970-01-02"), directory=tmp_path)
    assert worst(checks).name == "clock"


def test_status_tells_every_runs_state_and_age(capsys, home):
    assert call(capsys, "status")[1]["result"]["runs"] == []
    for run in ("first", "second"):
        folder = home / "runs" / run
        folder.mkdir(parents=True)
        with Journal(folder / "journal.sqlite", durable=False, header={"run": run}) as journal:
            journal.append(START, [])
            journal.append(START + HOUR, [])
            journal.commit()
    (home / "runs" / "first" / "metrics.json").write_text("{}")
    runs = {row["run"]: row for row in call(capsys, "status")[1]["result"]["runs"]}
    assert (runs["first"]["state"], runs["second"]["state"]) == ("finished", "stopped")
    assert (runs["first"]["rows"], runs["first"]["last_at"]) == (2, "2023-01-01T01:00:00Z")
    assert 0 <= runs["first"]["age_seconds"] < 60
    with StoreLock(Home(home)):
        assert {row["run"]: row["state"] for row in call(capsys, "status")[1]["result"]["runs"]}["second"] == "running"


def test_status_fails_for_a_container_when_nothing_was_written_lately(capsys, home):
    assert call(capsys, "status", "--max-age", "60")[0] == 3
    folder = home / "runs" / "old"
    folder.mkdir(parents=True)
    with Journal(folder / "journal.sqlite", durable=False, header={"run": "old"}) as journal:
        journal.append(START, [])
        journal.commit()
    assert call(capsys, "status", "--max-age", "60")[0] == 0
    for file in folder.iterdir():
        os.utime(file, (1.0e9, 1.0e9))
    assert call(capsys, "status", "--max-age", "60")[0] == 3


def test_a_damaged_journal_is_told_and_ends_with_3(capsys, home):
    folder = home / "runs" / "broken"
    folder.mkdir(parents=True)
    (folder / "journal.sqlite").write_bytes(b"this is no database, but it is long enough to be looked at" * 20)
    code, document = call(capsys, "status")
    assert (code, document["result"]["runs"][0]["state"]) == (3, "damaged")
