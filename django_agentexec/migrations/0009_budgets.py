"""Budgets, what was spent of them, and the suspension for a budget or the limit of a provider.

Existing tables get no column, and a partial index that is empty at first: no row is rewritten, and the previous release
keeps working.
"""

import django.core.validators
import django.db.models.deletion
import django.utils.timezone
import django_agentexec.ids
from decimal import Decimal
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('agentexec', '0008_model_prices'),
    ]

    operations = [
        migrations.AlterField(
            model_name='activity',
            name='blocking_child_id',
            field=models.UUIDField(blank=True, db_column='waiting_for', help_text='While suspended: the child whose end is examined next, or itself without one.', null=True, verbose_name='blocking child id'),
        ),
        migrations.AlterField(
            model_name='activity',
            name='waiting_for',
            field=models.CharField(blank=True, choices=[('children', 'Children'), ('approval', 'Approval'), ('answer', 'Answer'), ('budget', 'Budget'), ('event', 'Event'), ('limit', 'Limit of a provider')], db_column='waiting_reason', db_default='', default='', help_text='While suspended: the reason.', max_length=10, verbose_name='waiting for'),
        ),
        migrations.AddIndex(
            model_name='activity',
            index=models.Index(condition=models.Q(('waiting_for__in', ['budget', 'limit'])), fields=['run_after'], name='agentexec_until'),
        ),
        migrations.CreateModel(
            name='Budget',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('name', models.CharField(help_text='For people, such as: Acme, monthly.', max_length=200, verbose_name='name')),
                ('scope', models.CharField(choices=[('all', 'Everything'), ('task', 'A task'), ('metadata', 'Metadata'), ('activity', 'One activity')], default='all', max_length=10, verbose_name='scope')),
                ('task', models.CharField(blank=True, default='', help_text='Of scope task: its name.', max_length=200, verbose_name='task')),
                ('metadata_key', models.CharField(blank=True, default='', help_text='Of scope metadata: a key such as organization_id.', max_length=100, verbose_name='metadata key')),
                ('metadata_value', models.CharField(blank=True, default='', help_text='Of scope metadata: the value as text. A number equals its text.', max_length=255, verbose_name='metadata value')),
                ('agent_id', models.UUIDField(blank=True, help_text='Of scope activity: the id of the activity.', null=True, verbose_name='agent id')),
                ('period', models.CharField(choices=[('run', 'Each run'), ('day', 'Day'), ('month', 'Month')], default='month', max_length=10, verbose_name='period')),
                ('time_zone', models.CharField(blank=True, default='', help_text='Of days and months, such as Europe/Berlin; empty: the time zone of the site.', max_length=64, verbose_name='time zone')),
                ('limit', models.DecimalField(decimal_places=10, help_text='US dollars or tokens in each period.', max_digits=20, validators=[django.core.validators.MinValueValidator(Decimal('0'))], verbose_name='limit')),
                ('unit', models.CharField(choices=[('money', 'US dollars'), ('tokens', 'Tokens')], default='money', max_length=10, verbose_name='unit')),
                ('action', models.CharField(choices=[('suspend', 'Suspend the activity'), ('fail', 'Fail the activity'), ('notify', 'Only notify')], default='suspend', help_text='Before a call that would exceed the limit.', max_length=10, verbose_name='action')),
                ('is_active', models.BooleanField(default=True, verbose_name='active')),
                ('created_at', models.DateTimeField(default=django.utils.timezone.now, editable=False, verbose_name='created at')),
            ],
            options={
                'verbose_name': 'budget',
                'verbose_name_plural': 'budgets',
                'db_table': 'agentexec_budget',
                'ordering': ['name', 'id'],
                'constraints': [models.CheckConstraint(condition=models.Q(('limit__gte', 0)), name='agentexec_budget_limit')],
            },
        ),
        migrations.CreateModel(
            name='BudgetLedger',
            fields=[
                ('id', models.UUIDField(editable=False, primary_key=True, serialize=False)),
                ('label', models.CharField(help_text='The name of the budget.', max_length=200, verbose_name='label')),
                ('period', models.CharField(help_text='A day, a month, or the id of a run.', max_length=64, verbose_name='period')),
                ('ends_at', models.DateTimeField(blank=True, null=True, verbose_name='ends at')),
                ('own_limit', models.DecimalField(blank=True, decimal_places=10, help_text='Of this period or run alone; empty: that of the budget.', max_digits=20, null=True, verbose_name='limit')),
                ('unit', models.CharField(choices=[('money', 'US dollars'), ('tokens', 'Tokens')], max_length=10, verbose_name='unit')),
                ('action', models.CharField(blank=True, choices=[('suspend', 'Suspend the activity'), ('fail', 'Fail the activity'), ('notify', 'Only notify')], default='', help_text='Empty: that of the budget.', max_length=10, verbose_name='action')),
                ('spent', models.DecimalField(decimal_places=10, default=Decimal('0'), max_digits=20, verbose_name='spent')),
                ('reserved', models.DecimalField(decimal_places=10, default=Decimal('0'), help_text='For calls in progress.', max_digits=20, verbose_name='reserved')),
                ('notified', models.PositiveSmallIntegerField(default=0, help_text='The highest threshold, in percent, that was announced.', verbose_name='notified')),
                ('created_at', models.DateTimeField(default=django.utils.timezone.now, verbose_name='created at')),
                ('activity', models.ForeignKey(blank=True, db_constraint=False, db_index=False, help_text='The run to which it belongs; empty: a period.', null=True, on_delete=django.db.models.deletion.CASCADE, related_name='budget_ledgers', to='agentexec.activity', verbose_name='activity')),
                ('budget', models.ForeignKey(blank=True, help_text='Empty: declared in code.', null=True, on_delete=django.db.models.deletion.CASCADE, related_name='ledgers', to='agentexec.budget', verbose_name='budget')),
            ],
            options={
                'verbose_name': 'consumption of a budget',
                'verbose_name_plural': 'consumption of budgets',
                'db_table': 'agentexec_budget_ledger',
                'ordering': ['-created_at', 'id'],
                'default_permissions': ('view',),
            },
        ),
        migrations.CreateModel(
            name='BudgetReservation',
            fields=[
                ('id', models.UUIDField(default=django_agentexec.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('agent_id', models.UUIDField(verbose_name='agent id')),
                ('fence', models.BigIntegerField(help_text='The claim whose end releases it.', verbose_name='fence')),
                ('amount', models.DecimalField(decimal_places=10, max_digits=20, verbose_name='amount')),
                ('created_at', models.DateTimeField(default=django.utils.timezone.now, verbose_name='created at')),
                ('ledger', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='reservations', to='agentexec.budgetledger', verbose_name='ledger')),
            ],
            options={
                'verbose_name': 'reservation of a budget',
                'verbose_name_plural': 'reservations of budgets',
                'db_table': 'agentexec_budget_reservation',
                'default_permissions': (),
            },
        ),
        migrations.CreateModel(
            name='BudgetWait',
            fields=[
                ('id', models.UUIDField(default=django_agentexec.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('agent_id', models.UUIDField(db_index=True, verbose_name='agent id')),
                ('amount', models.DecimalField(blank=True, decimal_places=10, help_text='Empty: the price of the model is unknown.', max_digits=20, null=True, verbose_name='amount')),
                ('model', models.CharField(blank=True, default='', max_length=200, verbose_name='model')),
                ('provider', models.CharField(blank=True, default='', max_length=100, verbose_name='provider')),
                ('created_at', models.DateTimeField(default=django.utils.timezone.now, verbose_name='created at')),
                ('ledger', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='waits', to='agentexec.budgetledger', verbose_name='ledger')),
            ],
            options={
                'verbose_name': 'wait for a budget',
                'verbose_name_plural': 'waits for budgets',
                'db_table': 'agentexec_budget_wait',
                'ordering': ['id'],
                'default_permissions': (),
            },
        ),
        migrations.AddIndex(
            model_name='budgetledger',
            index=models.Index(condition=models.Q(('activity__isnull', False)), fields=['activity'], name='agentexec_budget_run'),
        ),
    ]
