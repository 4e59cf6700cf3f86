"""How often have these data been asked? Every backtest counts, because the best of many worthless strategies looks good.

The ledger remembers each distinct configuration tried on each data set and period, however it ended. The count deflates the Sharpe ratio
of the next result; whatever shares a bar with the period counts, for moving its ends by a day does not make data new. Looks taken elsewhere
are added with `--trials`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from cryptoalpha.store.sqlite import Schema, open_database, sqlite_errors

SCHEMA = Schema(
    name="trial ledger",
    application_id=0x63617472,
    version=2,
    statements=(
        "CREATE TABLE trial (data TEXT, since INTEGER, until INTEGER, config TEXT, PRIMARY KEY (data, config, since, until)) WITHOUT ROWID",
    ),
)


def count_trial(home: Path, identity: Mapping[str, str]) -> int:
    """Enter a trial and return how many distinct configurations were tried on the same data in periods that overlap, this one included.

    Args:
        identity: the header of the run's journal (`backtest.run_identity`).

    Raises:
        StoreError: if the ledger cannot be written.
    """
    path = home / "trials.sqlite"
    data, since, until = identity["data"], int(identity["since"]), int(identity["until"])
    config = " ".join(identity[name] for name in ("config", "interval", "instruments", "version"))
    connection = open_database(path, SCHEMA, durable=True)
    try:
        with sqlite_errors(path, SCHEMA.name):
            connection.execute("INSERT OR IGNORE INTO trial VALUES (?, ?, ?, ?)", (data, since, until, config))
            found = connection.execute(
                "SELECT count(DISTINCT config) FROM trial WHERE data = ? AND since < ? AND until > ?", (data, until, since)
            ).fetchone()
    finally:
        connection.close()
    return int(found[0])
