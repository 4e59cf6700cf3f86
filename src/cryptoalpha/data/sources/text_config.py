"""Settings of the sources of texts: X, Reddit, news feeds."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from cryptoalpha.core.config import Count, Fraction, NonNegative, Positive
from cryptoalpha.data.sources.section import EnvName, HttpAddress, SourceSection

Rule = Annotated[str, Field(min_length=1, max_length=1024)]
Subreddit = Annotated[str, Field(pattern=r"^[A-Za-z0-9_]{2,24}$")]


class TextSection(SourceSection):
    """What every source of texts has."""

    author_salt_env: EnvName = "AUTHOR_SALT"
    """Environment variable mixed into the hashes of authors (a word of your own, if you like). Changed, everybody is a new author."""

    remembered: Count = 20_000
    """Ids remembered so that a post the publisher sends again is not passed on; whoever comes later tells repeats by their ids too."""


class XSection(TextSection):
    """[data.streams.sources.x] Posts of X: filtered stream and recent search (API v2)."""

    enabled: bool = False
    """Off: every post read is paid for."""

    base_url: HttpAddress = "https://api.x.com"
    """Where it asks."""

    bearer_token_env: EnvName = "X_BEARER_TOKEN"
    """Environment variable with the token."""

    rules: tuple[Rule, ...] = (
        '(bitcoin OR btc OR "bitcoin etf") lang:en -is:retweet -is:reply is:verified',
        "(ethereum OR solana OR xrp OR dogecoin) crypto lang:en -is:retweet -is:reply is:verified",
    )
    """What is listened to, in X's language of rules. X keeps them: those of an earlier run are removed, missing ones added."""

    remove_foreign_rules: bool = False
    """Whether rules that cryptoalpha did not make are removed too. Left alone, their posts are paid for and not passed on."""

    daily_units: Positive | None = 2_000
    """Posts read in a UTC day."""

    daily_money: Positive | None = 10.0
    """Dollars in a UTC day."""

    unit_price: NonNegative = 0.005
    """Dollars per post read, the price since February 2026."""

    requests_per_minute: Positive = 20.0
    """X allows 450 searches in 15 minutes; connections to the stream, 50."""

    silence_seconds: Positive = 45.0
    """A stream that sends nothing for this long is dead. X sends a sign of life every 20 s."""

    search_delay_seconds: NonNegative = 15.0
    """After a connection is back, the gap is searched for this much later: X's index runs behind its stream."""

    overlap_seconds: NonNegative = 60.0
    """A search begins this long before the newest post known: posts do not come in the order of their ids."""

    backfill_hours: Positive = 24.0
    """Gaps longer than this are not filled. X's recent search reaches seven days back."""

    backfill_most: Count = 500
    """Posts one gap may cost; of a larger gap the newest are read, and the rest is reported."""

    reread_hours: tuple[Positive, ...] = ()
    """When a post is read again for its likes and followers, hours after it came. Empty, because each time costs as much as the first."""


class RedditSection(TextSection):
    """[data.streams.sources.reddit] Submissions and comments of subreddits."""

    enabled: bool = False
    """Off: it needs a key that Reddit grants by hand."""

    oauth_url: HttpAddress = "https://oauth.reddit.com"
    """Where it asks."""

    reddit_url: HttpAddress = "https://www.reddit.com"
    """Where it gets its token."""

    client_id_env: EnvName = "REDDIT_CLIENT_ID"
    """Environment variable with the application's id."""

    client_secret_env: EnvName = "REDDIT_CLIENT_SECRET"
    """Environment variable with its secret."""

    subreddits: tuple[Subreddit, ...] = ("CryptoCurrency", "Bitcoin", "ethereum", "CryptoMarkets", "solana", "dogecoin")
    """Where to listen. All are asked for at once."""

    submissions: bool = True
    """Whether new submissions are read."""

    comments: bool = True
    """Whether new comments are read."""

    poll_seconds: Positive = 20.0
    """How often each of the two is asked for."""

    most_pages: Count = 10
    """Pages of a hundred that are read to close a gap. Reddit's listings hold a thousand."""

    first_hours: NonNegative = 1.0
    """The very first time, posts made this long before are taken too."""


class NewsSection(TextSection):
    """[data.streams.sources.news] News feeds (RSS, Atom)."""

    feeds: tuple[HttpAddress, ...] = (
        "https://www.coindesk.com/arc/outboundfeeds/rss/",
        "https://cointelegraph.com/rss",
        "https://decrypt.co/feed",
        "https://www.theblock.co/rss.xml",
        "https://bitcoinmagazine.com/feed",
        "https://cryptoslate.com/feed/",
        "https://www.federalreserve.gov/feeds/press_all.xml",
        "https://www.sec.gov/news/pressreleases.rss",
    )
    """Feeds that are read. One that fails is asked less and less often, and stops no other."""

    poll_seconds: Positive = 120.0
    """How often each feed is asked, unless it says itself that nothing will be new for longer."""

    jitter: Fraction = 0.2
    """Share of that time by which it is spread by chance (0–1), so that feeds are not all asked at once."""

    timeout_seconds: Positive = 20.0
    """A server that answers later than this has failed."""

    largest_bytes: Count = 5_000_000
    """Answers longer than this are cut off and refused."""

    most_redirects: Count = 5
    """How often an address may point to another."""

    user_agent: str = "cryptoalpha (news reader)"
    """How it introduces itself; some publishers refuse readers who do not."""

    first_hours: NonNegative = 6.0
    """The very first time, items published this long before are taken too."""

    requests_per_minute: Positive = 60.0
    """Of all feeds together."""
