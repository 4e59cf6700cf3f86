"""Noughts and crosses: a game small enough to know every right move, so that a planner can be held to all of them.

A state is the board as the player to move sees it: +1 own, −1 the other's, 0 empty, nine numbers row by row. A move earns 1 if it wins;
the discount is −1 because the opponent moves next; a win or a full board is terminal.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from cryptoalpha.learn.search.contract import Floats, Integers, Step

CELLS = 9
LINES = np.array([[0, 1, 2], [3, 4, 5], [6, 7, 8], [0, 3, 6], [1, 4, 7], [2, 5, 8], [0, 4, 8], [2, 4, 6]])

POWERS = 3 ** np.arange(CELLS)

Board = tuple[int, ...]


class TicTacToe:
    """The rules, and an evaluator that knows no strategy: every move is equally likely.

    Args:
        rollouts: True values a position by what two players who move at random earn in it on average, the limit of many rollouts; False
            calls every position even.
    """

    actions = CELLS

    def __init__(self, *, rollouts: bool = True) -> None:
        self._values = _random_play() if rollouts else np.zeros(3**CELLS, np.float32)

    def evaluate(self, states: Floats) -> tuple[Floats, Floats]:
        """Logits `[n, 9]`, all 0, and values `[n]`."""
        codes = (states.astype(np.int64) + 1) @ POWERS
        return np.zeros((len(states), CELLS), np.float32), self._values[codes]

    def step(self, states: Floats, actions: Integers) -> Step:
        """Occupy a cell and turn the board around. An occupied cell must not be chosen: roots need `legal`, see `legal_moves`."""
        rows = np.arange(len(states))
        boards = states.astype(np.float32, copy=True)
        boards[rows, actions] = 1.0
        won = (boards[:, LINES].sum(axis=2) == 3.0).any(axis=1)
        legal = legal_moves(boards)
        return Step(-boards, won.astype(np.float32), np.full(len(rows), -1.0, np.float32), won | ~legal.any(axis=1), legal)


def legal_moves(states: Floats) -> NDArray[np.bool_]:
    """Empty cells, `[n, 9]`."""
    return np.asarray(states == 0, np.bool_)


def positions() -> NDArray[np.float32]:
    """All 4,520 positions in which somebody is to move, reachable by legal play from the empty board, `[4520, 9]`."""
    return np.array(sorted(_solve()), np.float32)


def optimal_moves(states: Floats) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Minimax: the outcome under best play, 1, 0 or −1 for the player to move `[n]`, and which moves reach it `[n, 9]`."""
    solved = [_solve()[tuple(int(cell) for cell in state)] for state in states]
    return np.array([value for value, _ in solved]), np.array([[cell in best for cell in range(CELLS)] for _, best in solved])


def _after(board: Board, cell: int) -> tuple[Board, bool]:
    """The board as the opponent sees it after a move, and whether the move won."""
    own = (*board[:cell], 1, *board[cell + 1 :])
    return tuple(-c for c in own), any(all(own[c] == 1 for c in line) for line in LINES.tolist())


@lru_cache(maxsize=1)
def _random_play() -> NDArray[np.float32]:
    """What the player to move earns on average if both move at random, by the number of the position, `[3^9]`."""
    values = np.zeros(3**CELLS, np.float32)
    known: dict[Board, float] = {}
    for board in sorted(_solve(), key=lambda cells: cells.count(0)):  # fewer empty cells first
        worths = []
        for cell in np.flatnonzero(np.array(board) == 0).tolist():
            after, won = _after(board, cell)
            worths.append(1.0 if won else -known.get(after, 0.0))
        known[board] = sum(worths) / len(worths)
        values[(np.array(board) + 1) @ POWERS] = known[board]
    return values


@lru_cache(maxsize=1)
def _solve() -> dict[Board, tuple[int, frozenset[int]]]:
    """Value and best moves of every position that is not over."""
    solved: dict[Board, tuple[int, frozenset[int]]] = {}

    def value(board: Board) -> int:
        if board not in solved:
            worth = {cell: outcome(board, cell) for cell in range(CELLS) if board[cell] == 0}
            best = max(worth.values())
            solved[board] = best, frozenset(cell for cell, won in worth.items() if won == best)
        return solved[board][0]

    def outcome(board: Board, cell: int) -> int:
        after, won = _after(board, cell)
        if won:
            return 1
        return -value(after) if 0 in after else 0

    value((0,) * CELLS)
    return solved
