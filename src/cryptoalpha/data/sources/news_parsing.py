"""What a news feed says, read: RSS and Atom, of any age and health.

A pure function of bytes and of the time they came; it raises `DataError` and nothing else. What is recorded and replayed is an answer in
one line of JSON (`packed`): whose feed, what the server called it, and its bytes as they were. Feeds are often mislabelled: bytes that are
valid UTF-8 are read as such, whatever their label says, because text in another code is valid UTF-8 only by a rare accident. A feed that
breaks off is refused as a whole: its last item may be half an item.

Items without a date happened when they came. The id is the publisher's guid; an item whose words change is a new reading of it.

Source: RSS 2.0 and RFC 4287 (Atom), by way of feedparser.
"""

from __future__ import annotations

import calendar
import io
import re
import time
import zlib
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import msgspec

from cryptoalpha.core.errors import DataError
from cryptoalpha.core.time import SECOND
from cryptoalpha.core.values import Post
from cryptoalpha.data.sources.opening import needs
from cryptoalpha.data.sources.posts import Fault, TextPage, clean, decoded, happened_at, hashed, language_of, revision_of

SOURCE = "news"
MOST_ITEMS = 500
"""Items read of one answer, from its top: feeds are tens of items long."""

_TAG = re.compile(r"<[a-zA-Z/!?][^<>]{0,2000}>")
_INLINE = re.compile(r"</?(?:a|abbr|b|code|em|font|i|mark|small|span|strong|sub|sup|u)(?:\s[^<>]{0,2000})?>", re.IGNORECASE)
_END = re.compile(rb"</(?:[\w.-]{1,20}:)?(?:rss|feed|rdf)\s*>", re.IGNORECASE)
_LONGEST_SUMMARY = 4_000
_LONGEST_MARKUP = 40_000
_LONGEST_ADDRESS = 2_000
# What feedparser lets escape on broken input: a ValueError was found by fuzzing (NUL in the name of a code), the others by reading it.
_ESCAPES = (ValueError, TypeError, AttributeError, LookupError, AssertionError, ArithmeticError, RecursionError, RuntimeError, EOFError)


class FeedAnswer(msgspec.Struct, frozen=True):
    """An answer of a feed, as it is recorded."""

    feed: str
    body: bytes
    content_type: str = ""


_ANSWER = msgspec.json.Decoder(FeedAnswer)


def packed(feed: str, body: bytes, content_type: str) -> bytes:
    """An answer in one line."""
    return msgspec.json.encode(FeedAnswer(feed=feed, body=body, content_type=content_type))


def parse_news(raw: bytes, received_at: int, *, salt: str = "") -> TextPage:
    """An answer of a feed, as `packed` made it.

    Raises:
        DataError: if it is no feed, or a feed that breaks off. A bad item inside is a fault of the page.
    """
    answer = decoded(raw, _ANSWER, "recorded answer of a feed")
    document = _document(answer)
    entries = document.get("entries") or []
    feed = document.get("feed") or {}
    if not entries and not document.get("version"):
        raise DataError(f"{len(answer.body)} bytes of {host_of(answer.feed)} are no feed")
    tail = answer.body[-400:].replace(b"\0", b"")
    if not _END.search(tail):
        raise DataError(f"{len(answer.body)} bytes of {host_of(answer.feed)} break off before the end of the feed")
    posts, faults, published = [], [], 0
    for entry in entries[:MOST_ITEMS]:
        read = _read(dict(dict.items(entry)), feed, answer.feed, received_at, salt)
        if isinstance(read, DataError):
            faults.append(Fault(str(read), repr(dict(entry))[:2_000].encode("utf-8", "replace")))
        else:
            posts.append(read[0])
            published = max(published, read[1])
    return TextPage(posts=tuple(posts), faults=tuple(faults), published=published)


def host_of(feed: str) -> str:
    """Whose feed it is, for people."""
    try:
        return urlsplit(feed).hostname or "a feed"
    except ValueError:
        return "a feed"


def _document(answer: FeedAnswer) -> Mapping[str, Any]:
    feedparser = needs("feedparser")
    try:
        headers = {"content-type": _honest_type(answer)}
        # Never bytes or text: feedparser would open a file of that name.
        document: Mapping[str, Any] = feedparser.parse(io.BytesIO(answer.body), response_headers=headers, resolve_relative_uris=False)
    except _ESCAPES as error:
        raise DataError(f"{len(answer.body)} bytes of {host_of(answer.feed)} cannot be read as a feed: {type(error).__name__}") from None
    return document


def _honest_type(answer: FeedAnswer) -> str:
    """The content type to read by: what the bytes prove before what the server says."""
    try:
        answer.body.decode("utf-8")
    except UnicodeDecodeError:
        return answer.content_type or "application/xml"
    wide = b"\0" in answer.body[:4]  # UTF-16 and UTF-32 of plain letters are valid UTF-8 too
    return (answer.content_type or "application/xml") if wide else "application/xml; charset=utf-8"


def _read(entry: Mapping[str, Any], feed: Mapping[str, Any], address: str, received_at: int, salt: str) -> tuple[Post, int] | DataError:
    """One item."""
    title = plain(_text(entry.get("title")))
    summary = plain(_text(entry.get("summary")) or _content(entry))[:_LONGEST_SUMMARY].rstrip()
    text = ". ".join(dict.fromkeys(part for part in (title, summary) if part))
    link = _text(entry.get("link")).strip()
    guid = _text(entry.get("id")).strip() or link or text
    if not text:
        return DataError(f"an item of {host_of(address)} has no words")
    published = _moment(entry, "published_parsed", "created_parsed", "updated_parsed")
    updated = _moment(entry, "updated_parsed")
    later = max((updated - published) // SECOND, 0) if updated is not None and published is not None else 0
    name = guid if guid.startswith(("http://", "https://")) else f"{address} {guid}"
    writer = _text(entry.get("author")).strip()
    post = Post(
        happened_at=happened_at(published, received_at),
        known_at=received_at,
        post_id=hashed(name, ""),
        source=SOURCE,
        text=text,
        url=clean(link)[:_LONGEST_ADDRESS] if link.startswith(("http://", "https://")) else "",
        author=hashed(f"{host_of(address)} {writer}", salt),
        language=language_of(_text(entry.get("language")) or _text(feed.get("language"))),
        revision=revision_of(min(later, 1 << 32) << 16 | zlib.crc32(text.encode()) & 0xFFFF, echo=0.0, reach=0.0),
    )
    return post, published or 0


def plain(markup: str) -> str:
    """Words of HTML in one line. Entities are decoded twice: feeds often escape what was escaped already."""
    text = _TAG.sub(" ", _INLINE.sub("", markup[:_LONGEST_MARKUP]))
    text = _TAG.sub(" ", _INLINE.sub("", clean(text)))
    return " ".join(clean(text).split())


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _content(entry: Mapping[str, Any]) -> str:
    parts = entry.get("content")
    first = parts[0] if isinstance(parts, list) and parts else None
    return _text(first.get("value")) if isinstance(first, Mapping) else ""


def _moment(entry: Mapping[str, Any], *names: str) -> int | None:
    """The first of these dates, UTC ns; what lies outside 1970–9999 is no date."""
    for name in names:
        parts = entry.get(name)
        if isinstance(parts, time.struct_time) and 1970 <= parts.tm_year <= 9999:
            try:
                return calendar.timegm(parts) * SECOND
            except (ValueError, OverflowError):
                continue
    return None
