"""Measure one figure of this project: `python -m benchmarks.ours FIGURE`, with the servers in the environment.

Prints the figures as JSON. `benchmarks.__main__` calls this; `migrate` instead of a figure prepares a new database.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("figure")
    figure = parser.parse_args().figure
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # also ends the pool
    os.environ["DJANGO_SETTINGS_MODULE"] = "benchmarks.settings"
    import django

    django.setup()
    from django.core.management import call_command

    if figure == "migrate":
        call_command("migrate", verbosity=0)
        return
    from benchmarks.pools import forget_everything
    from benchmarks.scenarios import SCENARIOS

    forget_everything()
    print(json.dumps(SCENARIOS[figure]()))


if __name__ == "__main__":
    main()
