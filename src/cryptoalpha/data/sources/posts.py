"""What posts of every publisher have in common: cleaned words, hashed authors, honest times, and which reading of a post this is.

A page is what one answer or one line of a stream held. One bad post in it is a fault with a reason, not the end of the page.

The number of a reading (`revision_of`) is made of the content alone: of the edit, and of the powers of two that likes and followers have
passed. A post fetched again has the same id, each like is not a new message, and a post that became known to twice as many is one.
"""

from __future__ import annotations

import hashlib
import html
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from cryptoalpha.core.errors import ConfigError, DataError
from cryptoalpha.core.time import parse_time
from cryptoalpha.core.values import Post
from cryptoalpha.data.bus.envelope import Envelope, sealed

T = TypeVar("T")

TOPIC = "texts"
LONGEST_TEXT = 10_000
"""Characters kept of a text; no encoder reads further, and nobody's memory should depend on what somebody posts."""

_LEVELS = 64
_LATEST_EDIT = 1 << 50
_NOT_TEXT = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")
_MENTION = re.compile(r"(?<![\w@/])@\w{1,50}|[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}")
_REDDITOR = re.compile(r"(?<![\w/])/?u/[\w-]{2,40}", re.IGNORECASE)
_LANGUAGE = re.compile(r"[a-zA-Z]{2}(?=$|[-_])")
_RENAMED = {"in": "id", "iw": "he", "ji": "yi"}


@dataclass(frozen=True)
class Fault:
    """Something on a page that nobody can read."""

    reason: str
    data: bytes


@dataclass(frozen=True)
class TextPage:
    """What one answer held, in its order."""

    posts: tuple[Post, ...] = ()
    faults: tuple[Fault, ...] = ()
    withdrawn: int = 0
    """Posts whose words their author or a moderator took away."""
    following: str = ""
    """What to ask for next; empty: this was the last page."""
    published: int = 0
    """Newest time by the publisher's clock, UTC ns, even where it lies ahead of ours; 0: the page bears none."""


EMPTY = TextPage()


def native_id(post: Post) -> str:
    """The publisher's id of a reading."""
    return f"{post.post_id}:{post.revision}"


def enveloped(post: Post) -> Envelope:
    """A post ready for the bus."""
    return sealed(post, topic=TOPIC, key=post.source, source=post.source, native_id=native_id(post))


def decoded(raw: bytes | msgspec.Raw, decoder: msgspec.json.Decoder[T], what: str) -> T:
    """JSON as what it should be.

    Raises:
        DataError: if it is not.
    """
    try:
        return decoder.decode(raw)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise DataError(f"{len(raw_bytes(raw))} bytes are no {what}: {error}") from None


def raw_bytes(raw: bytes | msgspec.Raw) -> bytes:
    """Bytes of JSON that was not decoded yet."""
    return bytes(memoryview(raw))


def items_of(raw: msgspec.Raw) -> list[msgspec.Raw]:
    """The members of a JSON list; something that is no list counts as one of one member, nothing and null as an empty one."""
    start = raw_bytes(raw)[:1]
    if start in (b"", b"n"):
        return []
    return _LIST.decode(raw) if start == b"[" else [raw]


_LIST = msgspec.json.Decoder(list[msgspec.Raw])


def clean(text: str) -> str:
    """Words as a reader sees them: no control characters, no half characters, entities decoded, no names of people, not endless."""
    return masked(_NOT_TEXT.sub("", html.unescape(text[: 2 * LONGEST_TEXT]))).strip()[:LONGEST_TEXT].rstrip()


def masked(text: str) -> str:
    """Mentions and mail addresses replaced by `@user`: who is addressed moves no price that the words do not."""
    return _MENTION.sub("@user", text) if "@" in text else text


def masked_redditors(text: str) -> str:
    """Mentions in the manner of Reddit (`u/name`) replaced likewise."""
    return _REDDITOR.sub("@user", text) if "u/" in text.lower() else text


def hashed(author: str, salt: str) -> str:
    """An author as 16 hex digits; empty where there is none. The salt keeps others from finding a name by trying them."""
    if not author:
        return ""
    key = salt.encode()[:64]
    return hashlib.blake2b(author.encode("utf-8", "surrogatepass"), digest_size=8, key=key).hexdigest()


def language_of(code: str) -> str:
    """ISO 639-1 of a publisher's language code; empty where it says none (`und`, `qme`, …)."""
    found = _LANGUAGE.match(code)
    short = found[0].lower() if found else ""
    return _RENAMED.get(short, short)


def published_at(text: str) -> int | None:
    """UTC ns of an ISO time; None where it is none."""
    try:
        return parse_time(text)
    except ConfigError:
        return None


def happened_at(published: int | None, received_at: int) -> int:
    """When a post counts as made: what its publisher says, but never after it reached us, and never before 1970."""
    return received_at if published is None or published < 0 else min(published, received_at)


def whole(number: float) -> float:
    """A count as a number that is finite and not negative."""
    return float(number) if 0.0 < number < float("inf") else 0.0


def revision_of(edit: int, *, echo: float, reach: float) -> int:
    """The number of a reading: later edits are higher, and so is a reading by which likes or followers have doubled."""
    return (min(max(edit, 0), _LATEST_EDIT) * _LEVELS + _level(echo)) * _LEVELS + _level(reach)


def _level(count: float) -> int:
    return min(int(min(count, 1e18)).bit_length(), _LEVELS - 1)


class Seen:
    """Ids that came lately, so that what a publisher sends again is not passed on; forgets the oldest.

    Args:
        most: how many to remember.
    """

    def __init__(self, most: int, ids: Iterable[str] = ()) -> None:
        self._most = most
        self._ids: dict[str, None] = dict.fromkeys(ids)

    def add(self, name: str) -> bool:
        """Remember an id; whether it is new."""
        if name in self._ids:
            return False
        self._ids[name] = None
        if len(self._ids) > self._most:
            del self._ids[next(iter(self._ids))]
        return True

    def __contains__(self, name: str) -> bool:
        return name in self._ids
