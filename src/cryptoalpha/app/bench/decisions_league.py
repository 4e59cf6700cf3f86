"""The league on Cournot's game, for `bench decisions`: how far from Nash it ends, and how far it can still be exploited."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from cryptoalpha.decisions.league.cournot_game import Cournot, best_responses
from cryptoalpha.decisions.league.cournot_learning import learn_cournot

PLAYERS = 3
SIZES = (2, 3, 5)


def cournot(seeds: Sequence[int]) -> dict[str, float]:
    """Figures over the seeds: the worst distance to Nash of the learner's population at N = 3, mean exploitability at the start and at the
    end (units of q·(1 − Σq)) and the worst share that is left; beside it the distance of exact fictitious play at N = 2, 3, 5 and, as the
    warning it is, how far answers to the latest self swing at N = 3."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        found = [learn_cournot(PLAYERS, seed) for seed in seeds]
    finally:
        torch.set_num_threads(threads)
    figures = {
        "cournot_distance": max(one.distance for one in found),
        "cournot_exploitability_start": float(np.mean([one.exploitability_start for one in found])),
        "cournot_exploitability_end": float(np.mean([one.exploitability_end for one in found])),
        "cournot_exploitability_share": max(one.exploitability_end / one.exploitability_start for one in found),
    }
    for players in SIZES:
        game = Cournot(players)
        figures[f"cournot_fictitious_play_distance_{players}"] = abs(float(best_responses(game, 400).mean()) - game.nash)
    latest = best_responses(Cournot(PLAYERS), 400, against="latest")[-10:]
    figures["cournot_latest_self_swing"] = float(latest.max() - latest.min())
    return figures
