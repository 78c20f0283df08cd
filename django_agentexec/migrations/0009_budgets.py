"""Suspension for a budget or the limit of a provider, and its partial index, which is empty at first.

No row is rewritten, and the previous release keeps working.
"""

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
    ]
