"""Hundreds of schedules, two at a time: resumed where they were stopped, counted, and every violation kept with what repeats it.

Workers are forked from a process that has imported everything and started no thread. Each schedule's verdict is one line of
`verdicts.jsonl`; a second start with the same code passes over the seeds that have one.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from cryptoalpha.app.chaos.drive import Drive, Outcome, keep_evidence
from cryptoalpha.app.chaos.lives import Mutation
from cryptoalpha.app.chaos.schedule import MarketKind, Schedule, draw_schedule
from cryptoalpha.app.output import Table
from cryptoalpha.core.errors import WorkerDiedError
from cryptoalpha.execution.live.points import Point

VERDICTS = "verdicts.jsonl"
MARKETS: tuple[MarketKind, ...] = ("spot", "futures")


@dataclass
class Campaign:
    """What all schedules together came to."""

    schedules: int = 0
    lives: int = 0
    orders: int = 0
    fills: int = 0
    seconds: float = 0.0
    kills: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    violations: list[tuple[int, str]] = field(default_factory=list)

    def add(self, verdict: dict[str, object]) -> None:
        """Take in a line of `verdicts.jsonl`."""
        one = msgspec.convert(verdict, Outcome)
        self.schedules += 1
        self.lives += one.lives
        self.orders += one.orders
        self.fills += one.fills
        self.seconds += one.seconds
        self.kills.update(one.kills)
        self.faults.update(one.faults)
        self.violations += [(one.seed, text) for text in one.violations]

    def as_dict(self) -> dict[str, object]:
        return {
            "schedules": self.schedules,
            "lives": self.lives,
            "orders": self.orders,
            "fills": self.fills,
            "seconds": round(self.seconds, 1),
            "kills": sum(self.kills.values()),
            "kills_by_point": {point.name: self.kills[point.name] for point in Point},
            "faults": dict(self.faults.most_common()),
            "violations": [{"seed": seed, "violation": text, "command": command(seed)} for seed, text in self.violations],
        }

    def lines(self) -> list[str | Table]:
        said: list[str | Table] = [
            f"{self.schedules:,} schedules, {self.lives:,} lives, {sum(self.kills.values()):,} of them killed; "
            f"{self.orders:,} orders, {self.fills:,} trades; {sum(self.faults.values()):,} faults struck",
            Table(("killed at", "times"), [(point.name, str(self.kills[point.name])) for point in Point], "kill -9"),
            Table(("fault", "times"), [(name, str(times)) for name, times in self.faults.most_common()], "faults"),
        ]
        said += [f"VIOLATION seed {seed}: {text}   ({command(seed)})" for seed, text in self.violations]
        return [*said, f"violations: {len(self.violations)}"]


def command(seed: int) -> str:
    """What repeats a schedule."""
    return f"python -m cryptoalpha.app.chaos --seed {seed}"


def run_campaign(
    folder: Path, seeds: Sequence[int], *, commit: str, workers: int, say: Callable[[str], None], markets: Sequence[MarketKind] = MARKETS
) -> Campaign:
    """Run what is not yet decided of these seeds.

    Args:
        folder: where verdicts and the evidence of violations are kept.
        commit: of the code; verdicts of another are not believed.

    Raises:
        WorkerDiedError: if a worker died.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / VERDICTS
    done = {int(str(one["seed"])) for one in _verdicts(path, commit)}
    todo = [seed for seed in seeds if seed not in done]
    if done:
        say(f"{len(done)} schedules were decided before; {len(todo)} to go")
    pids = [_fork_worker(folder, todo[place::workers], commit, markets) for place in range(min(workers, len(todo)))]
    failed = [pid for pid in pids if os.waitpid(pid, 0)[1] != 0]
    if failed:
        raise WorkerDiedError(f"{len(failed)} workers of the chaos suite died", hint="run it again: it goes on where it was; see its log")
    campaign = Campaign()
    for verdict in _verdicts(path, commit):
        if int(str(verdict["seed"])) in set(seeds):
            verdict.pop("commit")
            campaign.add(verdict)
    return campaign


def run_seed(
    seed: int, folder: Path, *, markets: Sequence[MarketKind] = MARKETS, mutate: Mutation | None = None, keep: bool = False
) -> Outcome:
    """The schedule of a seed."""
    return run_schedule(draw_schedule(seed, markets=markets), folder, mutate=mutate, keep=keep)


def run_schedule(schedule: Schedule, folder: Path, *, mutate: Mutation | None = None, keep: bool = False) -> Outcome:
    """One schedule in a folder of its own, which stays if it was violated."""
    place = folder / f"seed-{schedule.seed}"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    outcome = Drive(schedule, place, mutate=mutate).run()
    if outcome.violations or keep:
        keep_evidence(place, schedule, outcome)
    else:
        shutil.rmtree(place)
    return outcome


def hunt(name: str, seeds: Sequence[int], *, markets: Sequence[MarketKind] = MARKETS) -> tuple[int, Outcome | None]:
    """Run schedules with a broken order path until one is caught: how many it took, and what was found; None where none was."""
    from cryptoalpha.app.chaos.mutants import BAIT, MUTANTS

    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        for tried, seed in enumerate(seeds, start=1):
            drawn = draw_schedule(seed, markets=markets)
            baited = msgspec.structs.replace(drawn, strikes=tuple(sorted((*BAIT, *drawn.strikes), key=lambda strike: strike.bar)))
            outcome = run_schedule(baited, Path(folder), mutate=MUTANTS[name])
            if outcome.violations:
                return tried, outcome
    return len(seeds), None


def _fork_worker(folder: Path, seeds: Sequence[int], commit: str, markets: Sequence[MarketKind]) -> int:
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        scratch = Path(tempfile.mkdtemp(prefix="chaos-"))
        for seed in seeds:
            outcome = run_seed(seed, scratch, markets=markets)
            if outcome.violations:
                shutil.move(scratch / f"seed-{seed}", folder / f"seed-{seed}")
            line = json.dumps({**outcome.as_dict(), "commit": commit}) + "\n"
            with (folder / VERDICTS).open("a", encoding="utf-8") as verdicts:  # one write: lines of two workers do not mix
                verdicts.write(line)
        shutil.rmtree(scratch)
        status = 0
    finally:
        if status:
            import traceback

            traceback.print_exc()
        os._exit(status)


def _verdicts(path: Path, commit: str) -> Iterator[dict[str, object]]:
    """Whole lines of this commit, the last for each seed."""
    found: dict[object, dict[str, object]] = {}
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                verdict = json.loads(line)
            except json.JSONDecodeError:
                continue  # the line that was being written when somebody pulled the plug
            if verdict.get("commit") == commit:
                found[verdict["seed"]] = verdict
    yield from found.values()
