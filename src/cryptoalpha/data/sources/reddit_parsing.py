"""What Reddit says, read: listings of submissions and of comments.

A pure function of bytes and of the time they came; it raises `DataError` and nothing else. Where the words were taken away by their author
or by a moderator nothing is left to read: such posts are counted as withdrawn. A text is what a reader sees: the title and the words under
it. Reach is the number of members of the subreddit, echo the score and the comments.

Source: Reddit's API documentation, "things" and "listings".
"""

from __future__ import annotations

from typing import Literal

import msgspec

from cryptoalpha.core.errors import DataError
from cryptoalpha.core.time import SECOND
from cryptoalpha.core.values import Post
from cryptoalpha.data.sources.posts import (
    Fault,
    TextPage,
    clean,
    decoded,
    happened_at,
    hashed,
    masked_redditors,
    raw_bytes,
    revision_of,
    whole,
)

SOURCE = "reddit"

_GONE = frozenset({"[deleted]", "[removed]", "[ Removed by Reddit ]", "[removed by reddit]"})
_LATEST_SECONDS = 1e11
_LONGEST_NAME = 16


class _Thing(msgspec.Struct):
    kind: str
    data: msgspec.Raw


class _Listing(msgspec.Struct):
    children: list[msgspec.Raw]
    after: str | None = None


class _Post(msgspec.Struct):
    name: str
    created_utc: float = 0.0
    author: str | None = None
    permalink: str | None = None
    subreddit: str = ""
    link_id: str = ""
    title: str = ""
    selftext: str | None = None
    body: str | None = None
    score: float | None = None
    num_comments: float | None = None
    subreddit_subscribers: float | None = None
    edited: bool | float = False
    removed_by_category: str | None = None


_THING = msgspec.json.Decoder(_Thing)
_LISTING = msgspec.json.Decoder(_Listing)
_POST = msgspec.json.Decoder(_Post)


def parse_reddit(raw: bytes, received_at: int, *, salt: str = "") -> TextPage:
    """A listing of submissions (`t3`), comments (`t1`) or both; `following` is the name to go on after, towards older ones.

    Raises:
        DataError: if it is no listing. A bad post inside is a fault of the page.
    """
    thing = decoded(raw, _THING, "listing of Reddit")
    if thing.kind != "Listing":
        raise DataError(f"{len(raw)} bytes of Reddit are a {clean(thing.kind)[:20]!r}, not a listing")
    listing = decoded(thing.data, _LISTING, "listing of Reddit")
    posts: list[Post] = []
    faults: list[Fault] = []
    withdrawn = published = 0
    for child in listing.children:
        read = _read(child, received_at, salt)
        if isinstance(read, DataError):
            faults.append(Fault(str(read), raw_bytes(child)))
        elif read is None:
            withdrawn += 1
        else:
            posts.append(read[0])
            published = max(published, read[1])
    return TextPage(posts=tuple(posts), faults=tuple(faults), withdrawn=withdrawn, following=listing.after or "", published=published)


def names_of(raw: bytes) -> list[str]:
    """Full names (`t3_…`, `t1_…`) of everything on a listing, withdrawn posts among them, in its order; what has none is left out.

    Raises:
        DataError: if it is no listing.
    """
    listing = decoded(decoded(raw, _THING, "listing of Reddit").data, _LISTING, "listing of Reddit")
    names = []
    for child in listing.children:
        try:
            names.append(decoded(decoded(child, _THING, "thing of Reddit").data, _NAME, "name").name)
        except DataError:
            continue
    return [name for name in names if number_of(name) is not None]


class _Name(msgspec.Struct):
    name: str


_NAME = msgspec.json.Decoder(_Name)


def number_of(name: str) -> int | None:
    """The number of a full name; higher ones of the same kind are newer. None if it is no full name of a submission or a comment."""
    kind, _, digits = name.partition("_")
    if kind not in ("t1", "t3") or not digits or len(digits) > _LONGEST_NAME or not (digits.isascii() and digits.isalnum()):
        return None
    return int(digits, 36)


def _read(raw: msgspec.Raw, received_at: int, salt: str) -> tuple[Post, int] | DataError | None:
    """One member of a listing; None if it was withdrawn."""
    try:
        thing = decoded(raw, _THING, "thing of Reddit")
        kind: Literal["t1", "t3"]
        if thing.kind == "t1":
            kind = "t1"
        elif thing.kind == "t3":
            kind = "t3"
        else:
            return DataError(f"a thing of Reddit of kind {clean(thing.kind)[:20]!r} is neither a submission nor a comment")
        post = decoded(thing.data, _POST, "post of Reddit")
    except DataError as error:
        return error
    if number_of(post.name) is None or not post.name.startswith(kind):
        return DataError("a post of Reddit has no full name")
    words = (post.body if kind == "t1" else post.selftext) or ""
    if post.removed_by_category or words.strip() in _GONE or post.title.strip() in _GONE:
        return None
    text = clean(masked_redditors(". ".join(part for part in (post.title.strip(), words.strip()) if part) if kind == "t3" else words))
    if not text:
        return DataError(f"post {post.name} of Reddit has no words")
    made = post.created_utc if 0.0 < post.created_utc < _LATEST_SECONDS else 0.0
    published = int(made) * SECOND if made else None
    echo = whole(max(post.score or 0.0, 0.0) + max(post.num_comments or 0.0, 0.0))
    reach = whole(post.subreddit_subscribers or 0.0)
    edited = post.edited - made if not isinstance(post.edited, bool) and post.edited < _LATEST_SECONDS else float(post.edited is not False)
    author = post.author if post.author not in (None, *_GONE) else ""
    value = Post(
        happened_at=happened_at(published, received_at),
        known_at=received_at,
        post_id=post.name,
        source=SOURCE,
        text=text,
        url=_address(post, kind),
        author=hashed(author or "", salt),
        reach=reach,
        echo=echo,
        revision=revision_of(max(int(edited), 0), echo=echo, reach=reach),
    )
    return value, published or 0


def _address(post: _Post, kind: Literal["t1", "t3"]) -> str:
    """Where to read it. Made of ids: permalinks of profiles hold the names of people."""
    number = post.name[3:]
    if kind == "t3":
        return f"https://www.reddit.com/comments/{number}"
    link = post.link_id[3:] if post.link_id.startswith("t3_") and number_of(post.link_id) is not None else ""
    return f"https://www.reddit.com/comments/{link}/_/{number}" if link else ""
