"""What X, Reddit and news feeds say, read: recorded answers whole, values worked out by hand, and anything at all without a crash."""

from __future__ import annotations

import base64
import contextlib
import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cryptoalpha.core.errors import DataError
from cryptoalpha.core.time import SECOND, parse_time
from cryptoalpha.core.values import Post
from cryptoalpha.data.bus.envelope import from_bytes, to_bytes
from cryptoalpha.data.sources.news_parsing import packed, parse_news, plain
from cryptoalpha.data.sources.posts import Seen, clean, enveloped, hashed, language_of, revision_of
from cryptoalpha.data.sources.reddit_parsing import names_of, number_of, parse_reddit
from cryptoalpha.data.sources.x_parsing import first_id_at, id_time, parse_x, parse_x_problem, parse_x_rules

if not os.environ.get("TESTS_SKIP_NOTHING"):
    pytest.importorskip("feedparser", reason="the extra `streams` is not installed")

NOW = 1_700_000_000 * SECOND


def read_x(raw: bytes) -> Any:
    return parse_x(raw, NOW).page


def read_reddit(raw: bytes) -> Any:
    return parse_reddit(raw, NOW)


def read_news(raw: bytes) -> Any:
    return parse_news(raw, NOW)


def recorded(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as file:
        answers: list[dict[str, Any]] = json.load(file)
    return answers


def check(post: Post, source: str) -> None:
    """What every post promises."""
    assert post.source == source
    assert post.post_id
    assert post.text.strip() == post.text != ""
    assert post.happened_at <= post.known_at == NOW
    assert post.author == "" or (len(post.author) == 16 and int(post.author, 16) >= 0)
    assert len(post.language) in (0, 2)
    envelope = enveloped(post)
    assert from_bytes(to_bytes(envelope)).value() == post
    assert envelope.id == f"{source}/{post.post_id}:{post.revision}"


# ── recordings ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


NOT_POSTS = ("tweets_count", "search_spaces", "savedsearches", "searchusers")
"""Answers about counts, audio rooms, saved searches and people: they hold no posts."""


def test_every_recorded_answer_of_x_that_holds_posts_is_read_whole(payloads: Path) -> None:
    posts = answers = 0
    for path in sorted((payloads / "tweepy").glob("*.json")):
        if any(name in path.name for name in NOT_POSTS):
            continue
        for answer in recorded(path):
            body = answer["body"]
            held = body.get("data", body.get("statuses"))
            page = read_x(json.dumps(body).encode())
            assert not page.faults
            assert len(page.posts) == (len(held) if isinstance(held, list) else 1)
            for post in page.posts:
                check(post, "x")
                assert parse_time("2010-11-04") < post.happened_at < NOW
            posts, answers = posts + len(page.posts), answers + 1
    print(f"X: {answers} answers, {posts} posts, 0 malformed")
    assert (answers, posts) == (13, 261)


def test_answers_of_x_that_hold_no_posts_are_refused_or_faults(payloads: Path) -> None:
    for path in sorted((payloads / "tweepy").glob("*.json")):
        for answer in recorded(path) if any(name in path.name for name in NOT_POSTS) else ():
            try:
                page = read_x(json.dumps(answer["body"]).encode())
            except DataError:
                continue
            assert not page.posts
            assert len(page.faults) == len(answer["body"]["data"])


def test_every_recorded_listing_of_reddit_is_read_whole(payloads: Path) -> None:
    submissions = comments = answers = withdrawn = 0
    for path in sorted((payloads / "praw").glob("*.json*")):
        for answer in recorded(path):
            raw = json.dumps(answer["body"]).encode()
            children = answer["body"]["data"]["children"]
            page = read_reddit(raw)
            assert not page.faults
            assert len(page.posts) + page.withdrawn == len(children)
            assert names_of(raw) == [child["data"]["name"] for child in children]
            for post in page.posts:
                check(post, "reddit")
            submissions += sum(child["kind"] == "t3" for child in children)
            comments += sum(child["kind"] == "t1" for child in children)
            answers, withdrawn = answers + 1, withdrawn + page.withdrawn
    print(f"Reddit: {answers} listings, {submissions} submissions, {comments} comments, {withdrawn} withdrawn, 0 malformed")
    assert (answers, submissions, comments) == (27, 312, 1293)


def test_no_name_of_a_recorded_person_stays_in_what_is_made_of_it(payloads: Path) -> None:
    answers = [
        *recorded(payloads / "praw" / "TestSubredditListings.test_hot.json"),
        *recorded(payloads / "tweepy" / "testsearchtweets.json"),
    ]
    reddit, x = answers[0]["body"], answers[1]["body"]
    people = {child["data"]["author"] for child in reddit["data"]["children"]}
    for post in read_reddit(json.dumps(reddit).encode()).posts:
        assert post.author not in people
        assert not any(name in post.url for name in people)
    names = {tweet["user"]["screen_name"] for tweet in x["statuses"]}
    for post in read_x(json.dumps(x).encode()).posts:
        assert not any(f"@{name}" in post.text or name in post.url + post.author for name in names)


# ── by hand ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_post_of_x_with_everything() -> None:
    body = {
        "data": {
            "id": "1293593516040269825",
            "text": "@somebody says &lt;buy&gt; $BTC",
            "author_id": "7",
            "created_at": "2020-08-12T17:01:42.000Z",
            "lang": "in",
            "edit_history_tweet_ids": ["1293593516040269825"],
            "public_metrics": {"like_count": 3, "retweet_count": 2, "reply_count": 1, "quote_count": 1},
        },
        "includes": {"users": [{"id": "7", "public_metrics": {"followers_count": 1000}}]},
        "matching_rules": [{"id": "9", "tag": "cryptoalpha"}],
    }
    message = parse_x(json.dumps(body).encode(), NOW, salt="s")
    (post,) = message.page.posts
    assert post.text == "@user says <buy> $BTC"
    assert post.happened_at == parse_time("2020-08-12T17:01:42Z")
    assert (post.echo, post.reach, post.language) == (7.0, 1000.0, "id")
    assert post.author == hashed("7", "s") != hashed("7", "t")
    assert post.revision == 3 * 64 + 10  # 7 < 8 = 2³, 1000 < 1024 = 2¹⁰
    assert message.rules == ("9",)
    assert message.newest == 1293593516040269825


def test_an_id_of_x_tells_its_time_and_the_time_the_lowest_id() -> None:
    made = id_time(1293593516040269825)  # created 2020-08-12T17:01:42.000Z, by the lookup answer of the documentation
    assert made is not None
    assert abs(made - parse_time("2020-08-12T17:01:42Z")) < SECOND
    assert first_id_at(made) <= 1293593516040269825 < first_id_at(made + 1_000_000)
    assert id_time(20) is None  # the first tweets were numbered one by one


def test_signs_of_life_problems_and_rules_of_x() -> None:
    assert parse_x(b"\r\n", NOW) == parse_x(b"", NOW)
    assert read_x(b'{"meta": {"result_count": 0}}').posts == ()
    crowded = parse_x(b'{"title":"ConnectionException","connection_issue":"TooManyConnections","detail":"d"}', NOW).problem
    assert crowded is not None
    assert crowded.kind == "too_many_connections"
    refused = parse_x_problem(b'{"title":"Client Forbidden","type":"https://api.twitter.com/2/problems/client-forbidden","detail":"d"}')
    assert refused is not None
    assert refused.kind == "refused"
    rules = parse_x_rules(b'{"data":[{"id":"1","value":"a","tag":"t"}],"meta":{"sent":"now"}}')
    assert [(rule.id, rule.value, rule.tag) for rule in rules] == [("1", "a", "t")]
    assert parse_x_rules(b'{"meta":{"sent":"now"}}') == ()


def listing(*children: dict[str, Any], **data: Any) -> bytes:
    return json.dumps({"kind": "Listing", "data": {"children": list(children), "after": None, **data}}).encode()


def test_posts_of_reddit_with_everything() -> None:
    made = 1_699_000_000
    submission = {
        "name": "t3_abc", "title": "Is BTC up?", "selftext": "Ask u/somebody.", "author": "a", "created_utc": made, "score": 5,
        "num_comments": 2, "subreddit_subscribers": 100, "edited": made + 60.0, "permalink": "/r/x/comments/abc/is/",
    }  # fmt: skip
    comment = {"name": "t1_def", "link_id": "t3_abc", "body": "Yes &amp; no", "author": "[deleted]", "created_utc": made, "score": -4}
    gone = {"name": "t1_ghi", "body": "[removed]", "author": "[deleted]", "created_utc": made}
    page = read_reddit(
        listing({"kind": "t3", "data": submission}, {"kind": "t1", "data": comment}, {"kind": "t1", "data": gone}, after="t1_ghi")
    )
    first, second = page.posts
    assert first.text == "Is BTC up?. Ask @user."
    assert (first.echo, first.reach, first.url) == (7.0, 100.0, "https://www.reddit.com/comments/abc")
    assert first.revision == (60 * 64 + 3) * 64 + 7
    assert first.happened_at == made * SECOND
    assert (second.text, second.author, second.echo) == ("Yes & no", "", 0.0)
    assert second.url == "https://www.reddit.com/comments/abc/_/def"
    assert (page.withdrawn, page.following, page.faults) == (1, "t1_ghi", ())


def test_names_of_reddit_are_numbers_that_grow() -> None:
    assert number_of("t3_10") == 36
    assert [number_of(name) for name in ("t5_10", "t3_", "t3_-1", "", "t3_é", "t1_" + "z" * 17)] == [None] * 6


RSS = """<?xml version="1.0" encoding="{code}"?><rss version="2.0"><channel><title>Feed</title><language>en-us</language>
<item><title>Bitcoin&amp;#8217;s é</title><guid isPermaLink="false">abc</guid><link>https://news.example/a?b=1&amp;c=2</link>
<pubDate>Tue, 07 Nov 2023 10:00:00 +0200</pubDate><description><![CDATA[<p>He said: <b>buy</b>.</p><p>Now&nbsp;!</p>]]></description></item>
<item><title>No date, no guid</title></item>
<item><link>https://news.example/wordless</link></item>
</channel></rss>"""
ATOM = """<feed xmlns="http://www.w3.org/2005/Atom" xml:lang="de"><entry><id>https://news.example/1</id><title>Titel</title>
<published>2023-11-07T08:00:00Z</published><updated>2023-11-07T09:00:00Z</updated>
<content type="html">&lt;i&gt;Text&lt;/i&gt;</content></entry></feed>"""


def feed(body: str | bytes, kind: str = "text/xml") -> bytes:
    return packed("https://news.example/rss", body.encode() if isinstance(body, str) else body, kind)


def test_an_rss_feed_by_hand() -> None:
    page = read_news(feed(RSS.format(code="utf-8")))
    first, second = page.posts
    assert first.text == "Bitcoin’s é. He said: buy. Now !"
    assert first.happened_at == parse_time("2023-11-07T08:00:00Z")
    assert (first.url, first.language) == ("https://news.example/a?b=1&c=2", "en")
    assert second.text == "No date, no guid"
    assert second.happened_at == second.known_at == NOW
    assert len(page.faults) == 1
    assert page.published == first.happened_at


def test_an_atom_feed_by_hand() -> None:
    (post,) = read_news(feed(ATOM)).posts
    assert (post.text, post.language) == ("Titel. Text", "de")
    assert post.happened_at == parse_time("2023-11-07T08:00:00Z")
    assert post.revision >> 12 >> 16 == 3600  # updated an hour after it was published
    later = read_news(feed(ATOM.replace("Text", "Other text"))).posts[0]
    assert later.post_id == post.post_id
    assert later.revision != post.revision  # other words are another reading, whatever the dates say


@pytest.mark.parametrize(
    ("label", "code", "header"),
    [
        ("utf-8", "utf-8", "text/xml; charset=iso-8859-1"),
        ("iso-8859-1", "utf-8", "application/rss+xml"),
        ("us-ascii", "utf-8", "text/xml"),
        ("utf-8", "windows-1252", "application/xml; charset=utf-8"),
        ("utf-16", "utf-16", "application/xml"),
        ("iso-8859-1", "iso-8859-1", "text/html"),
    ],
)
def test_a_feed_that_lies_about_its_letters_is_read_right(label: str, code: str, header: str) -> None:
    text = RSS.format(code=label).replace("&amp;#8217;", "")
    assert read_news(feed(text.encode(code), header)).posts[0].text.startswith("Bitcoins é")


@pytest.mark.parametrize("body", [b"", b"<html><body>Sorry</body></html>", b"{}", b"\x00\xff", b"/etc/hostname", b"http://127.0.0.1:1/"])
def test_what_is_no_feed_is_refused(body: bytes) -> None:
    with pytest.raises(DataError, match="no feed"):
        read_news(feed(body))


def test_an_answer_that_is_the_name_of_a_file_opens_no_file(tmp_path: Path) -> None:
    file = tmp_path / "feed.xml"
    file.write_text(RSS.format(code="utf-8"))
    assert read_news(feed(file.read_bytes())).posts
    with pytest.raises(DataError, match="no feed"):
        read_news(feed(str(file)))


@pytest.mark.parametrize("end", [-7, -30, -200, 400])
def test_a_feed_that_breaks_off_is_refused_whole(end: int) -> None:
    with pytest.raises(DataError, match="break off"):
        read_news(feed(RSS.format(code="utf-8").strip()[:end]))


def test_a_feed_of_entities_within_entities_stays_small() -> None:
    bomb = "".join(f'<!ENTITY e{i} "{f"&e{i - 1};" * 10 if i else "x" * 100}">' for i in range(9))
    body = f'<!DOCTYPE rss [{bomb}]><rss version="2.0"><channel><item><title>a &e8; b</title></item></channel></rss>'
    assert all(len(post.text) < 1000 for post in read_news(feed(body)).posts)


@pytest.mark.parametrize(
    ("markup", "words"),
    [
        ("a<br/>b", "a b"),
        ("<p>one</p><p>two</p>", "one two"),
        ("un<b>believ</b>able", "unbelievable"),
        ("AT&amp;amp;T", "AT&T"),
        ("1 < 2 and 3 > 2", "1 < 2 and 3 > 2"),
        ("&lt;b&gt;x&lt;/b&gt;", "x"),
    ],
)
def test_markup_becomes_words(markup: str, words: str) -> None:
    assert plain(markup) == words


def test_words_are_cleaned() -> None:
    assert clean("a\x00b\ud800c &amp; d\n") == "abc & d"
    assert clean("write a.b@c.example or @me, not 5@6 or x@") == "write @user or @user, not 5@6 or x@"
    assert len(clean("x" * 100_000)) == 10_000
    assert [language_of(code) for code in ("en-US", "und", "qme", "iw", "", "pt_BR")] == ["en", "", "", "he", "", "pt"]


def test_readings_are_numbered_by_edit_then_by_powers_of_two() -> None:
    assert revision_of(0, echo=0, reach=0) == 0
    assert revision_of(0, echo=4, reach=0) == revision_of(0, echo=7, reach=0) < revision_of(0, echo=8, reach=0)
    assert revision_of(1, echo=0, reach=0) > revision_of(0, echo=1e30, reach=1e30)
    assert revision_of(1 << 62, echo=1e30, reach=1e30) < 1 << 63


def test_what_was_seen_longest_ago_is_forgotten_first() -> None:
    seen = Seen(2)
    assert [seen.add(name) for name in ("a", "b", "a", "c", "a", "b")] == [True, True, False, True, True, True]


# ── anything at all ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
NUMBERS = st.sampled_from([-1, 0, 1, 1e308, -1e308, 1e19, 2**63, 253_402_300_800, 1_699_000_000.5, True, False, None])


def bent(whole: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    """`whole` with some of its fields missing or replaced by anything."""
    fields = {name: st.just(value) | NUMBERS | JSON | st.text(max_size=30) for name, value in whole.items()}
    return st.fixed_dictionaries({}, optional=fields)


TWEET = bent({
    "id": "1293593516040269825", "text": "bitcoin", "author_id": "7", "created_at": "2020-08-12T17:01:42.000Z", "lang": "en",
    "edit_history_tweet_ids": ["1", "1293593516040269825"], "public_metrics": {"like_count": 1e400}, "note_tweet": {"text": "long"},
})  # fmt: skip
X_BODIES = bent(
    {"data": [], "includes": {"users": []}, "errors": [{}], "meta": {"next_token": "a"}, "disconnect": {"code": 1}, "title": "t"}
)
THING = st.fixed_dictionaries({
    "kind": st.sampled_from(["t1", "t3", "t5", ""]),
    "data": bent({
        "name": "t3_abc", "title": "bitcoin", "selftext": "x", "body": "x", "author": "a", "created_utc": 1e9, "score": 1,
        "num_comments": 1, "edited": 1e10, "link_id": "t3_1", "subreddit_subscribers": 1e400,
    }),
})  # fmt: skip
DATES = st.sampled_from(
    ["Tue, 07 Nov 2023 10:00:00 GMT", "0000-00-00", "9999-99-99T99:99:99Z", "31 Feb 1", "-5", "99999999999999999999", "２０２３年"]
)
MARKUP = st.text(alphabet="<>&;#![]CDATA-ab\"'=/ \x00\ud7ff𝕏é", max_size=40)
ITEM = st.builds(
    lambda tag, text, date, guid: f"<{tag}><title>{text}</title><id>{guid}</id><pubDate>{date}</pubDate><updated>{date}</updated></{tag}>",
    st.sampled_from(["item", "entry"]),
    MARKUP,
    DATES | MARKUP,
    MARKUP,
)
HEADS = [
    "<rss version='2.0'><channel>",
    "<feed xmlns='http://www.w3.org/2005/Atom'>",
    "<rdf:RDF>",
    "<?xml version='1.0' encoding='utf-7'?><rss>",
]
FEEDS = st.builds(
    lambda head, items, tail: (head + "".join(items) + tail).encode("utf-8", "surrogatepass"),
    st.sampled_from(HEADS),
    st.lists(ITEM | MARKUP, max_size=4),
    st.sampled_from(["</channel></rss>", "</feed>", "", "</rdf:RDF>"]),
)


def never_crashes(read: Callable[[bytes], Any], raw: bytes, source: str) -> None:
    try:
        page = read(raw)
    except DataError:
        return
    for post in page.posts:
        check(post, source)
    for fault in page.faults:
        assert fault.reason
    assert read(raw) == page


def as_json(value: Any) -> bytes:
    return json.dumps(value).replace("Infinity", "1e999").encode()


ANYTHING = st.binary(max_size=60) | JSON.map(as_json)


@settings(max_examples=200, deadline=None)
@given(
    raw=st.binary(max_size=60) | JSON.map(as_json) | X_BODIES.map(as_json) | st.lists(TWEET, max_size=3).map(lambda t: as_json({"data": t}))
)
@example(raw=b"[" * 100_000)
@example(raw=b'{"data":' * 100_000)
@example(raw=b'{"data": {"id": "1", "text": "\\ud800"}}')
@example(raw='{"data": {"id": "١", "text": "digits"}}'.encode())
def test_whatever_x_says_nothing_escapes(raw: bytes) -> None:
    never_crashes(read_x, raw, "x")
    parse_x_problem(raw)
    with contextlib.suppress(DataError):
        parse_x_rules(raw)


@settings(max_examples=200, deadline=None)
@given(raw=ANYTHING | st.lists(THING | JSON, max_size=3).map(lambda things: listing(*things)))
@example(raw=b'{"kind":"Listing","data":' + b"[" * 100_000)
def test_whatever_reddit_says_nothing_escapes(raw: bytes) -> None:
    never_crashes(read_reddit, raw, "reddit")
    with contextlib.suppress(DataError):
        assert all(number_of(name) is not None for name in names_of(raw))


@settings(max_examples=100, deadline=None)
@given(
    body=st.binary(max_size=80) | MARKUP.map(lambda text: text.encode()) | FEEDS,
    kind=st.sampled_from(["text/xml; charset=utf-7", "", "x;y=\xff"]),
)
@example(body=b"<rss" + b"<item>" * 20_000 + b"</rss>", kind="text/xml")
@example(body=b"<rss><![endif]><item><title>x</title></item></rss>", kind="text/html; charset=\x00")
def test_whatever_a_feed_says_nothing_escapes(body: bytes, kind: str) -> None:
    never_crashes(read_news, packed("https://news.example/rss", body, kind), "news")
    never_crashes(read_news, body, "news")
    never_crashes(read_news, json.dumps({"feed": "https://[", "body": base64.b64encode(body).decode()}).encode(), "news")
