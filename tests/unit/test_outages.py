"""Which database errors are temporary: real errors of SQLite's driver, and of the others by their codes."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from django.db import (
    DatabaseError,
    DataError,
    IntegrityError,
    InterfaceError,
    InternalError,
    NotSupportedError,
    OperationalError,
    ProgrammingError,
)

from django_agentexec import ActivityLocked
from django_agentexec.outages import Outage, classify_outage, is_outage


def wrapped(kind: type[Exception], cause: Exception) -> Exception:
    """Return the error as Django raises it: from the driver's."""
    error = kind(*cause.args)
    error.__cause__ = cause
    return error


def failure_of(statement: Callable[[], object]) -> sqlite3.Error:
    with pytest.raises(sqlite3.Error) as caught:
        statement()
    return caught.value


def read_only(path: Path) -> sqlite3.Error:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE t (x UNIQUE)")
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as reader:
        return failure_of(lambda: reader.execute("INSERT INTO t VALUES (1)"))


def locked(path: Path) -> sqlite3.Error:
    with closing(sqlite3.connect(path)) as holder, closing(sqlite3.connect(path, timeout=0)) as other:
        holder.execute("BEGIN IMMEDIATE")
        return failure_of(lambda: other.execute("BEGIN IMMEDIATE"))


def full(path: Path) -> sqlite3.Error:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE t (x)")
        connection.execute("PRAGMA max_page_count = 3")
        return failure_of(lambda: connection.execute("INSERT INTO t VALUES (zeroblob(100000))"))


def no_folder(path: Path) -> sqlite3.Error:
    return failure_of(lambda: sqlite3.connect(path / "missing" / "db"))


def no_database(path: Path) -> sqlite3.Error:
    path.write_bytes(b"no database" * 100)
    with closing(sqlite3.connect(path)) as connection:
        return failure_of(lambda: connection.execute("SELECT * FROM t"))


def no_table(path: Path) -> sqlite3.Error:
    with closing(sqlite3.connect(path)) as connection:
        return failure_of(lambda: connection.execute("INSERT INTO t VALUES (1)"))


def no_column(path: Path) -> sqlite3.Error:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE t (x)")
        return failure_of(lambda: connection.execute("INSERT INTO t (y) VALUES (1)"))


@pytest.mark.parametrize(
    ("make", "outage"),
    [
        (read_only, Outage.UNAVAILABLE),
        (locked, Outage.LOCKED),
        (full, Outage.UNAVAILABLE),
        (no_folder, Outage.UNAVAILABLE),
        (no_database, Outage.UNAVAILABLE),
        (no_table, Outage.UNAVAILABLE),
        (no_column, Outage.UNAVAILABLE),
    ],
)
def test_outages_of_sqlite(make: Callable[[Path], sqlite3.Error], outage: Outage, tmp_path: Path) -> None:
    assert classify_outage(wrapped(OperationalError, make(tmp_path / "db"))) is outage


def test_faults_of_a_statement_on_sqlite_are_no_outages() -> None:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("CREATE TABLE t (x UNIQUE)")
        connection.execute("INSERT INTO t VALUES (1)")

        twice = failure_of(lambda: connection.execute("INSERT INTO t VALUES (1)"))
        syntax = failure_of(lambda: connection.execute("INSERT t"))
        too_large = failure_of(lambda: connection.execute("INSERT INTO t VALUES (zeroblob(2000000000))"))

    assert classify_outage(wrapped(IntegrityError, twice)) is None
    assert classify_outage(wrapped(OperationalError, syntax)) is None
    assert classify_outage(wrapped(DataError, too_large)) is None


@pytest.mark.parametrize(
    ("kind", "cause", "outage"),
    [
        (InternalError, psycopg.errors.ReadOnlySqlTransaction("x"), Outage.UNAVAILABLE),
        (InternalError, psycopg.errors.IdleInTransactionSessionTimeout("x"), Outage.UNAVAILABLE),
        (ProgrammingError, psycopg.errors.UndefinedColumn("x"), Outage.UNAVAILABLE),
        (ProgrammingError, psycopg.errors.UndefinedTable("x"), Outage.UNAVAILABLE),
        (ProgrammingError, psycopg.errors.InsufficientPrivilege("x"), Outage.UNAVAILABLE),
        (OperationalError, psycopg.errors.DiskFull("x"), Outage.UNAVAILABLE),
        (OperationalError, psycopg.errors.TooManyConnections("x"), Outage.UNAVAILABLE),
        (OperationalError, psycopg.errors.AdminShutdown("x"), Outage.UNAVAILABLE),
        (OperationalError, psycopg.errors.CannotConnectNow("x"), Outage.UNAVAILABLE),
        (OperationalError, psycopg.errors.ConnectionFailure("x"), Outage.UNAVAILABLE),
        (OperationalError, psycopg.errors.IoError("x"), Outage.UNAVAILABLE),
        (OperationalError, psycopg.errors.LockNotAvailable("x"), Outage.LOCKED),
        (OperationalError, psycopg.errors.DeadlockDetected("x"), Outage.LOCKED),
        (OperationalError, psycopg.errors.SerializationFailure("x"), Outage.LOCKED),
        (OperationalError, psycopg.errors.QueryCanceled("x"), Outage.UNCERTAIN),
        (OperationalError, psycopg.OperationalError("connection refused"), Outage.UNCERTAIN),
        (InterfaceError, psycopg.InterfaceError("the connection is closed"), Outage.UNCERTAIN),
        (
            NotSupportedError,
            psycopg.errors.FeatureNotSupported("cached plan must not change result type"),
            Outage.UNAVAILABLE,
        ),
        (NotSupportedError, psycopg.errors.FeatureNotSupported("x"), None),
        (OperationalError, psycopg.errors.ProgramLimitExceeded("x"), None),
        (DataError, psycopg.errors.NumericValueOutOfRange("x"), None),
        (IntegrityError, psycopg.errors.UniqueViolation("x"), None),
        (ProgrammingError, psycopg.errors.SyntaxError("x"), None),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_errors_of_postgresql(kind: type[Exception], cause: Exception, outage: Outage | None) -> None:
    assert classify_outage(wrapped(kind, cause)) is outage


@pytest.mark.parametrize(
    ("number", "outage"),
    [
        (1205, Outage.LOCKED),
        (1213, Outage.LOCKED),
        (1020, Outage.LOCKED),
        (1290, Outage.UNAVAILABLE),
        (1792, Outage.UNAVAILABLE),
        (1836, Outage.UNAVAILABLE),
        (1054, Outage.UNAVAILABLE),
        (1146, Outage.UNAVAILABLE),
        (1114, Outage.UNAVAILABLE),
        (2006, Outage.UNAVAILABLE),
        (2013, Outage.UNAVAILABLE),
        (9999, Outage.UNCERTAIN),
    ],
)
def test_numbers_of_mysql_and_mariadb(number: int, outage: Outage) -> None:
    assert classify_outage(OperationalError(number, "x")) is outage


def test_other_errors_are_no_outages() -> None:
    assert not is_outage(ValueError("database is locked"))
    assert not is_outage(DataError(1264, "Out of range value"))
    assert not is_outage(DatabaseError("x"))


def test_a_locked_activity_is_a_lock() -> None:
    assert classify_outage(ActivityLocked([uuid4()])) is Outage.LOCKED
