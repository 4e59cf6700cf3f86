"""How agents take texts from a stream: what they leave unread, what counts how much, and how long they wait for each other."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from cryptoalpha.core.config import Count, Fraction, NonNegative, Positive, PositiveFraction, Section


class SieveConfig(Section):
    """[signals.agents.sieve] Which texts count, and how much. With everything at its off value a stream counts as a stored history does."""

    relevance_threshold: Fraction = 0.3
    """Relevance (0–1) below which a text is left unread; 0 reads everything."""

    near_duplicate: PositiveFraction = 0.7
    """Share (0–1) of the word triples of two texts, among those in either, from which the later one is a repeat and does not count; 1 lets
    everything but equal texts through, and those are told apart by whoever counts them. A retweet with a word before it has .8."""

    repeat_days: Positive = 7.0
    """Days within which a repeat is looked for."""

    remembered: Annotated[int, Field(ge=16, le=1 << 20)] = 1 << 15
    """Texts kept to find repeats among (16 to a million); the oldest leaves first. Each takes 900 bytes."""

    posts_per_author: Annotated[int, Field(ge=0)] = 3
    """Texts of one author that count within `author_hours`, the first ones; 0 counts all. What he writes beyond them does nothing at all.
    Texts without an author are not capped."""

    author_hours: Positive = 24.0
    """Hours over which an author's texts are counted."""

    full_reach: NonNegative = 10_000.0
    """Readers of an author whose text weighs 1; fewer weigh less, by the logarithm; 0 weighs all alike. Unknown reach weighs 1 where nobody
    says who wrote, as in a newspaper; a known author of unknown reach weighs `least_weight`."""

    least_weight: PositiveFraction = 0.1
    """Weight (0–1) of a text whose author nobody follows, and what spam is left with."""

    languages: tuple[str, ...] = ("en",)
    """Languages (ISO 639-1) that are read, because the word list and the encoders know no other. A post that does not say passes. Empty:
    all."""

    on_history: bool = False
    """Whether stored texts pass the sieve, too, where a whole history is read at once: backtest, audit, training. Stored texts say nothing
    of author, reach and language; relevance and repeats are judged. What was stored live has passed it and keeps its weight."""


OFF = SieveConfig(relevance_threshold=0.0, near_duplicate=1.0, posts_per_author=0, full_reach=0.0, languages=())
"""Every text counts as it would in a stored history."""


class AgentsConfig(Section):
    """[signals.agents] Signals from live streams."""

    model: str = ""
    """Folder of trained value and policy networks (`cryptoalpha train agents`); empty: confidence and action are those of the sources."""

    sieve: SieveConfig = SieveConfig()
    """Which texts count."""

    between_bars: bool = False
    """Whether the text agent also says between bars how texts sound (source `text_pulse`): at once, and compared with nothing."""

    batch: Count = 256
    """Texts read at once at most; a full batch is read at once."""

    batch_seconds: Positive = 0.05
    """Seconds after which what is there is read."""

    reorder_seconds: NonNegative = 0.02
    """Seconds a text waits for earlier ones that travel more slowly. A text that comes later than that counts too, after those."""

    settle_seconds: NonNegative = 1.0
    """Seconds after the end of a bar before its signals are formed: texts known before it may still be on their way."""

    grace_seconds: Positive = 20.0
    """Seconds after the end of a bar at which its signals are formed without the instruments that did not bring theirs, if none of their
    older bars was read for as long: after an outage the clock is ahead of what is read."""

    workers: Annotated[int, Field(ge=0)] = 0
    """Processes that read texts; 0 reads in this one."""

    text_days: Positive = 30.0
    """Days of texts kept beyond what the sources look back to in bars: windows over texts, and days over which repeats are told."""

    most_waiting: Count = 50_000
    """Texts that may wait to be read; the oldest beyond it are dropped and counted."""

    @model_validator(mode="after")
    def _grace_is_longer(self) -> Self:
        if self.grace_seconds < self.settle_seconds:
            raise ValueError("grace_seconds must not be shorter than settle_seconds")
        return self
