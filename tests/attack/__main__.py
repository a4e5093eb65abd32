"""`python -m tests.attack [--NAME COUNT ...]`, from the repository's root: every attack, and a table of what held.

Exit code 1 where anything did not hold. Without options all attacks run with their full counts; with options only
those that are named.
"""

from __future__ import annotations

import argparse
import sys
import time

from tests.attack.attacks import ATTACKS
from tests.attack.outcome import Row, table


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.attack", description=__doc__)
    for name, (_, count) in ATTACKS.items():
        parser.add_argument(f"--{name}", type=int, metavar="COUNT", help=f"cases of {name}; all attacks: {count}")
    asked = {name: count for name, count in vars(parser.parse_args()).items() if count is not None}
    rows: list[Row] = []
    for name, (attack, full) in ATTACKS.items():
        count = asked.get(name, 0 if asked else full)
        if count:
            start = time.monotonic()
            rows += attack(count)
            print(f"{name}: {count} cases, {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)
    print(table(rows))
    return int(any(row.held < row.cases for row in rows))


if __name__ == "__main__":
    sys.exit(main())
