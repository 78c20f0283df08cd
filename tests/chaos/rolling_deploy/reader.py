"""A reader of one release: `python -m tests.chaos.rolling_deploy.reader leaves|rows|work`, which prints JSON.

`leaves` prints the last migration of each app of the package, `rows` the activities with their results, log lines and
steps. `work` enqueues an activity of each kind, runs a pool until they have ended, and prints all activities.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import django


def leaves() -> dict[str, str]:
    """Return the last migration of each app of the package, by the app's label."""
    from django.db import connection
    from django.db.migrations.loader import MigrationLoader

    graph = MigrationLoader(connection).graph
    return {app: name for app, name in graph.leaf_nodes() if app.startswith("agentexec")}


def rows() -> dict[str, Any]:
    """Return every activity by its id: status, result, error, log lines and steps, as the models read them."""
    from django.db.models import Count

    from django_agentexec.models import Activity, StepRun

    steps = dict(StepRun.objects.values_list("activity_id").annotate(Count("pk")))
    found = {}
    for row in Activity.objects.prefetch_related("logs"):
        lines = [[line.message, line.status, line.percentage] for line in row.logs.order_by("id")]
        found[str(row.agent_id)] = [
            *(row.agent_type, row.status, row.result, row.error, row.context, row.fence, row.retries),
            *(str(row.parent_id), lines, steps.get(row.pk, 0)),
        ]
    return found


def enqueue(prefix: str) -> None:
    """Enqueue an activity of each kind."""
    from tests.chaos.rolling_deploy.agents import Family, Job, Relay, family, tick

    tick.enqueue(Job(name=f"{prefix}-tick"))
    family.enqueue(Family(name=f"{prefix}-family"))
    Relay.task.enqueue(Job(name=f"{prefix}-relay"))


def work() -> dict[str, Any]:
    """Enqueue activities, run a pool until all have ended, and return every activity by its id."""
    from django.core.management import call_command

    enqueue("afterwards")
    with open(os.devnull, "w") as output:
        call_command("runagentworkers", burst=True, workers=1, stdout=output)
    return rows()


def main() -> None:
    """Print the answer to the question in the argument."""
    django.setup()
    print(json.dumps({"leaves": leaves, "rows": rows, "work": work}[sys.argv[1]]()))


if __name__ == "__main__":
    main()
