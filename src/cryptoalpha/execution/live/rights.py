"""What a key may do, asked before the first order: one that may withdraw is a key to the money itself, and is refused by the session.

Binance says it of the key (`/sapi/v1/account/apiRestrictions`, for spot and futures alike). What its account page calls `canWithdraw` is of
the account, true of almost every one, and says nothing of the key. Other venues of ccxt have no common word for it: there a key counts as
one that may withdraw, unless `execution.live.vouched_key` says that a person has looked.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.execution.live.questions import Questions, unclear
from cryptoalpha.execution.venue import Ambiguous, Rights, UnclearError


async def key_rights(client: Any, ask: Questions, *, is_futures: bool, is_vouched: bool) -> Rights:
    """What the client's key may do.

    Raises:
        UnclearError: if the venue does not say now.
        ConfigError: if the venue refuses the key, or is one that never says and nobody vouches.
    """
    if not client.id.startswith("binance"):
        if is_vouched:
            return Rights(may_trade=True, may_withdraw=False)
        raise ConfigError(
            f"{client.id} does not say what a key may do, so this one may be able to withdraw",
            hint="make a key without that right at the venue, look at it there, then set execution.live.vouched_key",
        )
    found = await _read_with_key(client, ask, "what the key may do", client.sapi_get_account_apirestrictions)
    said = found if isinstance(found, Mapping) else {}
    withdraws, trades = said.get("enableWithdrawals"), said.get("enableFutures" if is_futures else "enableSpotAndMarginTrading")
    if not isinstance(withdraws, bool) or not isinstance(trades, bool):
        raise unclear(f"{client.id} does not say what the key may do", Ambiguous(reason="rights that cannot be read"))
    return Rights(may_trade=trades, may_withdraw=withdraws)


async def refuse_hedging(client: Any, ask: Questions) -> None:
    """An account that holds long and short positions of one perpetual apart has another meaning of "reduce only", and no signed position.

    Raises:
        ConfigError: if the account is set so.
        UnclearError: if the venue does not say.
    """
    if not client.has.get("fetchPositionMode"):
        return
    mode = await _read_with_key(client, ask, "its position mode", client.fetch_position_mode)
    hedged = mode.get("hedged") if isinstance(mode, Mapping) else None
    if not isinstance(hedged, bool):
        raise unclear(f"{client.id} does not say whether positions are kept apart", Ambiguous(reason="a position mode that cannot be read"))
    if hedged:
        raise ConfigError(f"the account at {client.id} keeps long and short positions apart", hint="switch it to one-way mode at the venue")


async def _read_with_key(client: Any, ask: Questions, what: str, call: Callable[[], Awaitable[Any]]) -> Any:
    """The answer to a signed question.

    Raises:
        ConfigError: if the venue refuses the key.
        UnclearError: if it gives no answer.
    """
    try:
        return await ask.read(what, call)
    except UnclearError as error:
        if not error.answer.is_key:
            raise
        raise ConfigError(
            f"{client.id} refuses the key: {error.answer.reason}",
            hint="check credentials.api_key and credentials.api_secret, the key's rights, and the addresses it is allowed from",
        ) from None
