"""Limits, pauses, and the fair key and limits of each activity.

The new column is nullable without a default: nothing is rewritten, and the previous release keeps working.
"""

import django.core.validators
import django.utils.timezone
import django_agentexec.models.concurrency
import django_agentexec.models.prices
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('agentexec', '0009_budgets'),
    ]

    operations = [
        migrations.CreateModel(
            name='ConcurrencyLimit',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('scope', models.CharField(choices=[('task', 'Task'), ('key', 'Key')], default='key', max_length=10, verbose_name='scope')),
                ('name', models.CharField(help_text='The name of a task, or an evaluated concurrency key such as org:7.', max_length=500, validators=[django_agentexec.models.prices.validate_pattern], verbose_name='name')),
                ('maximum', models.PositiveIntegerField(blank=True, help_text='Activities that run at the same time in one queue; 0: none starts; empty: any number.', null=True, validators=[django.core.validators.MinValueValidator(0), django.core.validators.MaxValueValidator(2147483647)], verbose_name='maximum')),
                ('rate_limit', models.CharField(blank=True, default='', help_text='Starts per second, minute, hour or day, such as 10/m; empty: any number.', max_length=10, validators=[django_agentexec.models.concurrency.validate_rate], verbose_name='rate limit')),
            ],
            options={
                'verbose_name': 'concurrency limit',
                'verbose_name_plural': 'concurrency limits',
                'db_table': 'agentexec_concurrency_limit',
                'ordering': ['scope', 'name'],
                'constraints': [models.UniqueConstraint(fields=('scope', 'name'), name='agentexec_limit')],
            },
        ),
        migrations.CreateModel(
            name='Pause',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('scope', models.CharField(choices=[('queue', 'Queue'), ('task', 'Task'), ('tenant', 'Tenant')], max_length=10, verbose_name='scope')),
                ('name', models.CharField(help_text="A queue, a task, or a tenant's metadata key and value such as organization_id=7.", max_length=300, validators=[django_agentexec.models.prices.validate_pattern], verbose_name='name')),
                ('reason', models.CharField(blank=True, default='', max_length=500, verbose_name='reason')),
                ('actor', models.CharField(blank=True, help_text='Primary key of the user who caused it.', max_length=255, null=True, verbose_name='actor')),
                ('created_at', models.DateTimeField(default=django.utils.timezone.now, verbose_name='created at')),
            ],
            options={
                'verbose_name': 'pause',
                'verbose_name_plural': 'pauses',
                'db_table': 'agentexec_pause',
                'ordering': ['scope', 'name'],
                'permissions': [('pause_activity', 'Can pause and resume queues, tasks and tenants')],
                'default_permissions': ('view',),
                'constraints': [models.UniqueConstraint(fields=('scope', 'name'), name='agentexec_one_pause')],
            },
        ),
        migrations.AddField(
            model_name='activity',
            name='fairness',
            field=models.TextField(blank=True, editable=False, help_text='Fair key and limits, evaluated, in the format of the queue; null: none.', null=True, verbose_name='fairness'),
        ),
    ]
