"""What `trade` does about drift: it writes into the book of retraining that an alarm asks for it, and where that is switched on, keeps a
`cryptoalpha retrain --watch` beside itself, a process of its own that is niced, limited and ended with the session.

An alarm is journaled with its step. A session that was killed before it had proposed takes the step again and proposes then; one that had
proposed finds its words in the book and says nothing.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from cryptoalpha.app.settings import Settings
from cryptoalpha.core.values import Alarm
from cryptoalpha.lifecycle.retrain.book import BOOK
from cryptoalpha.lifecycle.retrain.config import RetrainConfig
from cryptoalpha.lifecycle.retrain.triggers import heard, propose
from cryptoalpha.store.home import HOME_VARIABLE
from cryptoalpha.store.whole_file import write_whole

ENDING_SECONDS = 15.0


class DriftProposals:
    """Call it with every alarm of a run, new or taken again.

    Args:
        home: the store, whose book of retraining is written.
        say: told of each proposal.
    """

    def __init__(self, home: Path, config: RetrainConfig, say: Callable[[str], None]) -> None:
        self._path, self._config, self._say = home / BOOK, config, say

    def __call__(self, alarm: Alarm) -> None:
        """Propose, if its tier does and the book has not heard of it.

        Raises:
            StoreError: if the book cannot be written.
        """
        if alarm.tier not in self._config.tiers or heard(self._path, "drift", alarm.subject, alarm.known_at):
            return
        found = propose(self._path, "drift", alarm.known_at, alarm.message, subject=alarm.subject)
        answer = "a campaign begins beside this session" if self._config.automatic else "`cryptoalpha retrain` answers it"
        self._say(f"retraining is proposed ({alarm.subject}, {found.times}. time): {answer}")


@contextmanager
def campaigns_beside(settings: Settings, home: Path, options: Sequence[str], say: Callable[[str], None]) -> Iterator[None]:
    """While the block runs, run the campaigns that are proposed, if `lifecycle.retrain.automatic`, with the session's settings.

    Args:
        options: which data, as `retrain` is told.
    """
    if not settings.lifecycle.retrain.automatic:
        yield
        return
    import os

    from cryptoalpha.app.config_template import render

    log, config = home / "lifecycle" / "retrain.log", home / "lifecycle" / "retrain.yaml"
    write_whole(config, render(settings, "Settings of the session of `trade` that runs campaigns beside itself."))
    with log.open("ab") as words:
        process = subprocess.Popen(
            [sys.executable, "-m", "cryptoalpha", "retrain", "--watch", "--config", str(config), *options],
            stdin=subprocess.DEVNULL, stdout=words, stderr=words, start_new_session=True, env={**os.environ, HOME_VARIABLE: str(home)},
        )  # fmt: skip
    say(f"campaigns of retraining are run beside this session (process {process.pid}), their words go to {log}")
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(ENDING_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
