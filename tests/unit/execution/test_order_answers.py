"""What a failed request means, and what it takes to believe that an order never arrived."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from cryptoalpha.execution.orders.absence import AbsenceRule, Evidence, still_missing
from cryptoalpha.execution.orders.classify import classify, judge
from cryptoalpha.execution.venue import Ambiguous, Rejected

ccxt = pytest.importorskip("ccxt")

INSUFFICIENT = "Account has insufficient balance for requested action."
SECOND = 1_000_000_000


@pytest.mark.parametrize(
    ("kind", "code", "message", "status"),
    [
        (ccxt.InsufficientFunds, "-2010", INSUFFICIENT, 400),
        (ccxt.BadRequest, "-1013", "Filter failure: NOTIONAL", 400),
        (ccxt.BadSymbol, "-1121", "Invalid symbol.", 400),
        (ccxt.PermissionDenied, "-2010", "This symbol is not permitted for this account.", 400),
        (ccxt.InsufficientFunds, "-2019", "Margin is insufficient.", 400),
        (ccxt.ExchangeError, "-2019", "Margin is insufficient.", 400),  # under another address ccxt does not know the code
        (ccxt.BadRequest, "-1013", "over a WebSocket there is no status", None),
    ],
)
def test_a_definite_refusal_ends_the_order(kind, code, message, status):
    assert classify(kind("x"), code=code, message=message, status=status) == Rejected(code=code, message=message)


@pytest.mark.parametrize(
    ("kind", "code", "status"),
    [
        (ccxt.NetworkError, "", None),  # reset, refused, DNS; a body cut short, read synchronously
        (ccxt.ExchangeError, "", 200),  # a body cut short, read asynchronously
        (ccxt.ExchangeNotAvailable, "", 400),  # a gateway's HTML
        (ccxt.ExchangeNotAvailable, "", 403),
        (ccxt.ExchangeNotAvailable, "", 503),
        (ccxt.RequestTimeout, "", None),
        (ccxt.RequestTimeout, "", 504),
        (ccxt.RequestTimeout, "-1007", 400),
        (ccxt.OperationFailed, "-1006", 400),
        (ccxt.ExchangeError, "-9999", 400),  # a code that nobody knows
        (ccxt.BadRequest, "", 400),  # the right class, and no code
        (ccxt.InsufficientFunds, "-2010", 502),  # a code, but a failing machine answered
        (ccxt.BadRequest, "-1016", 400),  # shutting down
        (ValueError, "", 200),
        (KeyError, "-1013", None),
    ],
)
def test_everything_else_is_unknown_and_never_a_refusal(kind, code, status):
    answer = classify(kind("x"), code=code, message="words", status=status)
    assert isinstance(answer, Ambiguous)
    assert (answer.refusal, answer.exists, answer.is_key) == (None, False, False)
    assert "words" in answer.reason


def test_an_unauthorised_reply_without_a_code_is_unknown_and_needs_a_person():
    for kind in (ccxt.AuthenticationError, ccxt.ExchangeNotAvailable):
        answer = classify(kind("x"), status=401)
        assert isinstance(answer, Ambiguous)
        assert answer.is_key


@pytest.mark.parametrize("kind", [ccxt.AuthenticationError, ccxt.DDoSProtection])
def test_a_revoked_key_is_known_by_its_code_even_after_an_earlier_success(kind):
    words = "Invalid API-key, IP, or permissions for action."
    assert classify(kind("x"), code="-2015", message=words, status=401) == Rejected(code="-2015", message=words, is_key=True)


def test_a_revoked_key_as_ccxt_itself_raises_it():
    client = ccxt.binance()
    body = '{"code":-2015,"msg":"Invalid API-key, IP, or permissions for action."}'
    for earlier_success, kind in ((False, ccxt.AuthenticationError), (True, ccxt.DDoSProtection)):
        client.options["hasAlreadyAuthenticatedSuccessfully"] = earlier_success
        with pytest.raises(kind) as raised:
            client.handle_errors(401, "", "https://api.binance.com/api/v3/order", "POST", {}, body, client.parse_json(body), {}, "")
        answer = classify(raised.value, code="-2015", message="Invalid", status=401)
        assert isinstance(answer, Rejected)
        assert answer.is_key


@pytest.mark.parametrize(
    ("kind", "code", "status"),
    [(ccxt.DDoSProtection, "", 429), (ccxt.DDoSProtection, "-1003", 418), (ccxt.RateLimitExceeded, "-1015", 400)],
)
def test_a_rate_limit_is_unknown_and_says_how_long_to_wait(kind, code, status):
    answer = classify(kind("x"), code=code, status=status, retry_after_seconds=7.5)
    assert isinstance(answer, Ambiguous)
    assert answer.retry_after_seconds == 7.5
    assert answer.refusal is None


def test_a_disputed_clock_is_unknown_and_asks_for_a_new_one():
    answer = classify(ccxt.InvalidNonce("x"), code="-1021", message="Timestamp outside of recvWindow.", status=400)
    assert isinstance(answer, Ambiguous)
    assert answer.is_clock
    assert not answer.is_key
    assert answer.refusal == Rejected(code="-1021", message="Timestamp outside of recvWindow.")  # it was this request that was turned away
    assert classify(ccxt.InvalidNonce("x"), code="-1021", status=503).refusal is None


@pytest.mark.parametrize(
    ("code", "message"),
    [("-2010", "Duplicate order sent."), ("-4116", "ClientOrderId is duplicated."), ("-1100", "Duplicate order sent.")],
)
def test_a_duplicate_is_looked_up_and_adopted(code, message):
    answer = classify(ccxt.InvalidOrder("x"), code=code, message=message, status=400)
    assert isinstance(answer, Ambiguous)
    assert answer.exists
    assert answer.refusal is None


@pytest.mark.parametrize(
    ("kind", "code", "message"),
    [
        (ccxt.InvalidOrder, "-1013", "Filter failure: LOT_SIZE"),
        (ccxt.OrderImmediatelyFillable, "-2010", "Order would immediately match and take."),
        (ccxt.OperationRejected, "-4131", "The counterparty's best price does not meet the PERCENT_PRICE filter limit."),
        (ccxt.ExchangeError, "-2022", "ReduceOnly Order is rejected."),
        (ccxt.MarketClosed, "-1013", "Market is closed."),
    ],
)
def test_what_also_befalls_orders_that_live_is_a_refusal_once_confirmed(kind, code, message):
    answer = classify(kind("x"), code=code, message=message, status=400)
    assert isinstance(answer, Ambiguous)
    assert answer.refusal == Rejected(code=code, message=message)


@pytest.mark.parametrize("kind", [ccxt.ArgumentsRequired, ccxt.NotSupported])
def test_what_the_client_itself_cannot_send_never_left(kind):
    answer = classify(kind("x"))
    assert isinstance(answer, Rejected)
    assert answer.code == kind.__name__
    assert isinstance(classify(kind("x"), status=200), Ambiguous)


def _tables(tree: dict[str, Any]) -> Iterator[tuple[str, type[BaseException]]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _tables(value)
        else:
            yield key, value


NEVER = {"-1000", "-1001", "-1003", "-1004", "-1006", "-1007", "-1008", "-1010", "-1015", "-1016", "-1021"}


@pytest.mark.parametrize("name", ["binance", "binanceusdm", "binancecoinm"])
def test_every_code_of_every_market_table_is_judged_by_the_same_rule(name):
    whitelist = (ccxt.InsufficientFunds, ccxt.BadSymbol, ccxt.BadRequest, ccxt.PermissionDenied, ccxt.AuthenticationError)
    rows = {(code, kind) for code, kind in _tables(getattr(ccxt, name)().exceptions) if code.lstrip("-").isdigit()}
    assert len(rows) > 400
    for code, kind in rows:
        for status in (400, 401, 429, 418, 500, 503):
            answer = classify(kind("x"), code=code, message="words", status=status)
            if status in (429, 418, 500, 503) or code in NEVER:
                definite = False
            else:
                definite = issubclass(kind, whitelist) or code in {"-2015", "-2014", "-1022", "-1002", "-2008"}
                definite = (definite or (kind is ccxt.ExchangeError and code in {"-2018", "-2019"})) and code != "-4116"
            assert isinstance(answer, Rejected) == definite, (code, kind, status, answer)
            if isinstance(answer, Ambiguous) and answer.refusal is not None:
                assert issubclass(kind, (ccxt.InvalidOrder, ccxt.OperationRejected)) or kind is ccxt.ExchangeError or code == "-1021"
                assert status in (400, 401)
            if code == "-4116":
                assert isinstance(answer, Ambiguous)
                assert answer.refusal is None


def test_no_exception_at_all_is_no_answer():
    assert isinstance(judge((), code="", status=200), Ambiguous)


# ── absence ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────────

RULE = AbsenceRule(answers=3, seconds=30.0, receive_window_seconds=10.0)
PROVEN = Evidence(sent_at=0).not_found(5 * SECOND).not_found(20 * SECOND).not_found(35 * SECOND).not_listed(36 * SECOND)


def test_absence_is_proven_by_all_of_it():
    assert still_missing(PROVEN, RULE) == ""
    assert still_missing(PROVEN, RULE) == ""


@pytest.mark.parametrize(
    ("evidence", "rule", "offset", "lacks"),
    [
        (Evidence(sent_at=0), RULE, 0, "0 of 3 answers"),
        (Evidence(sent_at=0).not_found(SECOND).not_found(60 * SECOND).not_listed(61 * SECOND), RULE, 0, "2 of 3 answers"),
        (
            Evidence(sent_at=0).not_found(20 * SECOND).not_found(30 * SECOND).not_found(49 * SECOND).not_listed(50 * SECOND),
            RULE,
            0,
            "answers over 29.0 of 30 s",
        ),
        (PROVEN, AbsenceRule(answers=3, seconds=30.0, receive_window_seconds=60.0), 0, "may still arrive"),
        (PROVEN.not_found(37 * SECOND), RULE, -26 * SECOND, "were not read since"),  # read at the very moment it ended
        (PROVEN, RULE, -25 * SECOND, "may still arrive"),  # the venue's clock was set back: the stamp is valid so much later
        (PROVEN, AbsenceRule(answers=3, seconds=30.0, receive_window_seconds=None), 0, "valid for ever"),
        (PROVEN.seen(), RULE, 0, "has shown"),
        (Evidence(sent_at=0).not_found(0).not_found(20 * SECOND).not_found(35 * SECOND), RULE, 0, "were not read since"),
        (Evidence(sent_at=0).not_found(0).not_found(20 * SECOND).not_found(35 * SECOND).not_listed(9 * SECOND), RULE, 0, "not read since"),
    ],
)
def test_each_missing_part_keeps_the_order_unknown(evidence, rule, offset, lacks):
    assert lacks in still_missing(evidence, rule, clock_moved=offset)
    assert still_missing(evidence, rule, clock_moved=offset)


def test_a_clock_set_back_delays_the_proof_and_one_set_forward_hastens_nothing():
    for moved in range(0, 60 * SECOND, SECOND):
        assert (still_missing(PROVEN, RULE, clock_moved=-moved) == "") == (10 * SECOND + moved < 35 * SECOND)
        assert still_missing(PROVEN, RULE, clock_moved=moved) == ""
    early = Evidence(sent_at=0).not_found(0).not_found(SECOND).not_found(9 * SECOND).not_listed(9 * SECOND)
    quick = AbsenceRule(answers=3, seconds=1.0, receive_window_seconds=10.0)
    assert still_missing(early, quick, clock_moved=3600 * SECOND) == "the request may still arrive"


def test_no_request_is_under_way_for_an_hour():
    rule = AbsenceRule(answers=3, seconds=30.0, receive_window_seconds=10.0, longest_flight_seconds=34.0)
    assert still_missing(PROVEN, rule, clock_moved=-3600 * SECOND) == ""
    shorter = AbsenceRule(answers=3, seconds=30.0, receive_window_seconds=60.0, longest_flight_seconds=1.0)
    assert still_missing(PROVEN, shorter)  # its validity counts in any case
