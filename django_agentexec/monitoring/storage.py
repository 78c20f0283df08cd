"""Probe of the database: rows can be read and written. The probe leaves no data."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from django.db import DatabaseError, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.utils.translation import gettext as _

from ..activity.store import database
from ..conf import conf
from ..models import Activity, Status
from .probes import Outcome

MIN_FREE_BYTES = 16 << 20  # below this, SQLite may have room for one row in its files, but not for the next activities
SQLITE_PADDING = 64 << 10  # characters of the probe's row, so that SQLite needs new pages; PostgreSQL would keep them
PROBE_TASK = "agentexec.health"  # `agent_type` of the row, which never becomes visible
# Sorts more data than the minimal sort memory, so that the server must write to its data folder.
_SPILL = "SELECT count(*) FROM (SELECT md5(n::text) AS line FROM generate_series(1, 3000) n ORDER BY line) AS lines"
_LIMIT_OF_TEMPORARY_FILES = "53400"  # SQLSTATE of a server that forbids temporary files; says nothing about its disk


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
        rows.filter(pk=row.pk)._raw_delete(using)  # without a search for related rows, which do not exist
    return Outcome(True, _("readable and writable"))


@contextmanager
def bounded(using: str) -> Iterator[None]:
    """Limit the server's own execution time to `AGENTEXEC["HEALTH_TIMEOUT"]` seconds, on servers that support it.

    Otherwise a probe that waits for a locked table would keep waiting after the health check has returned.
    """
    connection = connections[using]
    milliseconds = int(conf.HEALTH_TIMEOUT * 1000)
    if connection.vendor == "postgresql":
        with transaction.atomic(using=using), connection.cursor() as cursor:
            cursor.execute("SELECT set_config('statement_timeout', %s, true)", [str(milliseconds)])
            yield
    elif connection.vendor == "sqlite" and not connection.in_atomic_block:
        with connection.cursor() as cursor:  # the connection belongs to the probe and is closed after it
            cursor.execute(f"PRAGMA busy_timeout = {milliseconds:d}")
        yield
    else:
        yield


def _spill_to_disk(using: str) -> None:
    """Raise Django's `DatabaseError` if PostgreSQL has no room for a temporary file beside its data.

    A small row may fit into an existing page and therefore proves nothing about a full disk.
    """
    try:
        with transaction.atomic(using=using), connections[using].cursor() as cursor:
            cursor.execute("SELECT set_config('work_mem', '64kB', true)")
            cursor.execute(_SPILL)
    except DatabaseError as error:
        if getattr(error.__cause__, "sqlstate", "") != _LIMIT_OF_TEMPORARY_FILES:
            raise


def _disk_problem(connection: BaseDatabaseWrapper) -> str:
    """Return an error if SQLite's disk has no room for more rows, else ""."""
    file = Path(str(connection.settings_dict["NAME"]))
    if connection.vendor != "sqlite" or not file.is_file():
        return ""
    free = shutil.disk_usage(file.parent).free
    if free >= MIN_FREE_BYTES:
        return ""
    text = _("the disk of %(file)s is full: %(free).1f MiB are free, %(needed)d MiB are needed")
    return text % {"file": file, "free": free / 2**20, "needed": MIN_FREE_BYTES >> 20}
