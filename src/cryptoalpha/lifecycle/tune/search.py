"""A search of settings that can be killed anywhere: trials go to processes, the journal says what is done, the ledger counts.

    found = tune(search, place, ledger, trials=50, processes=2, seed=0)

A search that was killed goes on: trials that were being worked on are marked as failed and begun again, those that had ended stay. One
search of a study at a time; its processes share nothing but the journal. Each trial counts as a look at the data, pruned and failed ones
too, and so does each new beginning of one that had drawn other values before.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from cryptoalpha.core.errors import ConfigError, WorkerDiedError
from cryptoalpha.learn.workers import InProcess, LocalProcesses
from cryptoalpha.lifecycle.tune.journal import Place, needed
from cryptoalpha.lifecycle.tune.ray_search import work_on_ray
from cryptoalpha.lifecycle.tune.result import StudyResult, result_of
from cryptoalpha.lifecycle.tune.trial import ABANDONED, RETRY_OF, Bench, Search, leave, open_study, sit_down, work

if TYPE_CHECKING:
    from collections.abc import Callable

    import optuna

    from cryptoalpha.learn.config import RuntimeConfig
    from cryptoalpha.lifecycle.recipes.workshop import Tell

M = TypeVar("M")

IDENTITY = "identity"
SECONDS_BETWEEN_LOOKS = 0.5


def tune(
    search: Search[M],
    place: Place,
    ledger: Path,
    *,
    trials: int,
    processes: int = 1,
    seed: int = 0,
    fresh: bool = False,
    seconds: float | None = None,
    retries: int = 2,
    restarts: int = 3,
    ray: RuntimeConfig | None = None,
    tell: Tell | None = None,
) -> StudyResult:
    """Search until so many trials have ended, and say what the winner is worth.

    Args:
        place: the study's files.
        ledger: the trial ledger's file.
        trials: of the study in all, those of earlier runs included.
        processes: that work side by side, one thread each; 1 is this one.
        fresh: put an earlier study of this name aside; else it is gone on with.
        seconds: after which no further trial is begun.
        retries: how often a trial is begun again whose process was killed.
        restarts: how often processes that died are replaced.
        ray: let Ray Tune run the trials on this cluster, `processes` at once; without it they run on this machine.
        tell: told where the search stands.

    Raises:
        ConfigError: if Optuna is not installed, or the study of this name searched something else.
        StoreLockedError: if it is being searched already.
        WorkerDiedError: if processes die more often than they are replaced.
        KeyboardInterrupt: after Ctrl-C; what has ended is kept.
    """
    needed()
    with place.alone():
        if fresh:
            place.put_aside()
        study = _opened(search, place, seed)
        abandon(study, retries)
        until = None if seconds is None else time.monotonic() + seconds
        with _watched(search, place, trials, tell):
            if ray is None:
                again = (retries, restarts)
                _work_off(search, place, study, ledger, trials=trials, processes=processes, seed=seed, until=until, again=again)
            elif (missing := trials - ended(study)) > 0:
                with _seated(search, place, ledger, seed) as bench:
                    work_on_ray(bench, missing=missing, at_once=processes, config=ray, seconds=seconds)
        with _seated(search, place, ledger, seed) as bench:
            return result_of(bench, place)


@contextmanager
def _seated(search: Search[M], place: Place, ledger: Path, seed: int) -> Iterator[Bench[M]]:
    bench = sit_down(search, place, ledger, seed)
    try:
        yield bench
    finally:
        leave(bench)


def ended(study: optuna.Study) -> int:
    """Trials that have ended by themselves: judged, given up or failed."""
    given_up = study.user_attrs.get(ABANDONED, ())
    return sum(each.state.is_finished() and each.number not in given_up for each in study.get_trials(deepcopy=False))


def abandon(study: optuna.Study, retries: int) -> int:
    """Mark trials that nobody works on any more as failed, and queue them again; how many. Only for who holds the study alone.

    Killed in between, the next call finds what is left to do: a trial is marked after its successor was queued.
    """
    import optuna

    everything = study.get_trials(deepcopy=False)
    followed = {each.user_attrs.get(RETRY_OF) for each in everything}
    stale = [each for each in everything if each.state == optuna.trial.TrialState.RUNNING]
    for each in stale:
        again = _begun_before(everything, each) < retries
        if again and each.number not in followed:
            study.enqueue_trial(dict(each.params), user_attrs={RETRY_OF: each.number})
        if again:  # one that was begun too often has ended: it counts
            study.set_user_attr(ABANDONED, sorted({*study.user_attrs.get(ABANDONED, ()), each.number}))
        study.tell(each.number, state=optuna.trial.TrialState.FAIL)
    return len(stale)


def _begun_before(everything: list[optuna.trial.FrozenTrial], trial: optuna.trial.FrozenTrial) -> int:
    """How often the same trial was begun before this beginning."""
    count, before = 0, trial.user_attrs.get(RETRY_OF)
    while before is not None:
        count, before = count + 1, everything[before].user_attrs.get(RETRY_OF)
    return count


def _opened(search: Search[M], place: Place, seed: int) -> optuna.Study:
    """The study, if it searched the same; a new one begins with the settings in use.

    Raises:
        ConfigError: naming what differs.
    """
    study = open_study(search, place)
    wanted = {**search.identity, "direction": search.direction, "folds": search.folds, "seed": seed}
    found = study.user_attrs.get(IDENTITY)
    if found is None:
        if search.space.begin:
            study.enqueue_trial(dict(search.space.begin), skip_if_exists=True)
        study.set_user_attr(IDENTITY, wanted)
        return study
    if found != wanted:
        differing = ", ".join(sorted(name for name in {*found, *wanted} if found.get(name) != wanted.get(name)))
        raise ConfigError(
            f"the study {search.name} at {place.journal} searched something else: {differing} differ",
            hint="begin anew with --fresh, or search under another --name",
        )
    return study


def _work_off(
    search: Search[M],
    place: Place,
    study: optuna.Study,
    ledger: Path,
    *,
    trials: int,
    processes: int,
    seed: int,
    until: float | None,
    again: tuple[int, int],
) -> None:
    """Have the trials done that are missing. Where a process dies, all are replaced and what they had in hand is begun again."""
    retries, restarts = again
    if (missing := trials - ended(study)) <= 0:
        return
    start = partial(sit_down, search, place, ledger, seed)
    count = min(processes, missing)
    if count == 1:
        with InProcess(start) as alone:
            try:
                alone.map(work, [until] * missing)
            finally:
                alone.each(_leave, None)
        return
    with LocalProcesses(count, start, restarts=restarts) as workers:
        while missing > 0 and (until is None or time.monotonic() < until):
            try:
                workers.map(work, [until] * missing)
            except WorkerDiedError:
                if not workers.revive():
                    raise
                abandon(study, retries)
            missing = trials - ended(study)


def _leave(bench: Bench[Any], nothing: None) -> None:
    leave(bench)


@contextmanager
def _watched(search: Search[M], place: Place, trials: int, tell: Tell | None) -> Iterator[None]:
    """Say where the search stands, from a thread, while the block runs."""
    if tell is None:
        yield
        return
    over, storage = threading.Event(), place.storage()

    def watch(say: Callable[[int, int, str], None]) -> None:
        import optuna

        study = optuna.load_study(study_name=search.name, storage=storage)
        while True:
            say(min(ended(study), trials), trials, standing(study))
            if over.wait(SECONDS_BETWEEN_LOOKS):
                return

    thread = threading.Thread(target=watch, args=(tell,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def standing(study: optuna.Study) -> str:
    """Where a search stands, in words."""
    import optuna

    found = study.get_trials(deepcopy=False)
    judged = [each for each in found if each.state == optuna.trial.TrialState.COMPLETE and each.value is not None]
    given_up = sum(each.state == optuna.trial.TrialState.PRUNED for each in found)
    sign = 1.0 if study.direction == optuna.study.StudyDirection.MINIMIZE else -1.0
    best = min(judged, key=lambda each: sign * float(each.value or 0.0), default=None)
    words = "nothing judged yet" if best is None else f"best {best.value:.4f} in trial {best.number}"
    return f"{words}, {len(judged)} judged, {given_up} given up"
