"""The user to whom an approval is assigned.

The column is nullable: nothing is rewritten, and the previous release, which does not know it, keeps working.
"""

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('agentexec', '0011_cached_calls'),
    ]

    operations = [
        migrations.AddField(
            model_name='approval',
            name='assigned_to',
            field=models.CharField(blank=True, help_text='Primary key of the user who is asked to decide; null: nobody in particular.', max_length=255, null=True, verbose_name='assigned to'),
        ),
    ]
