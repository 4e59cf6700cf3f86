"""`python -m cryptoalpha.app.chaos`: many schedules (`make chaos`), or one again (`--seed N`).

Exit code 6 where a promise did not hold, or a broken order path (`--break`) was not caught.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):  # before numpy: what is forked must have no threads
    os.environ.setdefault(_variable, "1")


def main() -> int:
    """Read the command line, run, print."""
    parser = argparse.ArgumentParser(prog="python -m cryptoalpha.app.chaos", description=__doc__)
    parser.add_argument("--schedules", type=int, default=320, help="how many, seeds 0 and up")
    parser.add_argument("--first", type=int, default=0, help="seed of the first")
    parser.add_argument("--seed", type=int, default=None, help="this one alone, and keep what it leaves")
    parser.add_argument("--schedule", type=Path, default=None, help="a schedule written down as JSON (a violation keeps its own)")
    parser.add_argument("--market", choices=("spot", "futures"), default=None, help="else both")
    parser.add_argument("--workers", type=int, default=2, help="schedules at a time")
    parser.add_argument("--keep", type=Path, default=Path(".chaos"), help="folder of verdicts and of what violations leave")
    parser.add_argument("--label", default=None, help="name of the code that verdicts belong to [else its commit]")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--break", dest="mutant", default=None, help="break the order path like this, and see when it is caught")
    chosen = parser.parse_args()

    import msgspec

    from cryptoalpha.app.chaos.campaign import MARKETS, hunt, run_campaign, run_schedule, run_seed
    from cryptoalpha.app.chaos.schedule import Schedule
    from cryptoalpha.app.output import Output
    from cryptoalpha.app.summary import code_version

    out = Output("chaos", as_json=chosen.json)
    markets = MARKETS if chosen.market is None else (chosen.market,)
    if chosen.seed is not None or chosen.schedule is not None:
        if chosen.schedule is not None:
            outcome = run_schedule(msgspec.json.decode(chosen.schedule.read_bytes(), type=Schedule), chosen.keep, keep=True)
        else:
            outcome = run_seed(chosen.seed, chosen.keep, markets=markets, keep=True)
        print(json.dumps(outcome.as_dict(), indent=2))
        return 6 if outcome.violations else 0
    seeds = range(chosen.first, chosen.first + chosen.schedules)
    if chosen.mutant is not None:
        tried, caught = hunt(chosen.mutant, seeds, markets=markets)
        found = {"mutant": chosen.mutant, "tried": tried, "seed": caught and caught.seed, "violations": caught.violations if caught else []}
        out.bare(found, json.dumps(found, indent=2))
        return 0 if caught else 6
    campaign = run_campaign(
        chosen.keep,
        seeds,
        commit=f"{chosen.label or code_version()} {','.join(markets)}",
        workers=chosen.workers,
        say=out.note,
        markets=markets,
    )
    out.bare(campaign.as_dict(), campaign.lines())
    return 6 if campaign.violations else 0


if __name__ == "__main__":
    sys.exit(main())
