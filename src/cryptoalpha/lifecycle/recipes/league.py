"""Train an agent in the league, and say what it came to: pay-offs, Elo, and how far the population can still be exploited.

    trained = train_league(config, home / "models" / "league", seed=1)

Rounds are kept as they end: an interrupted training goes on where it was and comes to the same model, bit for bit. Judged is at the end,
from the population alone: exploitability after some of the rounds (each against the members that were there by then), of the newest
member, the pay-off matrix with standard errors, Elo, and who earns what when the newest member sits on every learner's seat.
"""

from __future__ import annotations

import platform
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cryptoalpha import __version__
from cryptoalpha.core.seeds import stream
from cryptoalpha.decisions.league.config import LeagueConfig
from cryptoalpha.decisions.league.judging import Exploitability, Table, exploitability, payoff_table
from cryptoalpha.decisions.league.market import Luck
from cryptoalpha.decisions.league.member import KIND
from cryptoalpha.decisions.league.population import Population, Seat, play, scripted
from cryptoalpha.decisions.league.ratings import Estimate
from cryptoalpha.decisions.league.training import League
from cryptoalpha.lifecycle.recipes.league_page import page
from cryptoalpha.lifecycle.recipes.trained import as_json
from cryptoalpha.lifecycle.recipes.workshop import Tell, Workshop
from cryptoalpha.store.model_folder import write_fold, write_folder
from cryptoalpha.store.whole_file import write_whole

LOOKS = 6
"""Moments of training at which exploitability is measured, the first and the last among them."""

LOOKED_AT = ("round", "members", "gain", "member", "responder", "found by")

TABLE_MEMBERS = 6
"""Members in the pay-off matrix, evenly spread from the first to the newest."""

GOAL = 0.25
"""Share of the exploitability at the start that may be left at the end."""

PURPOSE = (
    "the book of the trading loop is a price taker and asks no league member: this one serves as an opponent and a baseline where trades "
    "move the price"
)


@dataclass(frozen=True)
class LeagueTrained:
    """What came of it. `lineage` is what `model.json` holds; `already`: it lay there before."""

    path: Path
    lineage: Mapping[str, Any]
    already: bool = False

    def tables(self) -> list[tuple[str, list[str], list[list[str]]]]:
        """Title, columns and rows."""
        table, looks = self.lineage["table"], self.lineage["exploitability"]
        names = [member_name(who) for who in table["who"]]
        payoffs = [
            [name, *(f"{mean:,.0f} ± {1.96 * error:,.0f}" for mean, error in zip(means, errors, strict=True)), f"{rating:,.0f}"]
            for name, means, errors, rating in zip(names, table["payoffs"], table["errors"], table["ratings"], strict=True)
        ]
        gains = [
            [
                str(one["round"]),
                str(one["members"]),
                estimate(one["gain"]),
                estimate(one["member"]),
                estimate(one["responder"]),
                one["name"],
            ]
            for one in looks
        ]
        earned = [[name, estimate(found)] for name, found in self.lineage["earnings"].items()]
        return [
            ("exploitability of the population, ticks · lots per episode", [*LOOKED_AT], gains),
            ("pay-off of the row's member among the column's, ticks · lots per episode", ["member", *names, "Elo"], payoffs),
            ("who earns what when the newest member sits on every learner's seat", ["seat", "ticks · lots per episode"], earned),
        ]  # fmt: skip

    def lines(self) -> list[str]:
        """The verdict and what the model is for."""
        found = self.lineage["verdict"]
        newest = self.lineage["newest"]
        return [
            f"exploitability fell from {found['start']:,.0f} to {found['end']:,.0f} ticks · lots per episode, {found['share']:.1%} of its "
            f"start ({'within' if found['reached'] else 'above'} the goal of {GOAL:.0%}); a lower bound: the best of a grid programme, "
            "the newest member and linear rules",
            f"exploitability of the newest member alone: {estimate(newest['gain'])}",
            f"{found['joined']} of {found['rounds']} learners joined the population",
            PURPOSE,
        ]


def train_league(config: LeagueConfig, out: Path, *, seed: int, fresh: bool = False, tell: Tell | None = None) -> LeagueTrained:
    """Train, judge, and leave the population at `out`.

    Args:
        fresh: begin anew, and replace a model that lies at `out`; without it an interrupted training is gone on with.
        tell: told where training stands.

    Raises:
        ConfigError: if `out` holds something else, another league, or another training that was interrupted.
        ModelError: if a search or a loss is not finite.
        StoreError: if the place cannot be written.
    """
    shop, identity = Workshop(out), as_json({"config": config.model_dump(mode="json"), "seed": seed, "versions": _versions()})
    old = shop.finished(KIND, fresh=fresh)
    if (done := shop.begin(old, identity, fresh=fresh)) is not None:
        return LeagueTrained(out, done, already=True)
    with _one_thread():
        league = League(config, seed=seed)
        league.load(shop.place)
        while not league.is_done:
            if tell is not None:
                tell(len(league.rounds), config.rounds + LOOKS, f"round {len(league.rounds) + 1}, {len(league.population)} members")
            league.round()
            league.save(shop.place)
        lineage = as_json({"model": KIND, "identity": identity, **judged(league, tell)})
    _write(shop, league, lineage)
    return LeagueTrained(out, lineage)


def judged(league: League, tell: Tell | None = None) -> dict[str, Any]:
    """What the finished training came to (see the module)."""
    config, looks = league.config, []
    joined = np.cumsum([1, *(one.joined for one in league.rounds)])
    for place, number in enumerate(np.unique(np.linspace(0, len(league.rounds), LOOKS).round().astype(int)).tolist()):
        if tell is not None:
            tell(config.rounds + place, config.rounds + LOOKS, f"exploitability after round {number}")
        found = _exploited(league, league.population.first(int(joined[number])))
        looks.append({"round": number, "members": int(joined[number]), **_plain(found)})
    start, end = looks[0]["gain"]["mean"], looks[-1]["gain"]["mean"]
    table = payoff_table(league.population, league.members, most=TABLE_MEMBERS, episodes=config.judged_episodes, seed=league.seed)
    return {
        "rounds": [asdict(one) for one in league.rounds],
        "exploitability": looks,
        "newest": _plain(_exploited(league, league.population.only(-1))),
        "table": _table(table),
        "earnings": earnings(league.population, league.members, episodes=config.judged_episodes, seed=league.seed),
        "verdict": {
            "start": start, "end": end, "share": end / start, "reached": end <= GOAL * start,
            "rounds": len(league.rounds), "joined": int(joined[-1]) - 1,
        },
    }  # fmt: skip


def earnings(population: Population, members: int, *, episodes: int, seed: int) -> dict[str, dict[str, float]]:
    """Mean wealth at delivery with its standard error: of a learner, of each scripted player and of the liquidity account. The learner's
    counted once per seat, they sum to 0."""
    market = population.market
    newest = Seat(population.only(-1), np.zeros(episodes, np.int64))
    players = [*([newest] * (members + 1)), *scripted(market)]
    wealth, liquidity = play(market, players, Luck.draw(market, episodes, len(players), stream(seed, "league", "earnings")))
    found = {"a learner": wealth[:, : members + 1].mean(axis=1)}
    found |= {player.name: wealth[:, members + 1 + i] for i, player in enumerate(scripted(market))}
    return {name: asdict(Estimate.of(values)) for name, values in {**found, "liquidity": liquidity}.items()}


def member_name(who: int) -> str:
    """0 is the net before any lesson."""
    return "untrained" if who == 0 else f"member {who}"


def estimate(found: Mapping[str, float]) -> str:
    """Mean and 95 % interval."""
    return f"{found['mean']:,.0f} ± {1.96 * found['error']:,.0f}"


def _exploited(league: League, population: Population) -> Exploitability:
    return exploitability(population, league.members, episodes=league.config.judged_episodes, seed=league.seed)


def _plain(found: Exploitability) -> dict[str, Any]:
    return asdict(found)


def _table(table: Table) -> dict[str, Any]:
    return {name: array.tolist() for name, array in vars(table).items()}


def _versions() -> dict[str, str]:
    return {"cryptoalpha": __version__, "python": platform.python_version(), "numpy": np.__version__, "torch": str(torch.__version__)}


def _write(shop: Workshop, league: League, lineage: Mapping[str, Any]) -> None:
    shutil.rmtree(shop.draft, ignore_errors=True)
    shop.draft.mkdir(parents=True)
    # A league has no history, hence no moment before which it must not be asked.
    fold = write_fold(shop.draft, 0, league.population.weights.arrays(), {"usable_from": 0, "seed": league.seed}, kind=KIND)
    write_folder(shop.draft, kind=KIND, description={"config": league.config.model_dump(mode="json")}, lineage=lineage, folds=[fold])
    write_whole(shop.draft / "report.html", page(LeagueTrained(shop.out, lineage)))
    shop.publish()


@contextmanager
def _one_thread() -> Iterator[None]:
    """Sums of small nets do not depend on how many threads there are if there is one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
