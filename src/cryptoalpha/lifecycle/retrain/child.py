"""A step in a process of its own: niced, with limits of memory and time, so that whoever trades never feels it.

The step answers in a file beside its campaign, written whole. A runner that was killed after its child had answered finds no end of it
in the book and starts the child again, which finds its work done.

    FOLDER/work.json          what the campaign is, for the child to read
    FOLDER/STEP.answer.json   what it answers; removed before it begins
    FOLDER/STEP.log           what it said on stderr, of all its attempts
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptoalpha.core.errors import ModelError, StoreError, WorkerDiedError
from cryptoalpha.lifecycle.retrain.config import RetrainConfig
from cryptoalpha.lifecycle.retrain.limits import SECONDS_BETWEEN_LOOKS, end_group, end_with, group_memory
from cryptoalpha.lifecycle.retrain.step import Outcome, Work
from cryptoalpha.store.whole_file import write_whole

GENTLE_SECONDS = 10.0
LAST_WORDS = 400


@dataclass(frozen=True)
class ChildStep:
    """A step that another process does.

    Args:
        name: of the step.
        command: what to start; it is given the campaign's folder, the step's name and this process's id as three more words, and calls
            `answer` with them.
        stopped: asked between looks; when it says so the child is ended and `KeyboardInterrupt` raised.
    """

    name: str
    command: Sequence[str]
    config: RetrainConfig
    stopped: Callable[[], bool] = lambda: False

    def __call__(self, work: Work) -> Outcome:
        """Start it and wait for its answer.

        Raises:
            WorkerDiedError: if it ended without one, or was ended because of memory or time.
            KeyboardInterrupt: if the runner was told to stop; the child is gone then.
        """
        work.folder.mkdir(parents=True, exist_ok=True)
        write_whole(work.folder / "work.json", json.dumps(described(work), indent=1, sort_keys=True))
        place = answer_file(work.folder, self.name)
        place.unlink(missing_ok=True)
        log = work.folder / f"{self.name}.log"
        with log.open("ab") as errors:
            process = subprocess.Popen(
                [*self.command, str(work.folder), self.name, str(os.getpid())],
                stdin=subprocess.DEVNULL, stdout=errors, stderr=errors, start_new_session=True,
                pass_fds=() if work.flight is None else (work.flight,),
            )  # fmt: skip
            try:
                why = self._watch(process)
            finally:
                if process.poll() is None:
                    end_group(process.pid, gently_seconds=GENTLE_SECONDS)
                end_group(process.pid)  # what it left behind
                process.wait()
        if why:
            raise WorkerDiedError(f"{self.name} was ended: {why}", hint=f"its words are in {log}")
        return _read(place, process.returncode, log)

    def _watch(self, process: subprocess.Popen[bytes]) -> str:
        """Wait until it ends; why it must not go on, else nothing."""
        deadline = time.monotonic() + self.config.step_hours * 3600
        limit = self.config.memory_gigabytes * 1e9
        while True:
            try:
                process.wait(SECONDS_BETWEEN_LOOKS)
                return ""
            except subprocess.TimeoutExpired:
                pass
            if self.stopped():
                raise KeyboardInterrupt
            used = group_memory(process.pid)
            if used is not None and used > limit:
                return f"it used {used / 1e9:.2f} GB, more than lifecycle.retrain.memory_gigabytes, {self.config.memory_gigabytes:g}"
            if time.monotonic() > deadline:
                return f"it took longer than lifecycle.retrain.step_hours, {self.config.step_hours:g}"


def answer_file(folder: Path, name: str) -> Path:
    """Where a step's process answers."""
    return folder / f"{name}.answer.json"


def described(work: Work) -> dict[str, Any]:
    """A campaign's work as JSON values."""
    return {
        "campaign": work.campaign,
        "kind": work.kind,
        "cause": work.cause,
        "begun_at": work.begun_at,
        "plan": dict(work.plan),
        "results": {name: dict(result) for name, result in work.results.items()},
    }


def serve(do: Callable[[str, Work], Outcome], words: Sequence[str], *, nice: int) -> None:
    """The child's side: read the work, do the step, answer. `words` are what `ChildStep` added to its command.

    Whatever it raises goes to the log and makes the exit code not 0.

    Raises:
        StoreError: if the work cannot be read.
    """
    folder, name, parent = Path(words[0]), words[1], int(words[2])
    end_with(parent)
    os.nice(nice)
    try:
        content: Mapping[str, Any] = json.loads((folder / "work.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StoreError(f"{folder / 'work.json'} cannot be read: {error}", hint="the runner writes it before it starts a step") from None
    outcome = do(name, Work(folder=folder, **content))
    answer = {"verdict": outcome.verdict, "words": outcome.words, "result": dict(outcome.result), "again_at": outcome.again_at}
    answer["asks"] = outcome.asks
    write_whole(answer_file(folder, name), json.dumps(answer, indent=1, sort_keys=True))


def _read(place: Path, code: int, log: Path) -> Outcome:
    if code == 0:
        try:
            return Outcome(**json.loads(place.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise ModelError(f"{place} is no answer: {error}", hint=f"its words are in {log}") from None
    ended = f"signal {-code}" if code < 0 else f"exit code {code}"
    said = " ".join(log.read_text(encoding="utf-8", errors="replace").split())[-LAST_WORDS:]
    raise WorkerDiedError(f"{place.name.removesuffix('.answer.json')} ended with {ended}: {said or 'it said nothing'}", hint=f"see {log}")
