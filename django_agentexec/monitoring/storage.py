"""Probes of the database: rows can be read, and can be written. Nothing that they write remains."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from django.db import DatabaseError, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from ..activity.store import database
from ..conf import conf
from ..models import Activity, Status
from .probes import Outcome

MIN_FREE_BYTES = 16 << 20  # below, SQLite may still find room for one row in its files, but not for the next runs
SQLITE_PADDING = 64 << 10  # characters of the probe's row, for which SQLite needs pages; PostgreSQL would keep them
PROBE_TASK = "agentexec.health"  # `agent_type` of the row that never becomes visible
# Sorts more than fits into the least memory for sorting, so that the server has to write into its data folder.
_SPILL = "SELECT count(*) FROM (SELECT md5(n::text) AS line FROM generate_series(1, 3000) n ORDER BY line) AS lines"
_LIMIT_OF_TEMPORARY_FILES = "53400"  # SQLSTATE of a server that forbids temporary files; says nothing of its disk


def can_read_and_write() -> Outcome:
    """Read an activity; insert a row, delete it, and commit, so that the row reaches the disk but no reader."""
    using = database()
    connection = connections[using]
    if problem := _disk_problem(connection):
        return Outcome(False, problem)
    with bounded(using):
        Activity.objects.using(using).exists()
        if connection.vendor == "postgresql":
            _spill_to_disk(using)
    with bounded(using), transaction.atomic(using=using):
        padding = "-" * SQLITE_PADDING if connection.vendor == "sqlite" else ""
        row = Activity(agent_type=PROBE_TASK, status=Status.CANCELED, traceback=padding)
        rows = Activity.objects.using(using)
        rows.bulk_create([row])  # sends no signals
        rows.filter(pk=row.pk)._raw_delete(using)  # without looking for rows that refer to it: there are none
    return Outcome(True, "reads and writes")


@contextmanager
def bounded(using: str) -> Iterator[None]:
    """Have the server itself give up what takes longer than `AGENTEXEC["HEALTH_TIMEOUT"]`, where it can.

    Otherwise a probe that waits for a locked table would go on waiting after the health check has answered.
    """
    connection = connections[using]
    milliseconds = int(conf.HEALTH_TIMEOUT * 1000)
    if connection.vendor == "postgresql":
        with transaction.atomic(using=using), connection.cursor() as cursor:
            cursor.execute("SELECT set_config('statement_timeout', %s, true)", [str(milliseconds)])
            yield
    elif connection.vendor == "sqlite" and not connection.in_atomic_block:
        with connection.cursor() as cursor:  # the connection is the probe's own, and closed after it
            cursor.execute(f"PRAGMA busy_timeout = {milliseconds:d}")
        yield
    else:
        yield


def _spill_to_disk(using: str) -> None:
    """Raise Django's `DatabaseError` if PostgreSQL has no room for a temporary file beside its data.

    A small row may fit into a page that exists, and so proves nothing about a full disk.
    """
    try:
        with transaction.atomic(using=using), connections[using].cursor() as cursor:
            cursor.execute("SELECT set_config('work_mem', '64kB', true)")
            cursor.execute(_SPILL)
    except DatabaseError as error:
        if getattr(error.__cause__, "sqlstate", "") != _LIMIT_OF_TEMPORARY_FILES:
            raise


def _disk_problem(connection: BaseDatabaseWrapper) -> str:
    """Return why SQLite's disk is too full for more rows, or ""."""
    file = Path(str(connection.settings_dict["NAME"]))
    if connection.vendor != "sqlite" or not file.is_file():
        return ""
    free = shutil.disk_usage(file.parent).free
    if free >= MIN_FREE_BYTES:
        return ""
    return f"the disk of {file} is full: {free / 2**20:.1f} MiB are free, {MIN_FREE_BYTES >> 20} are needed"
