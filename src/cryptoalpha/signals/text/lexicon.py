"""The tone of a text about crypto or finance by a word list, and the assets it speaks of.

`tone` reads a text as a careful but simple reader would: words and phrases carry weights; "not" turns the next words round, "slightly"
weakens them, "sharply" strengthens them; what follows "despite" was overcome; what follows "but" weighs more than what came before; a fall
is bad news unless what falls is a loss; a question is half a statement. The sum s becomes s / √(s² + 15), so a tone lies in (−1, 1).

The word list (`lexicon_words.txt` beside this file) was written for this project and fitted to nothing. Pure functions of text: no clock,
no learning, the same on every machine.

Source: the rules and the normalisation follow Hutto & Gilbert (2014), "VADER"; no word of its list was copied. Departures: movements whose
sign depends on their noun, concessions, no punctuation or capitals as emphasis.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.resources import files
from typing import Literal, get_args

import numpy as np

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.store.tables import Floats

Kind = Literal["tone", "move", "growing", "inverse", "boost", "negate", "concede", "contrast"]

_Hit = tuple[int, int, Kind, float]
"""First and last token of a term, its kind and its weight."""

NORMALISER = 15.0
"""Sum of squares at which a tone reaches 0.71, as in VADER: two strong words make a clear tone, ten do not saturate it."""

REACH = 3
"""Words over which a negation or an intensifier works."""

NOUN_REACH = 4
"""Words between a movement and the noun that moves, either way round."""

NEGATED = -0.74
CONCEDED = 0.2
BEFORE_CONTRAST, AFTER_CONTRAST = 0.5, 1.5
QUESTION = 0.5

LONGEST_TEXT = 4_000
"""Characters read of a text: a headline has 100, the head of an article says what it is about."""

_TOKEN = re.compile(r"[a-z]+(?:['’][a-z]+)?|(?<![\w.,])[+\-−]\d[\d.,]*%|[.,;:?!]|[🚀📈🔥💎🟢📉💀🔴😱]")
_CLAUSE_END = frozenset(".,;:?!")
_PERCENT_TONE = 1.5

_UNAMBIGUOUS = {
    "BTC": ("bitcoin", "bitcoins", "btc", "xbt"),
    "ETH": ("ethereum", "ether", "eth"),
    "XRP": ("ripple", "xrp"),
    "ADA": ("cardano",),
    "SOL": ("solana",),
    "DOGE": ("dogecoin", "doge"),
    "LTC": ("litecoin", "ltc"),
    "LINK": ("chainlink",),
    "BNB": ("bnb", "binance coin"),
    "DOT": ("polkadot",),
    "AVAX": ("avalanche", "avax"),
    "MATIC": ("polygon", "matic"),
    "BCH": ("bitcoin cash", "bch"),
    "TRX": ("tron", "trx"),
    "XLM": ("stellar lumens", "xlm"),
    "XMR": ("monero", "xmr"),
    "UNI": ("uniswap",),
    "ATOM": ("cosmos hub",),
    "NEAR": ("near protocol",),
    "SHIB": ("shiba inu", "shib"),
}
"""Names that mean an asset in any spelling. Every asset is also known by its symbol in capitals, and by $symbol in any."""


@dataclass(frozen=True, slots=True)
class _Term:
    kind: Kind
    weight: float
    words: tuple[str, ...]


def _endings(term: str) -> list[str]:
    """`fall//s/ing` → fall, falls, falling; only one word of a phrase may carry endings."""
    words = term.split()
    for place, word in enumerate(words):
        if "/" in word:
            stem, *endings = word.split("/")
            return [" ".join((*words[:place], stem + ending, *words[place + 1 :])) for ending in endings]
    return [term]


def read_words(text: str) -> dict[str, tuple[_Term, ...]]:
    """Terms by their first word, longest first, from the format explained at the head of the list.

    A term listed twice keeps its first meaning.

    Raises:
        ConfigError: if a section is malformed or of unknown kind.
    """
    terms: dict[tuple[str, ...], _Term] = {}
    kind, weight = "", 0.0
    for line in text.splitlines():
        if header := re.fullmatch(r"\[(\w+) (-?[\d.]+)\]", line):
            kind, weight = header[1], float(header[2])
            if kind not in get_args(Kind):
                raise ConfigError(f"lexicon section {line} is of unknown kind", hint=f"one of {', '.join(get_args(Kind))}")
        elif line and not line.startswith("#"):
            for term in filter(None, (part.strip() for part in line.split(","))):
                if not kind:
                    raise ConfigError(f"lexicon term {term!r} stands before the first section", hint="begin with a line such as [tone 1.4]")
                for spelt in _endings(term):
                    words = tuple(spelt.split())
                    terms.setdefault(words, _Term(kind, weight, words))  # type: ignore[arg-type]
    by_first: dict[str, list[_Term]] = {}
    for term_of in terms.values():
        by_first.setdefault(term_of.words[0], []).append(term_of)
    return {first: tuple(sorted(found, key=lambda term: -len(term.words))) for first, found in by_first.items()}


@cache
def _lexicon() -> dict[str, tuple[_Term, ...]]:
    return read_words(files("cryptoalpha.signals.text").joinpath("lexicon_words.txt").read_text(encoding="utf-8"))


def _find(tokens: list[str], *, percents: bool) -> list[_Hit]:
    """Terms in a list of tokens as (first place, last place, kind, weight); at each place the longest counts.

    `percents`: whether a change in percent may be among them.
    """
    found: list[_Hit] = []
    covered = -1
    for place, terms in enumerate(map(_lexicon().get, tokens)):
        if terms is None:
            if percents and place > covered and tokens[place][0] in "+-−":
                found.append((place, place, "move", _PERCENT_TONE if tokens[place][0] == "+" else -_PERCENT_TONE))
            continue
        if place <= covered:
            continue
        for term in terms:
            length = len(term.words)
            if length == 1 or tuple(tokens[place : place + length]) == term.words:
                covered = place + length - 1
                found.append((place, covered, term.kind, term.weight))
                break
    return found


def _clauses(tokens: list[str]) -> list[int]:
    """The number of the clause that each token stands in."""
    clause, here = [], 0
    for token in tokens:
        clause.append(here)
        here += token in _CLAUSE_END
    return clause


def _moved_nouns(found: list[_Hit], clause: list[int]) -> dict[int, int]:
    """For each movement that has a noun in reach of its clause, the nearest one: index of the movement → index of the noun."""
    nouns = [which for which, (_, _, kind, _) in enumerate(found) if kind in ("growing", "inverse")]
    moved: dict[int, int] = {}
    for which, (first, last, kind, _) in enumerate(found):
        if kind == "move" and nouns:
            distance = {
                noun: first - found[noun][1] if found[noun][1] < first else found[noun][0] - last
                for noun in nouns
                if clause[found[noun][0]] == clause[first]
            }
            nearest = min(distance, key=lambda noun: distance[noun], default=-1)
            if nearest >= 0 and distance[nearest] <= NOUN_REACH:
                moved[which] = nearest
    return moved


def _score(tokens: list[str], found: list[_Hit]) -> float:
    """Weighted sum over the terms with the rules of the module header applied."""
    kinds = {kind for _, _, kind, _ in found}
    has_moved = "move" in kinds and not kinds.isdisjoint(("growing", "inverse"))
    clause = _clauses(tokens) if has_moved or "concede" in kinds else []
    moved = _moved_nouns(found, clause) if has_moved else {}
    silent = set(moved.values())
    contrast = max((start for start, _, kind, _ in found if kind == "contrast" and start > 0), default=-1)
    total = last_score = 0.0
    factor, factor_until, negated_until, conceded, last_stop = 1.0, -1, -1, -1, -2
    for which, (start, stop, kind, weight) in enumerate(found):
        if start > factor_until:
            factor = 1.0
        if kind == "boost" and last_stop == start - 1 and last_score:
            total += last_score * (weight - 1.0)  # "fell sharply"
            last_score = 0.0
        elif kind == "boost":
            factor, factor_until = factor * weight, stop + REACH
        elif kind == "negate":
            negated_until = stop + REACH
        elif kind == "concede":
            conceded = clause[start]
        elif kind != "contrast" and which not in silent:
            score = weight * factor
            if which in moved and found[moved[which]][2] == "inverse":
                score = -score
            if start <= negated_until:
                score *= NEGATED
            if conceded >= 0 and clause[start] == conceded:
                score *= CONCEDED
            if contrast >= 0:
                score *= AFTER_CONTRAST if start > contrast else BEFORE_CONTRAST
            total, last_score, last_stop = total + score, score, stop
    return total


@dataclass(frozen=True, slots=True)
class Reading:
    """What a careful reader found in one text."""

    tokens: list[str]
    terms: list[tuple[Kind, float]]
    """Kind and listed weight of each term found, in order."""
    total: float
    """Weighted sum with all rules applied."""

    @property
    def tone(self) -> float:
        """−1 (as bad as it gets) to 1; 0 where no known word occurs."""
        return self.total / math.sqrt(self.total * self.total + NORMALISER)


def read(text: str) -> Reading:
    """Terms and weighted sum of one text."""
    return read_small(text[:LONGEST_TEXT].lower().replace("’", "'"))


def read_small(lower: str) -> Reading:
    """`read` of a text in small letters with plain apostrophes, no longer than is read."""
    tokens = _TOKEN.findall(lower)
    found = _find(tokens, percents="%" in lower)
    if not found:
        return Reading(tokens, [], 0.0)
    total = _score(tokens, found)
    if tokens[-1] == "?":
        total *= QUESTION
    return Reading(tokens, [(kind, weight) for _, _, kind, weight in found], total)


def tone_of(text: str) -> float:
    """The tone of one text, −1 (as bad as it gets) to 1; 0 where no known word occurs."""
    return read(text).tone


def tone(texts: Iterable[str]) -> Floats:
    """The tone of every text. `n` texts → `[n]`, each in (−1, 1)."""
    return np.array([tone_of(text) for text in texts], np.float64)


@lru_cache(maxsize=64)
def _asset_pattern(assets: tuple[str, ...]) -> tuple[re.Pattern[str], dict[str, str]]:
    """One expression for all names of the assets, and the asset of each spelling it can match."""
    spellings: dict[str, str] = {}
    parts: list[str] = []
    for asset in assets:
        for name in _UNAMBIGUOUS.get(asset, ()):
            spellings[name] = asset
            parts.append(rf"(?i:{re.escape(name)})")
        for symbol in (asset, f"${asset.lower()}"):
            spellings[symbol] = asset
        parts += [re.escape(asset), rf"(?i:\${re.escape(asset)})"]
    parts.sort(key=len, reverse=True)  # "bitcoin cash" before "bitcoin"
    return re.compile(rf"(?<![A-Za-z0-9])(?:{'|'.join(parts)})(?![A-Za-z0-9])", re.ASCII), spellings


def mentions(text: str, assets: Sequence[str]) -> tuple[str, ...]:
    """The assets a text names, in the order of `assets`; empty where it names none of them and so concerns the market as a whole.

    A symbol counts in capitals (`LINK`, not "link") or after a dollar sign; names, and symbols that are no words, count in any case.
    """
    if not assets:
        return ()
    pattern, spellings = _asset_pattern(tuple(assets))
    named = {spellings.get(hit) or spellings[hit.lower()] for hit in pattern.findall(text[:LONGEST_TEXT])}
    return tuple(asset for asset in assets if asset in named)
