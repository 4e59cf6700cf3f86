"""The command line's entry: `cryptoalpha VERB`. Parses, calls one verb, returns its exit code.

`--version` answers before anything heavy, Typer included, is imported; `--help` loads Typer but no library that a verb works with.
"""

from __future__ import annotations

import sys


def main(arguments: list[str] | None = None) -> int:
    """Run the command line (`sys.argv` by default) and return the exit code."""
    given = sys.argv[1:] if arguments is None else arguments
    if given == ["--version"]:
        from cryptoalpha import __version__

        sys.stdout.write(f"cryptoalpha {__version__}\n")
        return 0
    from cryptoalpha.app.frame import run
    from cryptoalpha.app.verbs import build

    return run(build(), given)


if __name__ == "__main__":
    sys.exit(main())
