"""How often have these data been asked? Every backtest counts, because the best of many worthless strategies looks good.

The ledger remembers each distinct configuration tried on each data set and period, however it ended. The count deflates the Sharpe ratio
of the next result. Looks taken elsewhere are added with `--trials`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from cryptoalpha.store.sqlite import Schema, open_database, sqlite_errors

SCHEMA = Schema(
    name="trial ledger",
    application_id=0x63617472,
    version=1,
    statements=("CREATE TABLE trial (data TEXT, period TEXT, config TEXT, PRIMARY KEY (data, period, config)) WITHOUT ROWID",),
)


def count_trial(home: Path, identity: Mapping[str, str]) -> int:
    """Enter a trial and return how many distinct ones there are now on the same data and period, this one included.

    Args:
        identity: the header of the run's journal (`backtest.run_identity`).

    Raises:
        StoreError: if the ledger cannot be written.
    """
    path = home / "trials.sqlite"
    period = f"{identity['since']}–{identity['until']}"
    connection = open_database(path, SCHEMA, durable=True)
    try:
        with sqlite_errors(path, SCHEMA.name):
            config = f"{identity['config']} {identity['instruments']} {identity['version']}"
            connection.execute("INSERT OR IGNORE INTO trial VALUES (?, ?, ?)", (identity["data"], period, config))
            connection.commit()
            found = connection.execute("SELECT count(*) FROM trial WHERE data = ? AND period = ?", (identity["data"], period)).fetchone()
    finally:
        connection.close()
    return int(found[0])
