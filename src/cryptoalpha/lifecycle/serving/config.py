"""[lifecycle.serving] How models are asked over HTTP."""

from __future__ import annotations

from cryptoalpha.core.config import Count, NonNegative, Positive, Section


class ServingConfig(Section):
    """[lifecycle.serving] How models are asked over HTTP."""

    host: str = "127.0.0.1"
    """Address to listen on. This machine alone by default; a container listens on 0.0.0.0 behind its network policy."""

    port: Count = 8100
    """Port to listen on."""

    queue: Count = 16
    """Requests that may wait for one model; the next one is told to come back (503). At 50 ms each the last of 16 waits .8 seconds: more
    would be answered after anybody cares."""

    deadline_seconds: Positive = 2.0
    """Seconds after which a request is answered with 504. A client may ask for less, never for more. A canary has half of it: the
    other half is stable's, who then answers for it."""

    body_megabytes: Positive = 16.0
    """Largest body of a request, millions of bytes. Eight assets of 2,100 bars are 0.8 in binary form and about 2 as JSON."""

    clock_tolerance_seconds: NonNegative = 2.0
    """Seconds by which a client's clock may be ahead of ours. A bar that closes later than that is from the future and refused."""

    memory_megabytes: Positive = 2048.0
    """Memory of one model's process, millions of bytes, above which a fresh process takes its place between two requests."""

    start_seconds: Positive = 180.0
    """Seconds a model may take to load and to answer for the first time."""

    stuck_seconds: Positive = 30.0
    """Seconds of one computation after which a model's process counts as stuck and is replaced."""

    drain_seconds: NonNegative = 5.0
    """Seconds between being told to end and ending, in which requests are still answered but readiness is denied, so that whoever
    distributes traffic notices."""

    grace_seconds: Positive = 10.0
    """Seconds that requests under way get to finish after that."""
