"""Classification of database errors: whether the same statement can succeed later, without a change.

Exception classes are ambiguous: PostgreSQL reports a read-only server as `InternalError` and a missing column as
`ProgrammingError`, SQLite reports both as `OperationalError`. The error codes of the servers are unambiguous.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum

from django.db import DatabaseError, InterfaceError, InternalError, OperationalError

from .exceptions import ActivityLocked


class Outage(Enum):
    """The reason why a statement failed that may succeed later."""

    LOCKED = "locked"
    """Another transaction holds a lock, or the server has aborted this transaction to resolve a conflict."""
    UNAVAILABLE = "unavailable"
    """The database currently rejects the statement: unreachable, read-only, full, or being migrated."""
    UNCERTAIN = "uncertain"
    """An operational error that may also be due to the statement, such as an error without a known code."""


# SQLSTATE, https://www.postgresql.org/docs/current/errcodes-appendix.html
# serialization_failure, deadlock_detected, lock_not_available
_SQLSTATE_LOCKED = frozenset(["40001", "40P01", "55P03"])
_SQLSTATE_UNAVAILABLE = frozenset(
    [
        "25006",  # read_only_sql_transaction: a standby, or default_transaction_read_only
        "25P03",  # idle_in_transaction_session_timeout
        "25P04",  # transaction_timeout
        "3D000",  # invalid_catalog_name: the database is being restored
        "3F000",  # invalid_schema_name
        "42501",  # insufficient_privilege: rights are being changed
        "42703",  # undefined_column: before or during a migration
        "42P01",  # undefined_table
        "40003",  # statement_completion_unknown
        "55006",  # object_in_use
    ]
)
# Connection, authorization, resources (disk full, connections), operator intervention, system error.
_SQLSTATE_UNAVAILABLE_CLASSES = ("08", "28", "53", "57", "58")
# May be due to the statement as well: out_of_memory, configuration_limit_exceeded, query_canceled, internal_error.
_SQLSTATE_UNCERTAIN = frozenset(["53200", "53400", "57014", "XX000", "XX001", "XX002"])
_CACHED_PLAN = "cached plan"

# Primary result codes, https://www.sqlite.org/rescode.html
_SQLITE_LOCKED = frozenset([5, 6])  # BUSY, LOCKED
# PERM, READONLY, IOERR, CORRUPT, FULL, CANTOPEN, PROTOCOL, SCHEMA, NOTADB
_SQLITE_UNAVAILABLE = frozenset([3, 8, 10, 11, 13, 14, 15, 17, 26])
_SQLITE_MISSING = ("no such table", "no such column", "has no column named")

# https://mariadb.com/kb/en/mariadb-error-codes/ and MySQL's server and client error references
_MYSQL_LOCKED = frozenset([1020, 1205, 1213, 3058, 3572])
_MYSQL_UNAVAILABLE = frozenset(
    [
        *(1021, 1114, 1135),  # disk full, table full, no thread
        *(1040, 1203, 1226),  # too many connections
        *(1044, 1045, 1049, 1129, 1130, 1142, 1143, 1698),  # access, database being restored, host blocked
        *(1053, 1077, 1079, 1080, 1152, 1158, 1159, 1160, 1161, 1184, 1927, 4031),  # shutdown, connection
        *(1047, 1412),  # cluster node not ready, definition just changed
        *(1054, 1146),  # unknown column, no such table: before or during a migration
        *(1290, 1792, 1836, 3100, 3101),  # read-only server or transaction, replication refuses the commit
        *range(2000, 2062),  # client errors: connection refused, server gone, connection lost during query
    ]
)


def classify_outage(error: BaseException) -> Outage | None:
    """Return why a database error is temporary; None if it is due to the statement, or no database error.

    Reads SQLSTATE (psycopg, psycopg2), SQLite's result codes and MySQL's error numbers, also through `raise ... from`.
    """
    if isinstance(error, ActivityLocked):
        return Outage.LOCKED
    if not isinstance(error, (DatabaseError, InterfaceError)):
        return None
    for cause in _causes(error):
        found, is_known = _by_code(cause)
        if is_known:
            return found
    if isinstance(error, OperationalError) and _mentions_lock(error):
        return Outage.LOCKED
    return Outage.UNCERTAIN if isinstance(error, (OperationalError, InterfaceError, InternalError)) else None


def is_outage(error: BaseException) -> bool:
    """Return whether a database error is temporary: the caller may try again, and a server responds with 503."""
    return classify_outage(error) is not None


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield the error and its causes: Django wraps the driver's error, which has the code."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = cause.__cause__


def _by_code(error: BaseException) -> tuple[Outage | None, bool]:
    """Return the classification of the driver's error code, and whether there is a known code."""
    sqlstate = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
    if isinstance(sqlstate, str):
        return _by_sqlstate(sqlstate, str(error)), True
    result_code = getattr(error, "sqlite_errorcode", None)
    if isinstance(result_code, int):
        return _by_sqlite_code(result_code & 0xFF, str(error)), True
    number = error.args[0] if error.args else None
    if isinstance(number, int) and not isinstance(number, bool) and 1000 <= number < 5000:
        if number in _MYSQL_LOCKED:
            return Outage.LOCKED, True
        if number in _MYSQL_UNAVAILABLE:
            return Outage.UNAVAILABLE, True
    return None, False


def _by_sqlstate(code: str, message: str) -> Outage | None:
    if code in _SQLSTATE_LOCKED:
        return Outage.LOCKED
    if code in _SQLSTATE_UNCERTAIN:
        return Outage.UNCERTAIN
    if code == "0A000":  # feature_not_supported
        return Outage.UNAVAILABLE if _CACHED_PLAN in message else None
    is_unavailable = code in _SQLSTATE_UNAVAILABLE or code.startswith(_SQLSTATE_UNAVAILABLE_CLASSES)
    return Outage.UNAVAILABLE if is_unavailable else None


def _by_sqlite_code(code: int, message: str) -> Outage | None:
    if code in _SQLITE_LOCKED:
        return Outage.LOCKED
    if code in _SQLITE_UNAVAILABLE or any(text in message for text in _SQLITE_MISSING):
        return Outage.UNAVAILABLE
    return None


def _mentions_lock(error: BaseException) -> bool:
    text = str(error).lower()
    return "locked" in text or "lock timeout" in text or "deadlock" in text
