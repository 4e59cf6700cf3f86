"""The line that a plan expects, for people: which action, what is assumed to follow, and what speaks for it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cryptoalpha.learn.search.contract import LineStep
from cryptoalpha.learn.search.tree import Trees

LENGTH = 8
"""Steps of a line at most; further down a tree has few visits."""


def principal_lines(trees: Trees, first: NDArray[np.int64]) -> tuple[tuple[LineStep, ...], ...]:
    """For every root the line that begins with its action `first` `[B]` and follows what was visited most."""
    from cryptoalpha.learn.search.kernels import trace

    steps, worths = np.full((trees.roots, LENGTH, 3), -1, np.int64), np.zeros((trees.roots, LENGTH, 2), np.float32)
    trace(trees.arrays, trees.chance, first, steps, worths)
    return tuple(
        tuple(
            LineStep(action, outcome, visits, prior, value)
            for (action, outcome, visits), (prior, value) in zip(row, worth, strict=True)
            if action >= 0
        )
        for row, worth in zip(steps.tolist(), worths.tolist(), strict=True)
    )


def readable(line: Sequence[LineStep], action_names: Sequence[str]) -> str:
    """The line as text, one step a row; empty if nothing was looked at.

    Raises:
        IndexError: if an action has no name.
    """
    many = any(step.outcome for step in line)
    rows = []
    for number, step in enumerate(line, 1):
        visits = "" if step.visits is None else f", {step.visits} visit{'s' * (step.visits != 1)}"
        then = f"; suppose outcome {step.outcome}" if many and number < len(line) else ""
        rows.append(f"{number}. {action_names[step.action]}: worth {step.value:+.6g}, prior {step.prior:.1%}{visits}{then}")
    return "\n".join(rows)
