"""`python -m tests.chaos.rolling_deploy`: one rolling deploy; exits with 1 if there are findings, 2 without the commit.

    python -m tests.chaos.rolling_deploy --database postgresql --activities 1500 --kills 10 --seed 7

The old release is the package of a commit of this repository's history. The seed replays the draws, not the timing.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.chaos.rolling_deploy.release import BEFORE, MissingCommit, check_out, current


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.rolling_deploy", description=__doc__.split(":")[1])
    parser.add_argument("--from", dest="commit", default=BEFORE, help="the commit of the old release")
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="postgresql")
    parser.add_argument("--activities", type=int, default=1_500, help="minimum number that producers enqueue")
    parser.add_argument("--kills", type=int, default=10, help="number of workers that are killed, of both releases")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000)
    parser.add_argument("--pools", type=int, default=2, help="pools, and producers, of each release")
    parser.add_argument("--rate", type=float, default=10.0, help="activities per second of one producer")
    parser.add_argument("--keep", action="store_true", help="keep the logs, also without findings")
    parser.add_argument("--report", type=Path, help="file for the report as JSON")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, and print the figures and the findings."""
    options = parse(arguments)
    folder = Path(tempfile.mkdtemp(prefix="agentexec-rolling-"))
    try:
        old, new = check_out(options.commit, folder / "old"), current()
    except MissingCommit as error:
        shutil.rmtree(folder)
        print(f"rolling_deploy: {error}", file=sys.stderr)
        return 2
    from tests.chaos.rolling_deploy.report import as_text
    from tests.chaos.rolling_deploy.trial import Plan, Trial

    plan = Plan(
        options.database,
        options.activities,
        options.kills,
        options.seed,
        options.commit,
        pools=options.pools,
        rate=options.rate,
    )
    print(f"--from {plan.commit} --database {plan.database} --seed {plan.seed}", flush=True)
    result = Trial(plan, folder, old, new).go()
    if result.is_clean and not options.keep:
        shutil.rmtree(folder, ignore_errors=True)
        result.folder = ""
    print(as_text(result))
    if options.report:
        options.report.write_text(result.as_json() + "\n")
    return 0 if result.is_clean else 1


if __name__ == "__main__":
    sys.exit(main())
