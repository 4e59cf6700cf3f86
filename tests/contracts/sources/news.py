"""News: a message is an item of a feed."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Sequence
from email.utils import formatdate
from typing import Any

from cryptoalpha.data.sources.news import open_source
from cryptoalpha.data.sources.text_config import NewsSection


def words(number: int) -> str:
    return f"bitcoin number {number}"


def item(number: int) -> str:
    date = formatdate(1_700_000_000 + number, usegmt=True)
    return f"<item><title>{words(number)}</title><guid>https://n.example/{number}</guid><pubDate>{date}</pubDate></item>"


class News:
    name, faults, keyed, extra = "news", frozenset({"429", "500", "cut"}), False, "feedparser"
    repeats = disorder = garbage = skew = True

    def open(self, fake: Any, tools: Any) -> Any:
        return open_source(NewsSection(feeds=(f"{fake.url}/rss",)), tools)

    def serve(self, fake: Any, numbers: Sequence[int], *, first: str = "", garbage: bool = False) -> None:
        items = [item(number) for number in numbers]
        items[2:2] = ["<item><link>https://n.example/what</link></item>"] if garbage else []
        whole = fake.Reply(f"<rss version='2.0'><channel>{''.join(items)}</channel></rss>", headers={"ETag": f'"{len(items)}"'})
        wrong = {
            "": [],
            "429": [fake.Reply(status=429, headers={"Retry-After": "7"})],
            "500": [fake.Reply(status=500)],
            "cut": [fake.Reply(whole.body, cut=40)],
        }
        fake.answers("/rss", *wrong[first], lambda asked: fake.Reply(status=304) if self.has(asked, whole) else whole)

    @staticmethod
    def has(asked: Any, whole: Any) -> bool:
        return bool(asked.headers.get("If-None-Match") == whole.headers["ETag"])

    def ids(self, numbers: Sequence[int]) -> set[str]:
        digests = {n: hashlib.blake2b(f"https://n.example/{n}".encode(), digest_size=8).hexdigest() for n in numbers}
        return {f"news/{digest}:{(zlib.crc32(words(n).encode()) & 0xFFFF) * 4096}" for n, digest in digests.items()}


CASES = [News()]
