"""Names of tables, constraints and indexes: PostgreSQL keeps them in one namespace, SQLite does not."""

from __future__ import annotations

from collections import Counter

from django.apps import apps


def test_no_constraint_or_index_has_the_name_of_another_relation() -> None:
    models = [model for model in apps.get_models() if model._meta.app_label.startswith("agentexec")]
    names = Counter(
        name
        for model in models
        for name in (
            model._meta.db_table,
            *(constraint.name for constraint in model._meta.constraints),
            *(index.name for index in model._meta.indexes),
        )
    )

    assert len(models) > 10
    assert [name for name, count in names.items() if count > 1] == []
