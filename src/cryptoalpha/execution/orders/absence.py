"""The proof that an order never arrived. Until it is complete the order may live, and its instrument takes no entries.

Pure. "No such order" is evidence, no proof: a venue's books may lag, and a request that was held up may still arrive. An order is absent
when all of these hold:

- the venue has answered `absence_answers` questions for that one order with "no such order", over `absence_seconds` at least;
- the request cannot arrive any more: before the last answer its validity had passed by the venue's clock, even if that was set back
  meanwhile; or no request is under way as long as that;
- after that moment neither the open orders nor the trades since the intent have shown it;
- nothing ever showed it: no report, no trade, no answer that its id is taken.

A venue without a validity of requests proves nothing: the order stays unknown, a person decides.
"""

from __future__ import annotations

import msgspec

from cryptoalpha.core.time import SECOND

BOOKS_UNREAD = "open orders and trades were not read since the request ended"
"""What is missing when only the venue's books remain to be looked at."""


class AbsenceRule(msgspec.Struct, frozen=True, kw_only=True):
    """What a proof takes."""

    answers: int
    """Least number of "no such order"."""
    seconds: float
    """Least time between the first and the last of them."""
    receive_window_seconds: float | None
    """How long a signed request is valid; None where it never ends."""
    longest_flight_seconds: float = 600.0
    """How long a request may be under way at most. Its connection is closed after a timeout, and a network keeps no segment longer than two
    minutes (RFC 9293, maximum segment lifetime); the rest is for queues at the venue."""


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """What speaks for the absence of one order. Times are ns of one clock that is never set (`time.monotonic_ns`)."""

    sent_at: int
    """When the last request with its id left; where nobody knows (a restart), when this process began."""
    answers: int = 0
    first_at: int | None = None
    last_at: int | None = None
    listed_at: int | None = None
    """When open orders and trades were last read, both, without it; by the moment the question was asked."""
    is_seen: bool = False
    """Whether anything ever showed it."""

    def not_found(self, at: int) -> Evidence:
        """The venue, asked at `at` for this one order, knew none."""
        first = at if self.first_at is None else self.first_at
        return msgspec.structs.replace(self, answers=self.answers + 1, first_at=first, last_at=max(at, self.last_at or at))

    def not_listed(self, at: int) -> Evidence:
        """Open orders and trades since the intent, asked for at `at`, did not show it."""
        return msgspec.structs.replace(self, listed_at=max(at, self.listed_at or at))

    def seen(self) -> Evidence:
        """A report, a trade or a "duplicate" showed it: it is not absent, whatever is answered later."""
        return msgspec.structs.replace(self, is_seen=True)


def still_missing(evidence: Evidence, rule: AbsenceRule, *, clock_moved: int = 0) -> str:
    """What the proof still lacks, for people; empty where the order is absent.

    Args:
        clock_moved: by how much the venue's clock, less one that is never set, was moved since the request was stamped with it, ns. Set
            back, the stamp is valid so much later; set forward, it ended earlier, of which no use is made.
    """
    if evidence.is_seen:
        return "the venue has shown the order"
    if rule.receive_window_seconds is None:
        return "requests to this venue stay valid for ever"
    if evidence.answers < rule.answers or evidence.first_at is None or evidence.last_at is None:
        return f"{evidence.answers} of {rule.answers} answers"
    lasted = (evidence.last_at - evidence.first_at) / SECOND
    if lasted < rule.seconds:
        return f"answers over {lasted:.1f} of {rule.seconds:g} s"
    valid = round(rule.receive_window_seconds * SECOND)
    flight = max(valid, round(rule.longest_flight_seconds * SECOND))
    expired_at = evidence.sent_at + min(valid + max(0, -clock_moved), flight)
    if evidence.last_at <= expired_at:
        return "the request may still arrive"
    if evidence.listed_at is None or evidence.listed_at <= expired_at:
        return BOOKS_UNREAD
    return ""
