"""New names of five fields. Their columns keep their names, so nothing is executed and old workers run on."""

from __future__ import annotations

from typing import Any

from django.db import migrations, models

RENAMED: Any = {
    "ties": ("hook_flags", models.PositiveSmallIntegerField(
        db_column="ties", default=0, help_text="Flags: the hooks that run when it ends.")),
    "spawned_in": ("spawn_generation", models.PositiveIntegerField(
        db_column="spawned_in", default=0, db_default=0,
        help_text="The parent's pass that spawned it or, after a failure, queued it again.")),
    "waiting_for": ("blocking_child_id", models.UUIDField(
        db_column="waiting_for", null=True, blank=True,
        help_text="While suspended: the child whose end is examined next.")),
    "awaited": ("awaited_ids", models.JSONField(
        db_column="awaited", null=True, blank=True, help_text="While suspended: ids of all awaited children.")),
    "forgiven": ("discounted_crashes", models.PositiveIntegerField(
        db_column="forgiven", default=0, db_default=0,
        help_text="Crashes that no longer count, since the activity has made progress after them.")),
}


class Migration(migrations.Migration):

    dependencies = [("agentexec", "0004_actors_public_errors_fan_out")]

    operations = [
        migrations.SeparateDatabaseAndState(
            state_operations=[
                migrations.RemoveIndex("activity", "agentexec_parked"),
                *(migrations.AlterField("activity", old, field) for old, (_, field) in RENAMED.items()),
                *(migrations.RenameField("activity", old, new) for old, (new, _) in RENAMED.items()),
                migrations.AddIndex("activity", models.Index(
                    fields=["blocking_child_id"], condition=models.Q(("blocking_child_id__isnull", False)),
                    name="agentexec_parked")),
            ]
        )
    ]
