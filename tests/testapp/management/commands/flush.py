"""The command with which Django cleans the database after a test that commits, in a fraction of the time.

Django's truncates every table, then creates content types and permissions again. This deletes the rows of all other
tables.
"""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand
from django.db import connections, transaction

KEPT = frozenset({"django_migrations", "django_content_type", "auth_permission"})


class Command(BaseCommand):
    help = "Delete all rows but those that migrations create."
    requires_system_checks = []
    stealth_options = ("database", "reset_sequences", "allow_cascade", "inhibit_post_migrate", "interactive")

    def handle(self, *args: Any, database: str = "default", **options: Any) -> None:
        connection = connections[database]
        tables = connection.introspection.django_table_names(only_existing=True, include_views=False)
        with transaction.atomic(using=database), connection.cursor() as cursor:
            for table in tables:
                if table not in KEPT:
                    cursor.execute(f"DELETE FROM {connection.ops.quote_name(table)}")
