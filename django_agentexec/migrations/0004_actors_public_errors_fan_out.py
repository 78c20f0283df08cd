"""Who did what, what users may read of errors, and the children that a handler must spawn again.

Every column is null or has a default of the database: nothing is rewritten, and the previous release keeps working.
"""


from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('agentexec', '0003_orchestration'),
    ]

    operations = [
        migrations.AddField(
            model_name='activity',
            name='enqueued_by',
            field=models.CharField(blank=True, help_text='Primary key of a user.', max_length=255, null=True),
        ),
        migrations.AddField(
            model_name='activity',
            name='public_error',
            field=models.TextField(blank=True, help_text='What of it everybody may read; null: its class.', null=True),
        ),
        migrations.AddField(
            model_name='activitylog',
            name='actor',
            field=models.CharField(blank=True, help_text="Who caused it: a user's primary key.", max_length=255, null=True),
        ),
        migrations.AddField(
            model_name='activitylog',
            name='public_message',
            field=models.TextField(blank=True, help_text='The message for everybody, if it is another.', null=True),
        ),
        migrations.AddField(
            model_name='activity',
            name='fan_out',
            field=models.JSONField(blank=True, help_text='What each run of its handler must spawn again before its waits.', null=True),
        ),
        migrations.AddField(
            model_name='activity',
            name='is_final',
            field=models.BooleanField(db_default=False, default=False, help_text="Given up on or canceled: only a person's retry, of it or of its parent, runs it again."),
        ),
        migrations.AddField(
            model_name='activity',
            name='spawn_position',
            field=models.PositiveIntegerField(blank=True, help_text='Its place among its siblings, from 0, in the order of their spawning.', null=True),
        ),
    ]
