"""What X says, read: answers of search and lookup, and the lines of the filtered stream.

Pure functions of bytes and of the time they came; they raise `DataError` and nothing else. Read are API v2 and, for recordings, the
answers of search v1.1. A post without its words is a fault; without its time, author or counts it is a post about which less is known
(X sends such partial posts, with the reason under `errors`). Its time is then the one its id was made at.

Source: X API v2 documentation, "Consuming streaming data" and "Handling disconnections"; the layout of ids is Twitter's snowflake (2010).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import msgspec

from cryptoalpha.core.errors import DataError
from cryptoalpha.core.time import MILLISECOND
from cryptoalpha.core.values import Post
from cryptoalpha.data.sources.posts import (
    EMPTY,
    Fault,
    TextPage,
    clean,
    decoded,
    happened_at,
    hashed,
    items_of,
    language_of,
    published_at,
    raw_bytes,
    revision_of,
    whole,
)

SOURCE = "x"

_SNOWFLAKE_EPOCH_MS = 1_288_834_974_657
_FIRST_SNOWFLAKE = 29_700_859_247
_LARGEST_ID = (1 << 63) - 1
_REFUSED_FOR_GOOD = frozenset({6, 7})
"""Codes of v1.1: the token was revoked, the administrator logged it out. The others pass."""

Trouble = Literal["disconnect", "too_many_connections", "refused", "other"]


@dataclass(frozen=True)
class Problem:
    """Something X reported instead of a post."""

    kind: Trouble
    reason: str


@dataclass(frozen=True)
class XMessage:
    """One answer, or one line of the stream. All fields are empty for a keep-alive."""

    page: TextPage = EMPTY
    rules: tuple[str, ...] = ()
    """Ids of the rules it matched; answers of search name none."""
    newest: int = 0
    """Highest id of a post on the page, of an edit its own; 0: there is none."""
    problem: Problem | None = None


@dataclass(frozen=True)
class XRule:
    """A rule of the filtered stream, as X keeps it."""

    id: str
    value: str
    tag: str = ""


class _Counts(msgspec.Struct):
    like_count: float = 0.0
    retweet_count: float = 0.0
    reply_count: float = 0.0
    quote_count: float = 0.0
    followers_count: float = 0.0


class _Note(msgspec.Struct):
    text: str = ""


class _Tweet(msgspec.Struct):
    id: str
    text: str = ""
    author_id: str = ""
    created_at: str = ""
    lang: str = ""
    edit_history_tweet_ids: list[str] = []
    public_metrics: _Counts | None = None
    note_tweet: _Note | None = None


class _User(msgspec.Struct):
    id: str
    public_metrics: _Counts | None = None


class _Includes(msgspec.Struct):
    users: msgspec.Raw = msgspec.Raw()


class _Error(msgspec.Struct):
    title: str = ""
    detail: str = ""
    type: str = ""
    message: str = ""
    disconnect_type: str = ""
    connection_issue: str = ""


class _Meta(msgspec.Struct):
    next_token: str | None = None


class _Rule(msgspec.Struct):
    id: str = ""
    value: str = ""
    tag: str = ""


class _Disconnect(msgspec.Struct):
    code: int = 0
    reason: str = ""


class _Body(msgspec.Struct):
    """Everything an answer or a line may hold."""

    data: msgspec.Raw = msgspec.Raw()
    includes: msgspec.Raw = msgspec.Raw()
    errors: msgspec.Raw = msgspec.Raw()
    meta: _Meta | None = None
    matching_rules: list[_Rule] = []
    title: str = ""
    detail: str = ""
    type: str = ""
    connection_issue: str = ""
    disconnect: _Disconnect | None = None
    statuses: msgspec.Raw = msgspec.Raw()


class _OldUser(msgspec.Struct):
    id_str: str = ""
    followers_count: float = 0.0


class _OldTweet(msgspec.Struct):
    id_str: str
    text: str = ""
    full_text: str = ""
    lang: str | None = None
    favorite_count: float | None = None
    retweet_count: float | None = None
    user: _OldUser | None = None


_BODY = msgspec.json.Decoder(_Body)
_TWEET = msgspec.json.Decoder(_Tweet)
_OLD_TWEET = msgspec.json.Decoder(_OldTweet)
_INCLUDES = msgspec.json.Decoder(_Includes)
_USER = msgspec.json.Decoder(_User)
_RULE = msgspec.json.Decoder(_Rule)
_ERROR = msgspec.json.Decoder(_Error)


def parse_x(raw: bytes, received_at: int, *, salt: str = "") -> XMessage:
    """One answer of search, lookup or a timeline, or one line of the filtered stream.

    Raises:
        DataError: if it is none of these. A bad post inside is a fault of the page.
    """
    if not raw.strip():
        return XMessage()
    body = decoded(raw, _BODY, "message of X")
    old = items_of(body.statuses)
    if old:
        page = _page((_old(item, received_at, salt) for item in old), old)
        return XMessage(page=page, newest=max((number_in(post) for post in page.posts), default=0))
    items = items_of(body.data)
    problem = None if items else _problem(body)
    if not items and problem is None and body.meta is None:
        raise DataError(f"{len(raw)} bytes of X hold neither posts nor a problem")
    followers = _followers(body.includes)
    following = (body.meta.next_token or "") if body.meta else ""
    page = _page((_new(item, followers, received_at, salt) for item in items), items, following)
    newest = max((number_in(post) for post in page.posts), default=0)
    return XMessage(page=page, rules=tuple(rule.id for rule in body.matching_rules), newest=newest, problem=problem)


def parse_x_rules(raw: bytes) -> tuple[XRule, ...]:
    """The rules X keeps, or those it has just taken.

    Raises:
        DataError: if it is no list of rules.
    """
    body = decoded(raw, _BODY, "list of rules of X")
    if body.meta is None:
        raise DataError(f"{len(raw)} bytes of X are no list of rules")
    rules = (decoded(item, _RULE, "rule of X") for item in items_of(body.data))
    return tuple(XRule(id=rule.id, value=rule.value, tag=rule.tag) for rule in rules if rule.id)


def parse_x_problem(raw: bytes) -> Problem | None:
    """What an answer complains of; None where it does not, or cannot be read."""
    try:
        return _problem(decoded(raw, _BODY, "answer of X"))
    except DataError:
        return None


def number_in(post: Post) -> int:
    """A post's own id; that of an edit differs from the id of the post."""
    return int(post.url.rsplit("/", 1)[-1])


def id_time(tweet_id: int) -> int | None:
    """When an id was made, UTC ns; None for ids older than snowflakes (November 2010)."""
    return ((tweet_id >> 22) + _SNOWFLAKE_EPOCH_MS) * MILLISECOND if tweet_id > _FIRST_SNOWFLAKE else None


def first_id_at(moment: int) -> int:
    """The lowest id made at `moment` (UTC ns)."""
    return max((moment // MILLISECOND - _SNOWFLAKE_EPOCH_MS) << 22, 0)


Read = tuple[Post, int] | DataError


def _page(read: Iterable[Read], raw: list[msgspec.Raw], following: str = "") -> TextPage:
    posts, faults, published = [], [], 0
    for answer, item in zip(read, raw, strict=True):
        if isinstance(answer, DataError):
            faults.append(Fault(str(answer), raw_bytes(item)))
        else:
            posts.append(answer[0])
            published = max(published, answer[1])
    return TextPage(posts=tuple(posts), faults=tuple(faults), following=following, published=published)


def _new(raw: msgspec.Raw, followers: Mapping[str, float], received_at: int, salt: str) -> Read:
    """A post of API v2."""
    try:
        tweet = decoded(raw, _TWEET, "post of X")
        own = _number(tweet.id)
        history = sorted({_number(name) for name in tweet.edit_history_tweet_ids} | {own})
    except DataError as error:
        return error
    text = clean(tweet.note_tweet.text if tweet.note_tweet and tweet.note_tweet.text else tweet.text)
    if not text:
        return DataError(f"post {tweet.id} of X has no words")
    counts = tweet.public_metrics or _Counts()
    echo = whole(counts.like_count + counts.retweet_count + counts.reply_count + counts.quote_count)
    reach = whole(followers.get(tweet.author_id, 0.0))
    time = published_at(tweet.created_at) if tweet.created_at else None
    published = time if time is not None else id_time(own)
    return _post(
        str(history[0]), text, published, received_at,
        edit=history.index(own), author=hashed(tweet.author_id, salt), reach=reach, echo=echo, language=language_of(tweet.lang), own=own,
    )  # fmt: skip


def _old(raw: msgspec.Raw, received_at: int, salt: str) -> Read:
    """A post of API v1.1, as recordings hold it; its stamp is in words, so the id tells the time."""
    try:
        tweet = decoded(raw, _OLD_TWEET, "post of X (v1.1)")
        own = _number(tweet.id_str)
    except DataError as error:
        return error
    text = clean(tweet.full_text or tweet.text)
    if not text:
        return DataError(f"post {tweet.id_str} of X has no words")
    user = tweet.user or _OldUser()
    language = language_of(tweet.lang or "")
    echo = whole((tweet.favorite_count or 0.0) + (tweet.retweet_count or 0.0))
    return _post(
        str(own), text, id_time(own), received_at,
        edit=0, author=hashed(user.id_str, salt), reach=whole(user.followers_count), echo=echo, language=language, own=own,
    )  # fmt: skip


def _post(
    name: str,
    text: str,
    published: int | None,
    received_at: int,
    *,
    edit: int,
    author: str,
    reach: float,
    echo: float,
    language: str,
    own: int,
) -> tuple[Post, int]:
    post = Post(
        happened_at=happened_at(published, received_at),
        known_at=received_at,
        post_id=name,
        source=SOURCE,
        text=text,
        url=f"https://x.com/i/status/{own}",
        author=author,
        reach=reach,
        echo=echo,
        language=language,
        revision=revision_of(edit, echo=echo, reach=reach),
    )
    return post, published or 0


def _number(name: str) -> int:
    if not (name.isascii() and name.isdigit()) or not 0 < int(name[:20]) <= _LARGEST_ID or len(name) > 19:
        raise DataError("an id of X is no number of 19 digits or fewer")
    return int(name)


def _followers(includes: msgspec.Raw) -> dict[str, float]:
    """Followers by author; what cannot be read is unknown, never a reason to lose the post."""
    found = {}
    try:
        users = items_of(decoded(includes, _INCLUDES, "includes").users) if raw_bytes(includes) else []
    except DataError:
        return {}
    for raw in users:
        try:
            user = decoded(raw, _USER, "user")
        except DataError:
            continue
        if user.public_metrics:
            found[user.id] = user.public_metrics.followers_count
    return found


def _problem(body: _Body) -> Problem | None:
    """What X complains of, in the order of how much it matters."""
    if body.disconnect is not None:
        kind: Trouble = "refused" if body.disconnect.code in _REFUSED_FOR_GOOD else "disconnect"
        return Problem(kind, f"disconnect {body.disconnect.code}: {clean(body.disconnect.reason)[:200]}")
    errors = [_Error(title=body.title, detail=body.detail, type=body.type, connection_issue=body.connection_issue)]
    for raw in items_of(body.errors):
        try:
            errors.append(decoded(raw, _ERROR, "error"))
        except DataError:
            errors.append(_Error(title="an error that cannot be read"))
    named = [error for error in errors if error.title or error.detail or error.type or error.message]
    if not named:
        return None
    problems = [Problem(_kind_of(error), clean(f"{error.title}: {error.detail or error.message}")[:300]) for error in named]
    order: dict[Trouble, int] = {"refused": 0, "too_many_connections": 1, "disconnect": 2, "other": 3}
    return min(problems, key=lambda problem: order[problem.kind])


def _kind_of(error: _Error) -> Trouble:
    name = error.type.rsplit("/", 1)[-1]
    if name in ("client-forbidden", "unsupported-authentication", "not-authorized-for-resource"):
        return "refused"
    if error.connection_issue == "TooManyConnections" or name == "streaming-connection":
        return "too_many_connections"
    if error.disconnect_type or "disconnect" in name or "disconnect" in error.title.lower():
        return "disconnect"
    return "other"
