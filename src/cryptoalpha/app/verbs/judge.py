"""`models judge`: a version before the promotion gates. The group `models` registers it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cryptoalpha.app.frame import Frame, verb

if TYPE_CHECKING:
    from cryptoalpha.lifecycle.gates.values import Contender
    from cryptoalpha.lifecycle.registry.registry import ModelRegistry

Data = Annotated[Path | None, typer.Option("--data", help="Directory of history [else what the store holds].")]
Interval = Annotated[str, typer.Option("--interval", help="Bar length, such as 1h.")]
Instruments = Annotated[str | None, typer.Option("--instruments", help="Comma-separated, such as BTC/USDT,ETH/USDT [else all].")]
Simulated = Annotated[bool, typer.Option("--simulated", help="Use the simulated market instead of data.")]


def register(app: typer.Typer) -> None:
    """Put the verb into a group."""
    verb(app)(judge)


def judge(
    frame: Frame,
    version: Annotated[str, typer.Argument(help="A version's id, or its beginning.")],
    champion: Annotated[
        str | None, typer.Option("--champion", help="Whom it must beat: another version, or `none` [else the champion of its line].")
    ] = None,
    data: Data = None,
    interval: Interval = "1h",
    instruments: Instruments = None,
    simulated: Simulated = False,
    all_gates: Annotated[bool, typer.Option("--all", help="Ask the gates after one that refused, too; never the holdout.")] = False,
) -> None:
    """Ask every promotion gate and attach the report to the version. Exit code 6 if one refuses. Each judged backtest counts as a trial."""
    from cryptoalpha.app.judging_candidates import Ground
    from cryptoalpha.app.sources import open_dataset
    from cryptoalpha.core.clock import SystemClock
    from cryptoalpha.lifecycle.gates.gate import promotion_gate
    from cryptoalpha.lifecycle.gates.values import GATES
    from cryptoalpha.lifecycle.registry.registry import PLACE, ModelRegistry

    now = SystemClock().now
    registry = ModelRegistry(frame.home / PLACE, now=now)
    candidate = registry.get(version)
    rival = _rival(registry, candidate.line, champion)
    if rival is not None and rival.id == candidate.id:
        frame.out.note(f"{candidate.short} is champion of {candidate.line} itself: judged with nobody to beat")
        rival = None
    names = [name.strip() for name in instruments.split(",") if name.strip()] if instruments else None
    dataset = open_dataset(frame.settings, frame.home, data=data, simulated=simulated, interval=interval, instruments=names)

    def look(origin: str, since: int, until: int) -> int:
        return registry.holdout_touches(origin, since, until, by=candidate.id)

    scratch = frame.home / "lifecycle" / "judging"
    ground = Ground(frame.settings, dataset, frame.home, candidate, rival, scratch, look, tuple(names) if names else None)
    config = frame.settings.lifecycle.gates
    if all_gates:
        config = config.model_copy(update={"stop_at_first": False})
    with frame.out.progress("judging", len(GATES)) as advance:
        report = promotion_gate(
            candidate, rival, ground.checks(), config, now=now, seed=frame.seed, tell=lambda *_: advance(1)
        )  # fmt: skip
    registry.report(candidate.id, report.as_dict())
    frame.out.result(report.as_dict(), report.lines())
    report.require()


def _rival(registry: ModelRegistry, line: str, named: str | None) -> Contender | None:
    if named == "none":
        return None
    return registry.champion(line) if named is None else registry.get(named)
