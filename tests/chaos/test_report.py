"""The summary of a run in the documentation is generated only from its report."""

from __future__ import annotations

from tests.chaos.report import as_summary

REPORT = {
    "form": {"name": "long", "database": "postgresql"},
    "seed": 7,
    "versions": {"python": "3.11"},
    "seconds": {"faults": 100.4, "healing": 3.2},
    "activities": {"all": 1_500, "plain complete": 900, "keyed complete": 500, "poison error": 100},
    "observed": {"start": 2_000, "undone": 12},
    "faults": {"kill_worker": 20, "flush": 3},
    "findings": {"nothing is lost": [], "a key keeps its order": ["one", "two"]},
}


def test_a_summary_has_the_figures_and_every_verdict() -> None:
    text = as_summary(REPORT, "2026-01-02")

    assert "of 2026-01-02: seed 7, postgresql; python 3.11." in text
    assert "1,500 activities (1,400 complete, 100 error, 0 canceled), 2,000 starts" in text
    assert "23 faults in 100 s (3 x flush, 20 x kill worker)" in text
    assert "| nothing is lost | none |" in text
    assert "| a key keeps its order | 2 |" in text
