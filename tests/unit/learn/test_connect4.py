import numpy as np
import pytest
from numpy.testing import assert_array_equal

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.learn.problems.connect4 import CELLS, Connect4, RandomPlayouts, empty_board, legal
from cryptoalpha.learn.search.contract import StepModel


def game() -> Connect4:
    return Connect4(RandomPlayouts(1, seed=0))


def after(*columns: int) -> tuple[np.ndarray, float, bool]:
    """State, last reward and terminal flag after these moves from the empty board."""
    state, reward, ended = empty_board(), 0.0, False
    for column in columns:
        assert not ended
        step = game().step(state, np.array([column]))
        state, reward, ended = step.states, float(step.rewards[0]), bool(step.terminal[0])
    return state, reward, ended


def board(*rows: str) -> np.ndarray:
    """Rows from the top; x is the player to move, o the other."""
    return np.array([[{"x": 1, "o": -1, ".": 0}[cell] for row in reversed(rows) for cell in row]], np.float32)


def test_it_is_a_model_that_the_planner_can_plan():
    assert isinstance(game(), StepModel)


def test_stones_fall_and_the_board_turns_around():
    state, reward, ended = after(3, 3, 0)
    assert (reward, ended) == (0.0, False)
    assert_array_equal(state, board(".......", ".......", ".......", ".......", "...x...", "o..o..."))


@pytest.mark.parametrize(
    "columns",
    [
        (0, 0, 1, 1, 2, 2, 3),  # ─
        (3, 4, 3, 4, 3, 4, 3),  # │
        (0, 1, 1, 2, 2, 3, 2, 3, 3, 6, 3),  # ╱
        (6, 5, 5, 4, 4, 3, 4, 3, 3, 0, 3),  # ╲
        (0, 0, 1, 1, 3, 3, 2),  # the last stone in the middle of the line
        (6, 0, 3, 0, 4, 0, 5),  # at the right edge
    ],
)
def test_four_in_a_line_win(columns):
    _, reward, ended = after(*columns)
    assert (reward, ended) == (1.0, True)


@pytest.mark.parametrize(
    ("rows", "column"),
    [
        ((".......", ".......", ".......", ".......", "x......", "....xx."), 6),  # three and one in the next row
        ((".......", ".......", ".......", "x......", "x......", "x.....x"), 6),
        ((".......", ".......", ".......", ".......", ".......", "xx.ooox"), 2),  # three with the other's stones behind
    ],
)
def test_a_line_does_not_wrap_around_the_edge(rows, column):
    step = game().step(board(*rows), np.array([column]))
    assert not step.terminal[0]
    assert step.rewards[0] == 0


def test_a_full_board_without_a_line_is_worth_nothing():
    nearly = board(".xoxoxo", "oxoxoxo", "xoxoxox", "xoxoxox", "oxoxoxo", "oxoxoxo")
    step = game().step(nearly, np.array([0]))
    assert step.terminal[0]
    assert step.rewards[0] == 0
    assert not step.legal[0].any()


def test_a_full_column_takes_no_stone():
    state, _, _ = after(2, 2, 2, 2, 2, 2)
    assert_array_equal(legal(state), [[True, True, False, True, True, True, True]])
    for column in (2, -1, 7):
        with pytest.raises(ConfigError, match=f"column {column} of board 1"):
            game().step(np.concatenate([empty_board(), state]), np.array([0, column]))


def test_a_step_leaves_its_argument_alone_and_does_many_boards_at_once():
    states = np.concatenate([empty_board(), after(3)[0], after(0, 0, 1, 1, 2, 2)[0]])
    kept = states.copy()
    step = game().step(states, np.array([0, 3, 3]))
    assert_array_equal(states, kept)
    assert_array_equal(step.terminal, [False, False, True])
    assert_array_equal(step.discounts, [-1, -1, -1])
    assert_array_equal(step.states[1], after(3, 3)[0][0])


@pytest.mark.parametrize(("top", "worth"), [(".xoxoxo", 0), (".xxxoxo", 1)])
def test_a_play_out_with_one_outcome_is_worth_that(top, worth):
    last = board(top, "oxoxoxo", "xoxoxox", "xoxoxox", "oxoxoxo", "oxoxoxo")
    assert_array_equal(RandomPlayouts(8, seed=1)(last)[1], [worth])
    assert game().step(last, np.array([0])).rewards[0] == worth


def test_a_mate_in_one_is_seen_in_the_share_of_play_outs_that_take_it():
    """Column 3 wins at once, one of seven moves; whatever else happens, the mean lies above what losing all others would give."""
    state, _, _ = after(0, 0, 1, 1, 2, 2)
    mean = RandomPlayouts(20_000, seed=2)(state)[1][0]
    other = np.mean([-RandomPlayouts(4_000, seed=3)(game().step(state, np.array([column])).states)[1][0] for column in (0, 1, 2, 4, 5, 6)])
    assert mean == pytest.approx((1 + 6 * other) / 7, abs=0.03)  # 4 standard errors of both


def test_who_moves_first_wins_more_random_games():
    """100,000 random games with OpenSpiel: 55,414 won by the first, 44,323 by the second, 263 drawn: .111."""
    values = RandomPlayouts(100, seed=4)(np.repeat(empty_board(), 400, axis=0))[1]
    assert values.mean() == pytest.approx(0.111, abs=0.02)  # 4 standard errors of 40,000 games


def test_play_outs_are_named_by_their_seed():
    states = np.repeat(empty_board(), 300, axis=0)
    first, same, other = (RandomPlayouts(1, seed=seed)(states)[1] for seed in (5, 5, 6))
    assert_array_equal(first, same)
    assert not np.array_equal(first, other)
    logits, _ = RandomPlayouts(1, seed=5)(states)
    assert_array_equal(logits, np.zeros((300, 7)))
    with pytest.raises(ConfigError, match="at least one play-out"):
        RandomPlayouts(0, seed=0)


@pytest.mark.parametrize(
    ("rows", "columns"),
    [
        ((".......", ".......", ".......", ".......", ".......", "xxx.ooo"), [3]),  # wins, and parries too
        ((".......", ".......", ".......", "x......", "x.....o", "x..o..o"), [0]),  # wins
        ((".......", ".......", ".......", "o......", "o.....x", "o..x..x"), [0]),  # parries
        ((".......", ".......", ".......", ".......", ".......", ".ooo.xx"), [0, 4]),  # two threats: both are parries
        ((".......", ".......", ".......", "x.....o", "x.....o", "x.....o"), [0]),  # a win goes before a parry
        ((".......", ".......", ".......", ".......", ".......", "..xoxo."), []),
    ],
)
def test_a_tactical_prior_takes_a_win_or_parries_a_threat(rows, columns):
    logits = RandomPlayouts(1, seed=0, tactical=True)(board(*rows))[0]
    assert np.flatnonzero(logits[0]).tolist() == columns


def test_the_rules_are_open_spiels():
    pyspiel = pytest.importorskip("pyspiel", reason="python -m pip install --group peers")
    theirs = pyspiel.load_game("connect_four")
    rng = np.random.Generator(np.random.PCG64(7))
    for _ in range(100):
        state, ours = theirs.new_initial_state(), empty_board()
        while not state.is_terminal():
            mover = state.current_player()
            planes = np.asarray(state.observation_tensor(mover), np.float32).reshape(3, CELLS)
            assert_array_equal(ours[0], planes[mover] - planes[1 - mover])
            assert np.flatnonzero(legal(ours)[0]).tolist() == state.legal_actions()
            move = int(rng.choice(state.legal_actions()))
            state.apply_action(move)
            step = game().step(ours, np.array([move]))
            assert bool(step.terminal[0]) == state.is_terminal()
            assert float(step.rewards[0]) == (state.player_return(mover) if state.is_terminal() else 0.0)
            ours = step.states
