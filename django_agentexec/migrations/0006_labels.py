"""Labels and help texts of the fields. Nothing is executed in the database."""


import django.db.models.deletion
import django.utils.timezone
import django_agentexec.ids
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('agentexec', '0005_field_names'),
    ]

    operations = [
        migrations.AlterModelOptions(
            name='activity',
            options={'default_permissions': ('view', 'delete'), 'permissions': [('cancel_activity', 'Can cancel activity'), ('retry_activity', 'Can retry activity'), ('enqueue_task', 'Can enqueue tasks from outside')], 'verbose_name': 'activity', 'verbose_name_plural': 'activities'},
        ),
        migrations.AlterModelOptions(
            name='activitylog',
            options={'default_permissions': ('view',), 'ordering': ['id'], 'verbose_name': 'activity log', 'verbose_name_plural': 'activity logs'},
        ),
        migrations.AlterModelOptions(
            name='steprun',
            options={'default_permissions': ('view',), 'ordering': ['position', 'id'], 'verbose_name': 'step run', 'verbose_name_plural': 'step runs'},
        ),
        migrations.AlterModelOptions(
            name='trackermember',
            options={'default_permissions': (), 'verbose_name': 'tracker member', 'verbose_name_plural': 'tracker members'},
        ),
        migrations.AlterModelOptions(
            name='trackerstate',
            options={'default_permissions': ('view', 'delete'), 'verbose_name': 'tracker state', 'verbose_name_plural': 'tracker states'},
        ),
        migrations.AlterField(
            model_name='activity',
            name='agent_id',
            field=models.UUIDField(default=django_agentexec.ids.uuid7, editable=False, primary_key=True, serialize=False, verbose_name='agent id'),
        ),
        migrations.AlterField(
            model_name='activity',
            name='agent_type',
            field=models.CharField(help_text='Name of the task.', max_length=200, verbose_name='agent type'),
        ),
        migrations.AlterField(
            model_name='activity',
            name='attempt',
            field=models.PositiveIntegerField(default=0, help_text='Number of the latest attempt.', verbose_name='attempt'),
        ),
        migrations.AlterField(
            model_name='activity',
            name='awaited_ids',
            field=models.JSONField(blank=True, db_column='awaited', help_text='While suspended: ids of all awaited children.', null=True, verbose_name='awaited ids'),
        ),
        migrations.AlterField(
            model_name='activity',
            name='blocking_child_id',
            field=models.UUIDField(blank=True, db_column='waiting_for', help_text='While suspended: the child whose end is examined next.', null=True, verbose_name='blocking child id'),
        ),
        migrations.AlterField(
            model_name='activity',
            name='context',
            field=models.JSONField(blank=True, default=dict, verbose_name='context'),
        ),
        migrations.AlterField(
            model_name='activity',
            name='crashes',
            field=models.PositiveIntegerField(default=0, help_text='Number of processes that died while running it.', verbose_name='crashes'),
        ),
        migrations.AlterField(
            model_name='activity',
            name='created_at',
            field=models.DateTimeField(default=django.utils.timezone.now, verbose_name='created at'),
        ),
        migrations.AlterField(
            model_name='activity',
            name='discounted_crashes',
            field=models.PositiveIntegerField(db_column='forgiven', db_default=0, default=0, help_text='Crashes that no longer count, since the activity has made progress after them.', verbose_name='discounted crashes'),
        ),
        migrations.AlterField(
            model_name='activity',
            name='enqueued_by',
            field=models.CharField(blank=True, help_text='Primary key of a user.', max_length=255, null=True, verbose_name='enqueued by'),
        ),
        migrations.AlterField(
            model_name='activity',
            name='error',
            field=models.TextField(blank=True, default='', help_text='Last error, one line.', verbose_name='error'),
        ),
        migrations.AlterField(
            model_name='activity',
            name='fan_out',
            field=models.JSONField(blank=True, help_text='The children that each run of its handler must spawn again before it waits.', null=True, verbose_name='fan-out'),
        ),
        migrations.AlterField(
            model_name='activity',
            name='fence',
            field=models.BigIntegerField(default=0, help_text='Number of the latest claim; it never decreases.', verbose_name='fence'),
        ),
        migrations.AlterField(
            model_name='activity',
            name='finished_at',
            field=models.DateTimeField(blank=True, null=True, verbose_name='finished at'),
        ),
        migrations.AlterField(
            model_name='activity',
            name='hook_flags',
            field=models.PositiveSmallIntegerField(db_column='ties', default=0, help_text='Flags: the hooks that run when it ends.', verbose_name='hook flags'),
        ),
        migrations.AlterField(
            model_name='activity',
            name='idempotency_key',
            field=models.CharField(blank=True, max_length=255, null=True, verbose_name='idempotency key'),
        ),
        migrations.AlterField(
            model_name='activity',
            name='is_final',
            field=models.BooleanField(db_default=False, default=False, help_text='Permanently failed or canceled: it runs again only if a person retries it or its parent.', verbose_name='is final'),
        ),
        migrations.AlterField(
            model_name='activity',
            name='latest_log_message',
            field=models.TextField(blank=True, default='', verbose_name='latest log message'),
        ),
        migrations.AlterField(
            model_name='activity',
            name='latest_log_timestamp',
            field=models.DateTimeField(blank=True, null=True, verbose_name='latest log timestamp'),
        ),
        migrations.AlterField(
            model_name='activity',
            name='lock_key',
            field=models.CharField(blank=True, default='', help_text='Evaluated; empty: no lock.', max_length=500, verbose_name='lock key'),
        ),
        migrations.AlterField(
            model_name='activity',
            name='max_retries',
            field=models.PositiveIntegerField(default=0, verbose_name='max retries'),
        ),
        migrations.AlterField(
            model_name='activity',
            name='metadata',
            field=models.JSONField(blank=True, default=dict, verbose_name='metadata'),
        ),
        migrations.AlterField(
            model_name='activity',
            name='parent',
            field=models.ForeignKey(blank=True, db_index=False, help_text='The activity whose handler enqueued this activity.', null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='children', to='agentexec.activity', verbose_name='parent'),
        ),
        migrations.AlterField(
            model_name='activity',
            name='percentage',
            field=models.PositiveSmallIntegerField(default=0, help_text='Progress, 0 to 100.', verbose_name='percentage'),
        ),
        migrations.AlterField(
            model_name='activity',
            name='priority',
            field=models.PositiveSmallIntegerField(choices=[(1, 'High'), (4, 'Normal'), (7, 'Low')], default=4, verbose_name='priority'),
        ),
        migrations.AlterField(
            model_name='activity',
            name='public_error',
            field=models.TextField(blank=True, help_text='The error for users without the monitor permission; null: its class.', null=True, verbose_name='public error'),
        ),
        migrations.AlterField(
            model_name='activity',
            name='queue',
            field=models.CharField(blank=True, help_text='Empty: not queued, driven by its creator.', max_length=100, verbose_name='queue'),
        ),
        migrations.AlterField(
            model_name='activity',
            name='result',
            field=models.JSONField(blank=True, null=True, verbose_name='result'),
        ),
        migrations.AlterField(
            model_name='activity',
            name='retries',
            field=models.PositiveIntegerField(default=0, help_text='Automatic retries used since it was queued or retried by a person.', verbose_name='retries'),
        ),
        migrations.AlterField(
            model_name='activity',
            name='run_after',
            field=models.DateTimeField(blank=True, help_text='Due time; empty: at once.', null=True, verbose_name='run after'),
        ),
        migrations.AlterField(
            model_name='activity',
            name='spawn_generation',
            field=models.PositiveIntegerField(db_column='spawned_in', db_default=0, default=0, help_text="The parent's pass that spawned it or, after a failure, queued it again.", verbose_name='spawn generation'),
        ),
        migrations.AlterField(
            model_name='activity',
            name='spawn_key',
            field=models.CharField(blank=True, help_text='Its name among its siblings.', max_length=255, null=True, verbose_name='spawn key'),
        ),
        migrations.AlterField(
            model_name='activity',
            name='spawn_position',
            field=models.PositiveIntegerField(blank=True, help_text='Its position among its siblings, from 0, in the order of spawning.', null=True, verbose_name='spawn position'),
        ),
        migrations.AlterField(
            model_name='activity',
            name='started_at',
            field=models.DateTimeField(blank=True, help_text='First start since it was last queued by a person or code.', null=True, verbose_name='started at'),
        ),
        migrations.AlterField(
            model_name='activity',
            name='status',
            field=models.CharField(choices=[('queued', 'Queued'), ('running', 'Running'), ('complete', 'Complete'), ('error', 'Error'), ('canceled', 'Canceled')], default='queued', max_length=10, verbose_name='status'),
        ),
        migrations.AlterField(
            model_name='activity',
            name='traceback',
            field=models.TextField(blank=True, default='', verbose_name='traceback'),
        ),
        migrations.AlterField(
            model_name='activity',
            name='updated_at',
            field=models.DateTimeField(default=django.utils.timezone.now, verbose_name='updated at'),
        ),
        migrations.AlterField(
            model_name='activity',
            name='usage',
            field=models.JSONField(blank=True, default=dict, help_text='Tokens and requests, summed over all attempts.', verbose_name='usage'),
        ),
        migrations.AlterField(
            model_name='activity',
            name='worker',
            field=models.CharField(blank=True, default='', help_text='The worker that runs it or ran it last.', max_length=200, verbose_name='worker'),
        ),
        migrations.AlterField(
            model_name='activitylog',
            name='activity',
            field=models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='logs', to='agentexec.activity', verbose_name='activity'),
        ),
        migrations.AlterField(
            model_name='activitylog',
            name='actor',
            field=models.CharField(blank=True, help_text='Primary key of the user who caused it.', max_length=255, null=True, verbose_name='actor'),
        ),
        migrations.AlterField(
            model_name='activitylog',
            name='attempt',
            field=models.PositiveIntegerField(default=0, verbose_name='attempt'),
        ),
        migrations.AlterField(
            model_name='activitylog',
            name='created_at',
            field=models.DateTimeField(default=django.utils.timezone.now, verbose_name='created at'),
        ),
        migrations.AlterField(
            model_name='activitylog',
            name='message',
            field=models.TextField(verbose_name='message'),
        ),
        migrations.AlterField(
            model_name='activitylog',
            name='percentage',
            field=models.PositiveSmallIntegerField(default=0, verbose_name='percentage'),
        ),
        migrations.AlterField(
            model_name='activitylog',
            name='public_message',
            field=models.TextField(blank=True, help_text='The message for users without the monitor permission; null: the same.', null=True, verbose_name='public message'),
        ),
        migrations.AlterField(
            model_name='activitylog',
            name='status',
            field=models.CharField(choices=[('queued', 'Queued'), ('running', 'Running'), ('complete', 'Complete'), ('error', 'Error'), ('canceled', 'Canceled')], max_length=10, verbose_name='status'),
        ),
        migrations.AlterField(
            model_name='activitylog',
            name='traceback',
            field=models.TextField(blank=True, default='', verbose_name='traceback'),
        ),
        migrations.AlterField(
            model_name='steprun',
            name='activity',
            field=models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='steps', to='agentexec.activity', verbose_name='activity'),
        ),
        migrations.AlterField(
            model_name='steprun',
            name='attempt',
            field=models.PositiveIntegerField(default=1, help_text="The activity's attempt that started it last.", verbose_name='attempt'),
        ),
        migrations.AlterField(
            model_name='steprun',
            name='error',
            field=models.TextField(blank=True, default='', help_text='Last error, one line.', verbose_name='error'),
        ),
        migrations.AlterField(
            model_name='steprun',
            name='finished_at',
            field=models.DateTimeField(blank=True, null=True, verbose_name='finished at'),
        ),
        migrations.AlterField(
            model_name='steprun',
            name='input_digest',
            field=models.CharField(max_length=64, verbose_name='input digest'),
        ),
        migrations.AlterField(
            model_name='steprun',
            name='name',
            field=models.CharField(max_length=200, verbose_name='name'),
        ),
        migrations.AlterField(
            model_name='steprun',
            name='position',
            field=models.PositiveSmallIntegerField(help_text='Its position among the steps, from 0.', verbose_name='position'),
        ),
        migrations.AlterField(
            model_name='steprun',
            name='result',
            field=models.JSONField(blank=True, null=True, verbose_name='result'),
        ),
        migrations.AlterField(
            model_name='steprun',
            name='result_digest',
            field=models.CharField(blank=True, default='', help_text="The next step's input digest.", max_length=64, verbose_name='result digest'),
        ),
        migrations.AlterField(
            model_name='steprun',
            name='result_type',
            field=models.CharField(blank=True, default='', help_text="The result's type, for display.", max_length=500, verbose_name='result type'),
        ),
        migrations.AlterField(
            model_name='steprun',
            name='retries',
            field=models.PositiveIntegerField(default=0, help_text='Retries of this step used in this attempt.', verbose_name='retries'),
        ),
        migrations.AlterField(
            model_name='steprun',
            name='started_at',
            field=models.DateTimeField(default=django.utils.timezone.now, verbose_name='started at'),
        ),
        migrations.AlterField(
            model_name='steprun',
            name='state',
            field=models.CharField(choices=[('running', 'Running'), ('complete', 'Complete'), ('error', 'Error')], default='running', max_length=10, verbose_name='state'),
        ),
        migrations.AlterField(
            model_name='steprun',
            name='tries',
            field=models.PositiveIntegerField(default=1, help_text='Number of times it was started, without restarts after crashes.', verbose_name='tries'),
        ),
        migrations.AlterField(
            model_name='trackermember',
            name='activity_id',
            field=models.UUIDField(blank=True, help_text='The activity whose end marks it as done.', null=True, verbose_name='activity id'),
        ),
        migrations.AlterField(
            model_name='trackermember',
            name='is_done',
            field=models.BooleanField(default=False, verbose_name='is done'),
        ),
        migrations.AlterField(
            model_name='trackermember',
            name='member',
            field=models.CharField(max_length=255, verbose_name='member'),
        ),
        migrations.AlterField(
            model_name='trackermember',
            name='tracker',
            field=models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name='members', to='agentexec.trackerstate', verbose_name='tracker'),
        ),
        migrations.AlterField(
            model_name='trackerstate',
            name='batch_id',
            field=models.CharField(max_length=200, verbose_name='batch id'),
        ),
        migrations.AlterField(
            model_name='trackerstate',
            name='context',
            field=models.JSONField(blank=True, null=True, verbose_name='context'),
        ),
        migrations.AlterField(
            model_name='trackerstate',
            name='created_at',
            field=models.DateTimeField(default=django.utils.timezone.now, verbose_name='created at'),
        ),
        migrations.AlterField(
            model_name='trackerstate',
            name='fired',
            field=models.UUIDField(blank=True, help_text='The activity that was enqueued.', null=True, verbose_name='fired'),
        ),
        migrations.AlterField(
            model_name='trackerstate',
            name='metadata',
            field=models.JSONField(blank=True, default=dict, verbose_name='metadata'),
        ),
        migrations.AlterField(
            model_name='trackerstate',
            name='name',
            field=models.CharField(max_length=200, verbose_name='name'),
        ),
        migrations.AlterField(
            model_name='trackerstate',
            name='parent',
            field=models.ForeignKey(blank=True, db_index=False, null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='+', to='agentexec.activity', verbose_name='parent'),
        ),
        migrations.AlterField(
            model_name='trackerstate',
            name='task',
            field=models.CharField(blank=True, default='', help_text='Empty: there is nothing to enqueue yet.', max_length=200, verbose_name='task'),
        ),
    ]
