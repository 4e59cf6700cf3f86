"""Connect Four: a game with an opponent, for measuring the planner against another one.

A state is `[42]` float32, cell 7·row + column with row 0 at the bottom: +1 a stone of the player to move, −1 of the other, 0 empty. A move
turns the board around, so its discount is −1. Who completes four in a line wins 1; a full board is worth 0.

Evaluators: random play-outs, with even priors or with a prior that takes a win and parries a threat one move ahead (what a search without
a net can use), and anything that takes the 42 numbers.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.core.seeds import stream
from cryptoalpha.learn.search.contract import Booleans, Evaluator, Floats, Integers, Step

ROWS, COLUMNS = 6, 7
CELLS = ROWS * COLUMNS
TACTICAL = np.float32(4.0)
"""Logit of a move that wins or parries: e⁴ ≈ 55 times as likely as another one."""

DRAWN_AT_ONCE = 256
"""Rows of uniforms that a play-out evaluator draws at a time; one call for each leaf would cost more than the play-out."""


class Connect4:
    """The game as the planner asks for it.

    Args:
        evaluator: states `[n, 42]` → logits `[n, 7]`, values `[n]` for the player to move.
    """

    actions = COLUMNS

    def __init__(self, evaluator: Evaluator) -> None:
        self._evaluator = evaluator

    def evaluate(self, states: Floats) -> tuple[Floats, Floats]:
        return self._evaluator(states)

    def step(self, states: Floats, actions: Integers) -> Step:
        """Drop a stone in each column.

        Raises:
            ConfigError: if a column is full or not on the board.
        """
        boards = np.ascontiguousarray(states, dtype=np.float32)
        rows = len(boards)
        following, won, full = np.empty_like(boards), np.zeros(rows, np.bool_), np.zeros(rows, np.bool_)
        refused = _drop(boards, np.asarray(actions, np.int64), following, won, full)
        if refused >= 0:
            raise ConfigError(f"column {int(actions[refused])} of board {refused} takes no stone: it is full or not one of 0–6")
        return Step(following, won.astype(np.float32), np.full(rows, -1, np.float32), won | full, legal(following))


class RandomPlayouts:
    """As value the mean result of games played out at random, seen by the player to move; priors are even.

    Args:
        playouts: games per state.
        seed: seed of the moves. Each call goes on with the stream: the same state is worth something else the next time.
        tactical: instead of even priors, a logit of `TACTICAL` on columns that win at once; where none does, on columns in which the other
            player would win next.
    """

    def __init__(self, playouts: int, seed: int, *, tactical: bool = False) -> None:
        if playouts < 1:
            raise ConfigError(f"a value needs at least one play-out, got {playouts}")
        self.playouts, self.tactical = playouts, tactical
        self._rng = stream(seed, "connect4", "playouts")
        self._uniforms = np.empty((0, CELLS))

    def __call__(self, states: Floats) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        boards = np.ascontiguousarray(states, dtype=np.float32)
        games = len(boards) * self.playouts
        if len(self._uniforms) < games:
            self._uniforms = self._rng.random((max(games, DRAWN_AT_ONCE), CELLS))
        drawn, self._uniforms = self._uniforms[:games], self._uniforms[games:]
        values = np.empty(len(boards), np.float32)
        _play_out(boards, drawn, self.playouts, values)
        logits = np.zeros((len(boards), COLUMNS), np.float32)
        if self.tactical:
            _look_ahead(boards, logits)
        return logits, values


def empty_board() -> NDArray[np.float32]:
    """The first position, `[1, 42]`."""
    return np.zeros((1, CELLS), np.float32)


def legal(states: Floats) -> Booleans:
    """Which columns take a stone: `[n, 42]` → `[n, 7]`."""
    return np.asarray(states[:, CELLS - COLUMNS :] == 0)


@njit(cache=True, nogil=True)
def _drop(boards, actions, following, won, full):  # type: ignore[no-untyped-def]
    """Play `actions`; the number of the first board whose column takes no stone, else −1."""
    for i in range(boards.shape[0]):
        column = actions[i]
        if column < 0 or column >= COLUMNS or boards[i, CELLS - COLUMNS + column] != 0:
            return i
        stones = 0
        row = ROWS
        for cell in range(CELLS):
            following[i, cell] = -boards[i, cell]
            if boards[i, cell] != 0:
                stones += 1
        for r in range(ROWS):
            if boards[i, r * COLUMNS + column] == 0:
                row = r
                break
        following[i, row * COLUMNS + column] = -1
        for up, right in ((0, 1), (1, 0), (1, 1), (1, -1)):
            line = 1
            for way in (1, -1):
                r, c = row + way * up, column + way * right
                while 0 <= r < ROWS and 0 <= c < COLUMNS and boards[i, r * COLUMNS + c] == 1:
                    line += 1
                    r += way * up
                    c += way * right
            if line >= 4:
                won[i] = True
        full[i] = stones + 1 == CELLS
    return -1


@njit(cache=True, nogil=True)
def _four(stones):  # type: ignore[no-untyped-def]
    """Is there a line of four? Bit 7·column + row, with an empty bit on top of each column so that no line wraps around."""
    for shift in (1, 6, 7, 8):
        pairs = stones & (stones >> shift)
        if pairs & (pairs >> (2 * shift)):
            return True
    return False


@njit(cache=True, nogil=True)
def _play_out(boards, uniforms, playouts, values):  # type: ignore[no-untyped-def]
    """Mean result of random games; `uniforms` `[n·playouts, 42]` choose the moves."""
    heights = np.empty(COLUMNS, np.int64)
    columns = np.empty(COLUMNS, np.int64)
    sides = np.empty(2, np.int64)  # stones of the player to move in the state, and of the other
    for i in range(boards.shape[0]):
        total = 0.0
        for game in range(playouts):
            sides[:] = 0
            for column in range(COLUMNS):
                heights[column] = 0
                for row in range(ROWS):
                    stone = boards[i, row * COLUMNS + column]
                    if stone != 0:
                        sides[0 if stone > 0 else 1] |= 1 << (7 * column + row)
                        heights[column] += 1
            result, mover, move = 0, 0, 0
            while True:
                open_columns = 0
                for column in range(COLUMNS):
                    if heights[column] < ROWS:
                        columns[open_columns] = column
                        open_columns += 1
                if open_columns == 0:
                    break
                column = columns[int(uniforms[i * playouts + game, move] * open_columns)]
                sides[mover] |= 1 << (7 * column + heights[column])
                heights[column] += 1
                if _four(sides[mover]):
                    result = 1 - 2 * mover
                    break
                mover, move = 1 - mover, move + 1
            total += result
        values[i] = total / playouts


@njit(cache=True, nogil=True)
def _look_ahead(boards, logits):  # type: ignore[no-untyped-def]
    """Write `TACTICAL` on the columns that win at once, or else on those where the other player would."""
    sides = np.empty(2, np.int64)
    for i in range(boards.shape[0]):
        sides[:] = 0
        for cell in range(CELLS):
            if boards[i, cell] != 0:
                sides[0 if boards[i, cell] > 0 else 1] |= 1 << (7 * (cell % COLUMNS) + cell // COLUMNS)
        taken = sides[0] | sides[1]
        found = False
        for side in range(2):
            for column in range(COLUMNS):
                row = 0
                while row < ROWS and taken >> (7 * column + row) & 1:
                    row += 1
                if row < ROWS and _four(sides[side] | 1 << (7 * column + row)):
                    logits[i, column] = TACTICAL
                    found = True
            if found:
                break
