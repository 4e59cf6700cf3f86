"""What an alert says, wherever it comes from: Alertmanager's webhook, or a board in the process itself.

A notice names the alert, its labels, whether it fires or is over, since when, and a fingerprint: one alert with the same labels has the
same fingerprint each time. The webhook's body is decoded strictly where we rely on it and leniently elsewhere, for its format grows.

Source: prometheus.io, "Alertmanager configuration", webhook payload, version 4.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Literal

import msgspec

from cryptoalpha.core.errors import DataError
from cryptoalpha.core.time import from_datetime
from cryptoalpha.monitoring.alerts import AlertChange
from cryptoalpha.monitoring.metrics import METRICS

LARGEST_BODY = 1_048_576
"""Bytes of a webhook's body: a few hundred alerts take a tenth of it."""
MOST_ALERTS = 1_000


@dataclass(frozen=True)
class Notice:
    """One alert, now. `begun_at` is UTC ns, the same for as long as it stands."""

    alert: str
    labels: Mapping[str, str]
    state: Literal["firing", "resolved"]
    begun_at: int
    fingerprint: str
    summary: str = ""


_Text = Annotated[str, msgspec.Meta(max_length=10_000)]
_Mark = Annotated[str, msgspec.Meta(min_length=1, max_length=64, pattern=r"^[0-9A-Za-z_-]+$")]


class _Alert(msgspec.Struct, frozen=True, rename="camel"):
    status: Literal["firing", "resolved"]
    labels: dict[_Text, _Text]
    starts_at: Annotated[datetime, msgspec.Meta(tz=True)]
    fingerprint: _Mark
    annotations: dict[_Text, _Text] = {}


class _Webhook(msgspec.Struct, frozen=True):
    version: Literal["4"]
    alerts: Annotated[list[_Alert], msgspec.Meta(max_length=MOST_ALERTS)]


def notices_of_webhook(body: bytes) -> tuple[Notice, ...]:
    """The alerts of one delivery.

    Raises:
        DataError: if it is not what Alertmanager sends.
    """
    if len(body) > LARGEST_BODY:
        raise DataError(f"a webhook of {len(body)} bytes", hint=f"at most {LARGEST_BODY}: set max_alerts in Alertmanager's receiver")
    try:
        found = msgspec.json.decode(body, type=_Webhook)
    except msgspec.DecodeError as error:
        raise DataError(f"this is not a webhook of Alertmanager (version 4): {error}") from None
    return tuple(_notice(each) for each in found.alerts)


def _notice(alert: _Alert) -> Notice:
    name = alert.labels.get("alertname", "")
    if not name:
        raise DataError("an alert of the webhook has no label alertname")
    labels = {key: value for key, value in alert.labels.items() if key != "alertname"}
    return Notice(name, labels, alert.status, from_datetime(alert.starts_at), alert.fingerprint, alert.annotations.get("summary", ""))


def notice_of_change(change: AlertChange, begun_at: int | None = None) -> Notice:
    """The same of an alert that was judged in this process.

    Args:
        begun_at: when it began to fire; None takes the change's own time, which is that of an alert that fires.
    """
    names = METRICS[change.rule.condition.metric].labels
    labels = dict(zip(names, change.labels, strict=True))
    mark = hashlib.sha256(msgspec.json.encode([change.rule.name, sorted(labels.items())])).hexdigest()[:16]
    return Notice(change.rule.name, labels, change.state, change.at if begun_at is None else begun_at, mark, change.text)
