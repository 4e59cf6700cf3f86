"""One question to Reddit: asyncpraw gets the token and keeps to the rate headers, the bytes are ours.

asyncpraw would ask again by itself, by the machine's clock, where nobody sees it. Here a failed question fails at once, with the reason
and with how long Reddit asks to wait; whoever asks decides.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from cryptoalpha.core.clock import Clock
from cryptoalpha.core.errors import CryptoAlphaError, VenueError
from cryptoalpha.data.sources.opening import needs
from cryptoalpha.data.sources.reconnect import RefusedError, check_answer
from cryptoalpha.data.sources.text_config import RedditSection
from cryptoalpha.data.sources.words import in_words

if TYPE_CHECKING:
    import aiohttp

USER_AGENT = "cryptoalpha (reads new posts, writes nothing)"
_TOKEN_PATH = "/api/v1/access_token"


class RedditClient:
    """Asks Reddit for listings, without a user of its own.

    Args:
        identity, secret: of the application.

    Raises:
        ConfigError: if asyncpraw is not installed.
    """

    def __init__(self, section: RedditSection, clock: Clock, *, identity: str, secret: str) -> None:
        needs("asyncpraw")
        self._section, self._clock, self._identity, self._secret = section, clock, identity, secret
        self._reddit: Any = None
        self._last = (b"", 0)

    async def listing(self, path: str, params: Mapping[str, str | int]) -> tuple[bytes, int]:
        """The bytes of a listing, and when they came (UTC ns).

        Raises:
            RefusedError: if Reddit refuses the key, or knows no such listing. The next question gets a new token first.
            LaterError: if it asks to wait.
            VenueError: if it failed.
        """
        from asyncpraw.exceptions import AsyncPRAWException
        from asyncprawcore.exceptions import AsyncPrawcoreException, OAuthException, RequestException

        if self._reddit is None:
            self._reddit = self._open()
        self._last = (b"", 0)
        try:
            await self._reddit.request(method="GET", path=path, params={**params, "raw_json": 1})
        except RequestException as error:
            await self.close()
            if isinstance(error.original_exception, CryptoAlphaError):
                raise error.original_exception from None
            raise VenueError(f"Reddit cannot be reached: {in_words(error.original_exception)}") from None
        except OAuthException as error:
            await self.close()
            raise RefusedError(f"Reddit gives no token: {error.error}", hint="check the application's id and secret") from None
        except (AsyncPrawcoreException, AsyncPRAWException, ValueError) as error:  # ValueError: an answer that is no JSON
            raise VenueError(f"Reddit's answer cannot be used: {type(error).__name__}") from None
        return self._last

    async def close(self) -> None:
        """Let go of the connection, and of the token."""
        reddit, self._reddit = self._reddit, None
        if reddit is not None:
            await reddit.close()

    def _open(self) -> Any:
        import asyncpraw
        from asyncprawcore import Requestor

        client = self

        class SingleAttempts(Requestor):
            """Fails as we understand failing, and leaves what came with the client."""

            @asynccontextmanager
            async def request(self, *args: Any, timeout: float | None = None, **kwargs: Any) -> AsyncIterator[aiohttp.ClientResponse]:
                async with super().request(*args, timeout=timeout, **kwargs) as response:
                    check_answer(response.status, response.headers, what="Reddit", now=client._clock.now())
                    if response.url.path != _TOKEN_PATH:
                        client._last = (await response.read(), client._clock.now())
                    yield response

        return asyncpraw.Reddit(
            client_id=self._identity,
            client_secret=self._secret,
            user_agent=USER_AGENT,
            oauth_url=self._section.oauth_url,
            reddit_url=self._section.reddit_url,
            requestor_class=SingleAttempts,
            check_for_updates=False,
            check_for_async=False,
        )
