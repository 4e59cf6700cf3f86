"""Old positions thought over again by the newest model: their targets are rewritten, with the version that wrote them.

The re-planning itself is the caller's (a callable around `learn.search.plan`), so this room knows no planner and no network.

Source: Schrittwieser et al. (2020), MuZero Reanalyze, appendix H; Schrittwieser et al. (2021), "Online and Offline RL by Planning".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import ArrayLike

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.learn.replay.buffer import Ids, ReplayBuffer
from cryptoalpha.store.array_file import Array

Replan = Callable[[Mapping[str, Array]], Mapping[str, ArrayLike]]
"""Rows (all columns, `[n, …]`) → the columns to overwrite, such as policy_target and value; `surprise` `[n]` may be among them."""


def reanalyse(buffer: ReplayBuffer, ids: Ids, replan: Replan, *, version: int, column: str = "model_version") -> None:
    """Overwrite the targets of rows `ids` by what `replan` says, and their `column` by `version`.

    Either all rows are rewritten or, after an error, none.

    Raises:
        ConfigError: if the schema has no such column, if a row was already written by a newer model, or if the answer does not fit.
        ModelError: if the answer is not finite.
    """
    if column not in buffer.schema:
        raise ConfigError(f"the schema has no column {column!r}, so nobody could tell which model wrote a target")
    rows = buffer.rows(ids)
    newer = rows[column] > version
    if newer.any():
        row = int(np.argmax(newer))
        raise ConfigError(
            f"row {ids[row]} was written by model {rows[column][row]}, newer than model {version}", hint="re-plan with the newest"
        )
    answer = dict(replan(rows))
    surprise = answer.pop("surprise", None)
    buffer.write(ids, {**answer, column: np.full(len(ids), version)}, surprise=surprise)


def stalest(buffer: ReplayBuffer, count: int, *, version: int, column: str = "model_version") -> Ids:
    """Ids of at most `count` rows written by models older than `version`: the oldest model first, then the oldest row."""
    ids = buffer.ids
    versions = buffer.column(ids, column)
    old = np.flatnonzero(versions < version)
    chosen: Ids = ids[old[np.argsort(versions[old], kind="stable")[:count]]]
    return chosen
