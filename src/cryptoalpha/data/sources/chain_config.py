"""Settings of the on-chain and mood sources: addresses of their servers, what counts as large, which addresses are exchanges'.

All are frozen and refuse unknown keys. Public servers are the defaults where there are any without a key; Ethereum needs a node.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from cryptoalpha.core.config import Count, NonNegative, Positive, PositiveFraction, Section
from cryptoalpha.data.sources.section import EnvName, HttpAddress, SocketAddress, SourceSection


class TransfersSection(Section):
    """[data.streams.sources.transfers] Which movements of coins are worth telling."""

    least_usd: Positive = 1_000_000.0
    """USD below which no transfer counts as large; the usual meaning of a whale transfer (`data.metrics`)."""

    least_usd_of: Mapping[str, Positive] = {"USDT": 5_000_000.0, "USDC": 5_000_000.0}
    """The same for single assets: stablecoins move in larger lumps."""

    least_coins_of: Mapping[str, Positive] = {"BTC": 20.0, "ETH": 400.0, "WBTC": 20.0, "LINK": 70_000.0}
    """Units of an asset that count as large while its price is not known; an asset that is not named counts as not large then."""

    quantile: PositiveFraction = 0.99
    """Quantile of all recent transfers of the asset that `multiple` refers to (0–1)."""

    multiple: NonNegative = 1.0
    """A transfer must also be this many times that quantile, so that busy days do not flood the stream; 0 leaves `least_usd` alone."""

    window: Count = 20_000
    """Transfers of an asset the quantile is taken over: between this many and twice as many, the newest."""

    most_per_block: Count = 200
    """Transfers of an asset told of one block, at most; of more, the largest: borrowed coins can go in circles within a block."""

    exchanges: Mapping[str, tuple[str, ...]] = {
        "binance": (
            "34xp4vRoCGJym3xR7yCVPFHoCNxv4Twseo",
            "3M219KR5vEneNb47ewrPfWyb5jQ2DjxRP6",
            "bc1qm34lsc65zpw79lxes69zkqmk6ee3ewf0j77s3h",
            "0x28c6c06298d514db089934071355e5743bf21d60",
            "0x21a31ee1afc51d94c2efccaa2092ad1028285549",
            "0xdfd5293d8e347dfe59e90efd55b2956a1343963d",
            "0xf977814e90da44bfa03b6295a0616a897441acec",
            "0xbe0eb53f46cd790cd13851d5eff43d12404d33e8",
        ),
        "bitfinex": ("bc1qgdjqv0av3q56jvd82tkdjpy7gdp9ut8tlqmgrpmv24sq90ecnvqqjwvw97",),
        "coinbase": ("0x71660c4005ba85c37ccec55d0c4493e66fe775d3", "0x503828976d22510aad0201ac7ec88293211d23da"),
        "kraken": ("0x2910543af39aba0cd09dbb2d50200b3e800a63d2", "0x267be1c1d684f78cb4f6a176c4911b741e4ffdc0"),
    }
    """Addresses of exchanges by their label, as block explorers tag them. Few are known: flows are what these see."""


class MempoolSection(SourceSection):
    """[data.streams.sources.mempool] Bitcoin through a server that speaks mempool.space's REST and WebSocket."""

    base_url: HttpAddress = "https://mempool.space"
    """Where it asks; your own instance serves faster and shares its limits with nobody."""

    ws_url: SocketAddress = "wss://mempool.space/api/v1/ws"
    """Where it listens."""

    listen: bool = True
    """Whether it listens at all; if not, blocks are noticed by asking every `poll_seconds`."""

    requests_per_minute: Positive = 120.0
    """How often it may ask in the long run. The public server does not publish its limit and bans who exceeds it."""

    poll_seconds: Positive = 30.0
    """Seconds between questions for a new block; the WebSocket tells of most of them earlier."""

    silence_seconds: Positive = 90.0
    """Seconds without any message after which the WebSocket counts as dropped; the mempool's figures come every few seconds."""

    stats_seconds: Positive = 60.0
    """Least seconds between two readings of the mempool and its fees."""

    candidates: Literal["summary", "pages"] = "summary"
    """How large transfers are found: `summary` asks for one line per transaction and then for the large ones, `pages` reads all
    transactions in pages of 25, which an Esplora server without summaries needs and costs a hundred requests a block."""

    depth: Annotated[int, Field(ge=2, le=100)] = 6
    """Blocks remembered, so that their transfers can be taken back when others replace them (2–100)."""

    catch_up: Annotated[int, Field(ge=1, le=2016)] = 12
    """Blocks read, at most, of those that came while nobody followed (1–2016); two hours."""


class Token(Section):
    """An ERC-20 contract."""

    contract: Annotated[str, Field(pattern=r"^0x[0-9a-fA-F]{40}$")]
    """Its address."""

    decimals: Annotated[int, Field(ge=0, le=36)]
    """Decimal places of its amounts."""

    priced_as: str = ""
    """Asset whose price it has; empty: its own. `USD` is worth one dollar."""


class EthereumSection(SourceSection):
    """[data.streams.sources.ethereum] Ethereum through the JSON-RPC of a node."""

    enabled: bool = False
    """Off: it needs a node or a provider."""

    rpc_url_env: EnvName = "ETHEREUM_RPC_URL"
    """Environment variable with the node's address; a provider's address holds a key, so it is no setting."""

    requests_per_minute: Positive = 300.0
    """How often it may ask in the long run; three questions a block."""

    burst: Count = 20
    """How many requests may follow each other at once."""

    tokens: Mapping[str, Token] = {
        "USDT": Token(contract="0xdac17f958d2ee523a2206206994597c13d831ec7", decimals=6, priced_as="USD"),
        "USDC": Token(contract="0xa0b86991c6218b36c1d19d4a2e9eb0ce3606eb48", decimals=6, priced_as="USD"),
        "WBTC": Token(contract="0x2260fac5e5542a773aa44fbcfedf7c193bc2c599", decimals=8, priced_as="BTC"),
        "LINK": Token(contract="0x514910771af9ca656af840dff83e8264ecf986ca", decimals=18),
    }
    """Tokens whose transfers are read, by asset."""

    confirmations: Annotated[int, Field(ge=1, le=64)] = 2
    """Blocks a block must be deep before it is read, itself counted (1–64). Two spares most one-block replacements."""

    poll_seconds: Positive = 6.0
    """Seconds between questions for a new block; blocks are 12 s apart."""

    chunk: Annotated[int, Field(ge=1, le=64)] = 8
    """Blocks read at once while catching up (1–64)."""

    depth: Annotated[int, Field(ge=2, le=256)] = 12
    """Blocks remembered, so that their transfers can be taken back when others replace them (2–256)."""

    catch_up: Annotated[int, Field(ge=1, le=7200)] = 600
    """Blocks read, at most, of those that came while nobody followed (1–7200); two hours."""


class CoinMetricsSection(SourceSection):
    """[data.streams.sources.coinmetrics] Daily on-chain metrics of the Coin Metrics community API."""

    enabled: bool = False
    """Off by default: the data's licence is CC BY-NC 4.0, not for commercial use. Turning it on says that yours is not."""

    base_url: HttpAddress = "https://community-api.coinmetrics.io/v4"
    """Where it asks; ends in /v4."""

    requests_per_minute: Positive = 40.0
    """How often it may ask in the long run. With `burst` requests at once this keeps the publisher's limit of ten in any six seconds."""

    page_rows: Annotated[int, Field(ge=1, le=10_000)] = 1000
    """Rows asked for in a page (1–10,000)."""

    poll_minutes: Positive = 60.0
    """Minutes between two questions; rows come once a day, revisions at any time."""

    days_back: Annotated[int, Field(ge=2, le=60)] = 7
    """Days asked for each time (2–60), so that revisions of days already known are seen."""

    lag_hours: NonNegative = 1.0
    """Hours after the end of a day before which its row is not used, as in `data.files.chain_lag_hours`."""


class FearGreedSection(SourceSection):
    """[data.streams.sources.fear_greed] The daily mood index of alternative.me, who asks to be named wherever it is shown."""

    base_url: HttpAddress = "https://api.alternative.me"
    """Where it asks."""

    requests_per_minute: Positive = 2.0
    """How often it may ask in the long run; the index changes once a day."""

    poll_minutes: Positive = 30.0
    """Minutes between two questions; the index changes once a day."""

    days_back: Annotated[int, Field(ge=2, le=60)] = 7
    """Days asked for each time (2–60), so that revisions and days missed are seen."""

    lag_hours: NonNegative = 1.0
    """Hours after 00:00 before which a day's value is not used, as in `data.files.mood_lag_hours`."""
