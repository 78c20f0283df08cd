"""The mark of cached calls, and the results of idempotent tools.

The new column of calls has a default of the database: nothing is rewritten, and the previous release keeps working.
"""

import django.utils.timezone
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('agentexec', '0010_concurrency'),
    ]

    operations = [
        migrations.CreateModel(
            name='ToolResult',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('key', models.CharField(help_text='Digest of the scope, the tool and its arguments.', max_length=64, unique=True, verbose_name='key')),
                ('tool', models.CharField(max_length=200, verbose_name='tool')),
                ('output', models.JSONField(blank=True, null=True, verbose_name='output')),
                ('is_done', models.BooleanField(default=False, verbose_name='is done')),
                ('agent_id', models.UUIDField(help_text='The activity that makes or made the call.', verbose_name='activity')),
                ('fence', models.BigIntegerField(default=0, help_text='The claim under which the call is made.', verbose_name='fence')),
                ('token', models.UUIDField(help_text='Of the call that may write the result.', verbose_name='token')),
                ('started_at', models.DateTimeField(default=django.utils.timezone.now, verbose_name='started at')),
                ('expires_at', models.DateTimeField(db_index=True, verbose_name='expires at')),
            ],
            options={
                'verbose_name': 'tool result',
                'verbose_name_plural': 'tool results',
                'db_table': 'agentexec_tool_result',
                'default_permissions': (),
            },
        ),
        migrations.AddField(
            model_name='agentcall',
            name='is_cached',
            field=models.BooleanField(db_default=False, default=False, help_text='Whether a cached answer, or the first result of an idempotent tool, was used.', verbose_name='is cached'),
        ),
    ]
