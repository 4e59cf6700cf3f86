"""How much a text concerns the assets of a book: 0 nothing, 1 certainly. An agent leaves unread what lies below its threshold (0.3).

Pieces of evidence e₁, e₂ … each speak for the text, relevance = (1 − Π (1 − eᵢ)) × what noise leaves of it:

| evidence | e |
|---|---|
| names an asset of the book (`lexicon.mentions`; for each, at most two) | 0.7 |
| a word of crypto: bitcoin, blockchain, stablecoin, an exchange's name … (for each, at most two) | 0.35 |
| a word of markets that move everything: rates, inflation, the Fed, ETF, SEC … (for each, at most two) | 0.2 |
| a term of the tone lexicon that says something happened (for each, at most two) | 0.1 |
| a price in dollars or a change in percent | 0.1 |

| noise | leaves |
|---|---|
| asks for something: giveaway, follow and retweet, join our group, promo code, sign up … (each, at most two) | × 0.35 |
| more than five hashtags, or more than five $symbols | × 0.5 each |
| fewer than four words | × 0.6 |

So an asset named in a plain sentence passes, one word of crypto passes, one word of markets needs something that happened beside it, and a
giveaway fails even if it names the asset. The weights were set by hand for these statements and fitted to nothing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from cryptoalpha.signals.text.lexicon import LONGEST_TEXT, mentions, read_small

ASSET, CRYPTO, MARKET, EVENT, FIGURE = 0.7, 0.35, 0.2, 0.1, 0.1
ASKING, CROWDED, SHORT = 0.35, 0.5, 0.6
AT_MOST = 2
FEW_WORDS, MANY_TAGS = 4, 5


def _words(text: str) -> re.Pattern[str]:
    """A whole word or phrase of the list; of several that begin alike the first listed.

    Grouped by their first letter, each with the letter before looked at after it: the engine then passes over letters that begin none.
    """
    by_first: dict[str, list[str]] = {}
    for term in " ".join(text.split()).split(", "):
        choice = re.fullmatch(r"\(\?:([^()]*)\)(.*)", term)
        for spelt in [term] if choice is None else [begin + choice[2] for begin in choice[1].split("|")]:
            by_first.setdefault(spelt[0], []).append(spelt[1:])
    groups = (f"{first}(?<![a-z0-9]{first})(?:{'|'.join(rest)})(?![a-z0-9])" for first, rest in by_first.items())
    return re.compile("|".join(groups))


_CRYPTO = _words(
    r"""bitcoins?, btc, ethereum, ether, altcoins?, crypto(?:s|currenc(?:y|ies))?, blockchains?, stablecoins?, stable coins?, defi, nfts?,
    tokens?, tokenomics, on-chain, onchain, smart contracts?, hash ?rate, halving, mining difficulty, (?:bitcoin|crypto) miners?, satoshis?,
    binance, coinbase, kraken, bitfinex, bitstamp, bitmex, bybit, okx, huobi, kucoin, ftx, alameda, mt\.? gox, grayscale, microstrategy,
    tether, usdt, usdc, terra(?:usd)?, luna, ust, celsius, three arrows, 3ac, blockfi, genesis trading, silvergate, cold wallets?,
    hot wallets?, hardware wallets?, web3, layer[- ]2s?, lightning network, proof[- ]of[- ](?:work|stake), staking, perpetual swaps?,
    funding rates?, whales?, hodl\w*, cbdcs?, digital assets?, digital currenc(?:y|ies), virtual currenc(?:y|ies)"""
)
_MARKET = _words(
    r"""fed, fomc, federal reserve, powell, ecb, central banks?, interest rates?, rate (?:hike|cut|rise|decision)s?, rates,
    basis points?, bps, inflation, cpi, ppi, pce, payrolls?, unemployment, recession, treasur(?:y|ies), yields?, etfs?, sec, cftc, mica,
    regulat(?:or|ors|ion|ions|ory), doj, lawsuit, sanctions?, stock market, stocks?, equities, nasdaq, s&p 500, wall street, risk assets?,
    liquidity, dollar index, dxy, quantitative (?:easing|tightening), bank (?:run|failure)s?, bankruptcy, svb, silicon valley bank,
    debt ceiling, futures, options expiry, open interest, liquidations?, liquidated, sell-?off, hedge funds?, bull market, bear market"""
)
_ASKING = _words(
    r"""give ?aways?, airdrop (?:alert|event|link)s?, claim (?:your|now|free), free (?:crypto|btc|bitcoin|eth|tokens?|nfts?|mint),
    follow (?:me|us|and|&), retweet, rt to win, tag \d? ?(?:friends|people), like (?:and|&|\+) (?:rt|retweet|follow), dm me,
    join (?:our|my|the) (?:telegram|discord|group|channel|vip), telegram group, promo ?codes?, discount codes?, referral (?:code|link)s?,
    use (?:my|our|code), sign up, signup, subscribe, newsletter, link in bio, click (?:here|the link), whitelist, presale, pre-sale, 100x,
    1000x, gem alert, guaranteed (?:profit|return)s?, make money, passive income, work from home, happy birthday, good morning, gm, gn,
    win (?:a|an|free|up), dice, casino, sponsored, advertis\w+, limited time"""
)
_FIGURE = re.compile(r"\$ ?\d|\d ?%|\d[kmb]\b")
_TAG, _SYMBOL = re.compile(r"#\w+"), re.compile(r"\$[A-Za-z]{2,6}\b")
_WORD = re.compile(r"\w")
_FEW = re.compile(r"\w+\W+" * (FEW_WORDS - 1) + r"\w")
"""Found where there are not few."""
_HAPPENS = ("tone", "move", "growing", "inverse")


def relevance(text: str, assets: Sequence[str]) -> float:
    """Relevance of one text to these assets (`BTC`, `ETH` …), 0 to 1; 0 for a text without words."""
    return _relevance(text[:LONGEST_TEXT], tuple(assets))


class Appraisal(NamedTuple):
    """What one reading of a text finds."""

    relevance: float
    tone: float
    named: tuple[str, ...]
    """Assets of the book that it names."""


def appraise(text: str, assets: tuple[str, ...], *, enough: float = 2.0) -> Appraisal:
    """`relevance`, `lexicon.tone_of` and `lexicon.mentions` of a text in one reading.

    Args:
        enough: relevance at which no more evidence is looked for. What is found is then a lower bound that reaches it; below it, and with
            the default, it is the relevance to the last bit. (A product with one more factor of at most 1 never rounds to more.)
    """
    text = text[:LONGEST_TEXT]
    lower = text.lower().replace("’", "'")
    reading, named = read_small(lower), mentions(text, assets)
    if not _WORD.search(lower):
        return Appraisal(0.0, reading.tone, named)
    noise = ASKING ** min(len(set(_ASKING.findall(lower))), AT_MOST)
    noise *= CROWDED ** ((text.count("#") > MANY_TAGS and len(_TAG.findall(text)) > MANY_TAGS) + _is_full_of_symbols(text))
    short = 1.0 if _FEW.search(lower) else SHORT
    unlikely = _left(ASSET, len(named))
    found = (1.0 - unlikely) * noise * short
    for evidence, words in ((CRYPTO, _CRYPTO), (MARKET, _MARKET)):
        if found >= enough:
            return Appraisal(found, reading.tone, named)
        unlikely *= _left(evidence, len(set(words.findall(lower))))
        found = (1.0 - unlikely) * noise * short
    if found < enough:
        happened = sum(kind in _HAPPENS for kind, _ in reading.terms)
        unlikely = unlikely * _left(EVENT, happened) * (1.0 - FIGURE * bool(_FIGURE.search(lower)))
        found = (1.0 - unlikely) * noise * short
    return Appraisal(found, reading.tone, named)


@lru_cache(maxsize=1 << 14)
def _relevance(text: str, assets: tuple[str, ...]) -> float:
    return appraise(text, assets).relevance


def _is_full_of_symbols(text: str) -> bool:
    return text.count("$") > MANY_TAGS and len(_SYMBOL.findall(text)) > MANY_TAGS


def _left(evidence: float, times: int) -> float:
    """What is left of doubt after a piece of evidence was found this often."""
    return (1.0 - evidence) ** min(times, AT_MOST)
