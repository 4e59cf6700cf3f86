"""Connect Four: our planner against OpenSpiel's C++ MCTS, 800 simulations and the same random play-outs per leaf for both.

    python benchmarks/connect4_against_open_spiel.py --games 200 --simulations 800 --playouts 1 --seed 0

OpenSpiel plays with the settings of its own example (UCT, c = 2, proven results backed up). Ours has no such proofs, but a prior: it takes
a win and parries a threat one move ahead (`--prior even` leaves that out). Each opening of two random moves is played twice, once from
either side, since two searches without a net play much the same game again from the empty board. Prints wins, draws and losses, and an
exact interval (Clopper–Pearson, 95 %) of the share of decided games that we won. Needs the peers: python -m pip install --group peers
"""

from __future__ import annotations

import argparse
import math
import sys
import time

import numpy as np

from cryptoalpha.core.seeds import stream
from cryptoalpha.learn.problems.connect4 import Connect4, RandomPlayouts, legal
from cryptoalpha.learn.search.contract import Budget, Roots, Rules
from cryptoalpha.learn.search.plan import plan

OPENING_MOVES = 2
RULES = Rules(root="puct", pb_c_init=5.0, first_play_reduction=0.0)
"""One play-out is a coin and not a value: with MuZero's 1.25, meant for a net, a search stays with the first coin that fell well. UCT with
c = 2 explores about as much as 6.5 would after 800 visits; an untried move counts as its parent does."""


def our_move(state: object, options: argparse.Namespace, seed: int) -> int:
    """Our choice in a state of OpenSpiel's game."""
    mover = state.current_player()
    planes = np.asarray(state.observation_tensor(mover), np.float32).reshape(3, -1)
    board = (planes[mover] - planes[1 - mover])[None]
    game = Connect4(RandomPlayouts(options.playouts, seed, tactical=options.prior == "tactical"))
    found = plan(Roots(board, legal=legal(board)), game, Budget(options.simulations), seed=seed, rules=RULES)
    return int(found.action[0])


def play(number: int, options: argparse.Namespace) -> tuple[float, float, float]:
    """One game; our result (1, 0, −1) and the CPU seconds that we and OpenSpiel spent."""
    import pyspiel

    game = pyspiel.load_game("connect_four")
    state = game.new_initial_state()
    for move in stream(options.seed, "opening", number // 2).integers(0, 7, OPENING_MOVES):
        state.apply_action(int(move))
    evaluator = pyspiel.RandomRolloutEvaluator(options.playouts, options.seed * 1000 + number)
    bot = pyspiel.MCTSBot(game, evaluator, 2.0, options.simulations, 1000, True, options.seed * 1000 + number, False)
    ours, spent = number % 2, [0.0, 0.0]
    while not state.is_terminal():
        started = time.process_time()
        mover = state.current_player()
        seed = int(stream(options.seed, "game", number, state.move_number()).integers(2**31))
        move = our_move(state, options, seed) if mover == ours else bot.step(state)
        spent[0 if mover == ours else 1] += time.process_time() - started
        state.apply_action(move)
    return state.player_return(ours), spent[0], spent[1]


def clopper_pearson(wins: int, games: int, level: float = 0.95) -> tuple[float, float]:
    """Exact interval of a share, by bisection on the binomial tails."""

    def at_least(share: float) -> float:
        return sum(math.comb(games, k) * share**k * (1 - share) ** (games - k) for k in range(wins, games + 1))

    def at_most(share: float) -> float:
        return sum(math.comb(games, k) * share**k * (1 - share) ** (games - k) for k in range(wins + 1))

    tail = (1 - level) / 2
    low, high = 0.0, 1.0
    if wins:
        low, top = 0.0, wins / games
        for _ in range(60):
            middle = (low + top) / 2
            low, top = (middle, top) if at_least(middle) < tail else (low, middle)
    if wins < games:
        bottom, high = wins / games, 1.0
        for _ in range(60):
            middle = (bottom + high) / 2
            bottom, high = (middle, high) if at_most(middle) > tail else (bottom, middle)
    return low, high


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--games", type=int, default=200)
    parser.add_argument("--simulations", type=int, default=800)
    parser.add_argument("--playouts", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--prior", choices=("tactical", "even"), default="tactical")
    options = parser.parse_args()
    results, seconds = [], np.zeros(2)
    for number in range(options.games):
        result, ours, theirs = play(number, options)
        results.append(result)
        seconds += ours, theirs
        print(f"game {number + 1}: {'won' if result > 0 else 'lost' if result < 0 else 'drawn'}", file=sys.stderr)
    wins, losses = sum(result > 0 for result in results), sum(result < 0 for result in results)
    print(f"won {wins}, drawn {len(results) - wins - losses}, lost {losses}")
    print(f"CPU seconds: ours {seconds[0]:.1f}, OpenSpiel {seconds[1]:.1f}")
    if wins + losses:
        low, high = clopper_pearson(wins, wins + losses)
        print(f"share of decided games won: {wins / (wins + losses):.2f} ({low:.2f}–{high:.2f}, 95 %)")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
