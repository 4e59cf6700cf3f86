"""Every error the house raises on purpose, and the exit code each one ends a command with.

    CryptoAlphaError            1  unexpected
    ├── ModelError              1  a model answered what cannot be used: NaN, a wrong shape, no legal action
    ├── WorkerDiedError         1  a worker process ended without an answer
    │   └── WorldLostError         another process of one training ended or does not answer
    ├── ConfigError             2  usage or configuration
    ├── DataError               3  data missing, stale or malformed
    │   ├── DataMissingError
    │   ├── BarGateError           a bar that no honest market could have printed
    │   └── StoreError             the store is locked, unwritable or corrupt
    │       ├── StoreLockedError
    │       └── JournalDivergenceError   a replay did not reproduce the journal
    ├── RiskHaltError           4  a risk limit stands, or the kill switch is set
    ├── VenueError              5  exchange, authentication or network
    └── ValidationFailedError   6  a promise about honesty was broken
        ├── LookAheadError         a value was used before it was known
        └── AccountingError        cash or positions do not add up

A message says what was wrong, where, what was expected, and what to do.
"""

from __future__ import annotations


class CryptoAlphaError(Exception):
    """Base of all deliberate errors. `exit_code` is what a command ends with; `hint` says what to do next."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint
        if hint:
            self.add_note(f"→ {hint}")  # a traceback shows it too: not everybody comes through the command line


class ConfigError(CryptoAlphaError):
    """A setting, an argument or a shape is wrong."""

    exit_code = 2


class ModelError(CryptoAlphaError):
    """A model answered what cannot be used: NaN, a wrong shape, no legal action. Nothing is decided on it."""


class WorkerDiedError(CryptoAlphaError):
    """A worker process ended without an answer."""


class WorldLostError(WorkerDiedError):
    """Another process of the same training has ended or does not answer."""


class DataError(CryptoAlphaError):
    """Data is missing, stale or malformed."""

    exit_code = 3


class DataMissingError(DataError):
    """What was asked for is not in the store or the directory."""


class BarGateError(DataError):
    """The bar gate refused data under a strict policy."""


class StoreError(DataError):
    """The store cannot be read or written."""


class StoreLockedError(StoreError):
    """Another process holds the store."""


class JournalDivergenceError(StoreError):
    """Replaying a run did not reproduce what its journal says."""


class RiskHaltError(CryptoAlphaError):
    """A risk limit stands or the kill switch is set; nothing is traded."""

    exit_code = 4


class VenueError(CryptoAlphaError):
    """The exchange, its authentication or the network failed."""

    exit_code = 5


class ValidationFailedError(CryptoAlphaError):
    """A check of honesty failed: look-ahead, leak, promotion gate."""

    exit_code = 6


class LookAheadError(ValidationFailedError):
    """A value was used before the moment it became known."""


class AccountingError(ValidationFailedError):
    """Cash, positions or fills do not add up; the run stops rather than truncating."""
