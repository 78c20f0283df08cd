"""`python -m tests.chaos`: one run, configured by the environment; exits with 1 if there are findings.

    CHAOS_FORM=long CHAOS_DATABASE=postgresql CHAOS_SEED=7 CHAOS_ACTIVITIES=50000 CHAOS_REPORT=report.json

`CHAOS_FORM` is `short` or `long`, `CHAOS_DATABASE` `sqlite` or `postgresql`. Anything that `faults.Form` has may be
set: `CHAOS_WORKER_KILLS=200`. The seed replays the draws, not the timing of the machine. The report is JSON; beside it
a Markdown table is written.
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from tests.chaos.faults import Form

SHORT = Form("short", "sqlite", activities=500, worker_kills=1, seconds=35.0, deadline=90.0)
LONG = Form(
    "long",
    "postgresql",
    activities=50_000,
    worker_kills=100,
    valkey_kills=10,
    rate=35.0,
    specials=2_000,
    longest_cut=60.0,
    pauses=(0.5, 4.0),
    deadline=300.0,
)
FORMS = {"short": SHORT, "long": LONG}


def form_of(environment: dict[str, str]) -> Form:
    """Return the form of the run from the environment."""
    form = FORMS[environment.get("CHAOS_FORM", "long")]
    values: dict[str, Any] = {}
    for known in fields(Form):
        text = environment.get(f"CHAOS_{known.name.upper()}")
        if text is not None and known.type in ("int", "float", "str"):
            values[known.name] = {"int": int, "float": float, "str": str}[known.type](text)
    return replace(form, **values)


def main() -> int:
    """Run, print the report, and write it to a file if one is configured."""
    from tests.chaos.driver import run
    from tests.chaos.report import as_markdown

    form = form_of(dict(os.environ))
    seed = int(os.environ.get("CHAOS_SEED") or time.time_ns() % 1_000_000)
    print(f"CHAOS_SEED={seed} CHAOS_FORM={form.name} CHAOS_DATABASE={form.database}", flush=True)
    report = run(form, seed)
    text = as_markdown(report)
    print(text)
    if path := os.environ.get("CHAOS_REPORT"):
        Path(path).write_text(report.as_json() + "\n")
        Path(path).with_suffix(".md").write_text(text + "\n")
    return 0 if report.is_clean else 1


if __name__ == "__main__":
    sys.exit(main())
