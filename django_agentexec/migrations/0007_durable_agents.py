"""Calls of agents, approvals and conversations.

New columns of activities are null or have a default of the database: nothing is rewritten, and the previous release
keeps working.
"""

import django.db.models.deletion
import django.utils.timezone
import django_agentexec.ids
from django.db import migrations, models


def create_metadata_index(apps, schema_editor):
    """An index for containment queries on the metadata of conversations, as for activities; the table is empty."""
    if schema_editor.connection.vendor == "postgresql":
        schema_editor.execute(
            "CREATE INDEX agentexec_conversation_metadata ON agentexec_conversation USING gin (metadata jsonb_path_ops)"
        )


def drop_metadata_index(apps, schema_editor):
    if schema_editor.connection.vendor == "postgresql":
        schema_editor.execute("DROP INDEX agentexec_conversation_metadata")


class Migration(migrations.Migration):

    dependencies = [
        ('agentexec', '0006_labels'),
    ]

    operations = [
        migrations.CreateModel(
            name='Conversation',
            fields=[
                ('id', models.UUIDField(default=django_agentexec.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('session_id', models.CharField(max_length=255, unique=True, verbose_name='session id')),
                ('title', models.CharField(blank=True, default='', max_length=255, verbose_name='title')),
                ('owner', models.CharField(blank=True, help_text='Primary key of a user; null: code.', max_length=255, null=True, verbose_name='owner')),
                ('metadata', models.JSONField(blank=True, default=dict, verbose_name='metadata')),
                ('created_at', models.DateTimeField(default=django.utils.timezone.now, verbose_name='created at')),
                ('updated_at', models.DateTimeField(default=django.utils.timezone.now, verbose_name='updated at')),
            ],
            options={
                'verbose_name': 'conversation',
                'verbose_name_plural': 'conversations',
                'db_table': 'agentexec_conversation',
                'ordering': ['-id'],
                'default_permissions': ('view', 'delete'),
            },
        ),
        migrations.CreateModel(
            name='ConversationItem',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('position', models.PositiveIntegerField(help_text='Not decreasing from 0; equal if two writers wrote at the same moment.', verbose_name='position')),
                ('item', models.JSONField(verbose_name='item')),
                ('key', models.CharField(blank=True, default='', help_text='Its place among the items that the activity writes; a later attempt writes none twice.', max_length=255, verbose_name='key')),
                ('removed_by', models.UUIDField(blank=True, help_text='The turn that removed it; null: it is part of the history.', null=True, verbose_name='removed by')),
                ('created_at', models.DateTimeField(default=django.utils.timezone.now, verbose_name='created at')),
            ],
            options={
                'verbose_name': 'conversation item',
                'verbose_name_plural': 'conversation items',
                'db_table': 'agentexec_conversation_item',
                'ordering': ['position', 'id'],
                'default_permissions': ('view',),
            },
        ),
        migrations.AddField(
            model_name='activity',
            name='cost',
            field=models.DecimalField(blank=True, decimal_places=10, help_text='US dollars, summed over all priced model calls; null: no call has a known price.', max_digits=20, null=True, verbose_name='cost'),
        ),
        migrations.AddField(
            model_name='activity',
            name='traceparent',
            field=models.CharField(blank=True, db_default='', default='', help_text='W3C trace context of the request that enqueued it.', max_length=55, verbose_name='traceparent'),
        ),
        migrations.AddField(
            model_name='activity',
            name='waiting_for',
            field=models.CharField(blank=True, choices=[('children', 'Children'), ('approval', 'Approval'), ('answer', 'Answer'), ('budget', 'Budget'), ('event', 'Event')], db_column='waiting_reason', db_default='', default='', help_text='While suspended: the reason.', max_length=10, verbose_name='waiting for'),
        ),
        migrations.AlterField(
            model_name='activity',
            name='blocking_child_id',
            field=models.UUIDField(blank=True, db_column='waiting_for', help_text='While suspended: the child whose end is examined next, or itself if it waits for a decision.', null=True, verbose_name='blocking child id'),
        ),
        migrations.CreateModel(
            name='AgentCall',
            fields=[
                ('id', models.UUIDField(default=django_agentexec.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('path', models.CharField(blank=True, default='', help_text='The run of an agent that made it.', max_length=500, verbose_name='path')),
                ('kind', models.CharField(choices=[('agent', 'Agent'), ('model', 'Model'), ('tool', 'Tool'), ('once', 'Once')], max_length=10, verbose_name='kind')),
                ('ordinal', models.PositiveIntegerField(default=0, help_text='The number of the model call within its path, from 0.', verbose_name='ordinal')),
                ('call_id', models.CharField(blank=True, default='', help_text='The id that the model gave a tool call.', max_length=200, verbose_name='call id')),
                ('agent', models.CharField(blank=True, default='', max_length=200, verbose_name='agent')),
                ('name', models.CharField(blank=True, default='', help_text='Of the model or tool.', max_length=200, verbose_name='name')),
                ('state', models.CharField(choices=[('started', 'Started'), ('done', 'Done'), ('failed', 'Failed'), ('in_doubt', 'In doubt'), ('rejected', 'Rejected')], default='started', max_length=10, verbose_name='state')),
                ('digest', models.CharField(blank=True, default='', help_text='Of the request.', max_length=64, verbose_name='digest')),
                ('has_changed', models.BooleanField(default=False, help_text='Whether a later attempt made another request at this place.', verbose_name='has changed')),
                ('request', models.JSONField(blank=True, null=True, verbose_name='request')),
                ('arguments', models.JSONField(blank=True, null=True, verbose_name='arguments')),
                ('output', models.JSONField(blank=True, null=True, verbose_name='output')),
                ('error', models.TextField(blank=True, default='', help_text='One line.', verbose_name='error')),
                ('input_tokens', models.PositiveIntegerField(default=0, verbose_name='input tokens')),
                ('cached_tokens', models.PositiveIntegerField(default=0, help_text='Part of the input tokens.', verbose_name='cached tokens')),
                ('output_tokens', models.PositiveIntegerField(default=0, verbose_name='output tokens')),
                ('reasoning_tokens', models.PositiveIntegerField(default=0, help_text='Part of the output tokens.', verbose_name='reasoning tokens')),
                ('cost', models.DecimalField(blank=True, decimal_places=10, help_text='US dollars; null: no price is known.', max_digits=20, null=True, verbose_name='cost')),
                ('attempt', models.PositiveIntegerField(default=1, help_text='The attempt that made the call.', verbose_name='attempt')),
                ('fence', models.BigIntegerField(default=0, help_text='The claim under which the call was made.', verbose_name='fence')),
                ('set_aside', models.BigIntegerField(default=0, help_text='0 while it is replayed, then the fence before which it was set aside.', verbose_name='set aside')),
                ('started_at', models.DateTimeField(default=django.utils.timezone.now, verbose_name='started at')),
                ('finished_at', models.DateTimeField(blank=True, null=True, verbose_name='finished at')),
                ('activity', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name='calls', to='agentexec.activity', verbose_name='activity')),
            ],
            options={
                'verbose_name': 'agent call',
                'verbose_name_plural': 'agent calls',
                'db_table': 'agentexec_call',
                'ordering': ['id'],
                'default_permissions': ('view',),
            },
        ),
        migrations.CreateModel(
            name='Approval',
            fields=[
                ('id', models.UUIDField(default=django_agentexec.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('kind', models.CharField(choices=[('approval', 'Approval'), ('question', 'Question'), ('in_doubt', 'Call in doubt')], default='approval', max_length=10, verbose_name='kind')),
                ('path', models.CharField(blank=True, default='', max_length=500, verbose_name='path')),
                ('call_id', models.CharField(blank=True, default='', max_length=200, verbose_name='call id')),
                ('number', models.PositiveSmallIntegerField(default=0, help_text='Counts repeated requests for the same call, from 0.', verbose_name='number')),
                ('set_aside', models.BigIntegerField(default=0, help_text='As of calls.', verbose_name='set aside')),
                ('agent', models.CharField(blank=True, default='', max_length=200, verbose_name='agent')),
                ('tool', models.CharField(max_length=200, verbose_name='tool')),
                ('arguments', models.JSONField(blank=True, default=dict, verbose_name='arguments')),
                ('changed_arguments', models.JSONField(blank=True, help_text='The arguments that were approved in place of those of the request.', null=True, verbose_name='changed arguments')),
                ('title', models.TextField(blank=True, default='', help_text='The question, in words for people.', verbose_name='title')),
                ('choices', models.JSONField(blank=True, help_text='Possible answers; null: free text.', null=True, verbose_name='choices')),
                ('status', models.CharField(choices=[('pending', 'Pending'), ('approved', 'Approved'), ('rejected', 'Rejected'), ('expired', 'Expired'), ('void', 'Void')], default='pending', max_length=10, verbose_name='status')),
                ('scope', models.CharField(choices=[('once', 'This call'), ('run', 'All calls of this run')], default='once', max_length=5, verbose_name='scope')),
                ('answer', models.JSONField(blank=True, help_text='The answer to a question, or the output of a call in doubt.', null=True, verbose_name='answer')),
                ('reason', models.TextField(blank=True, default='', help_text='The agent reads it.', verbose_name='reason')),
                ('requested_at', models.DateTimeField(default=django.utils.timezone.now, verbose_name='requested at')),
                ('expires_at', models.DateTimeField(blank=True, null=True, verbose_name='expires at')),
                ('on_expiry', models.CharField(choices=[('approve', 'Approve'), ('reject', 'Reject'), ('fail', 'Fail the activity')], default='reject', max_length=10, verbose_name='on expiry')),
                ('decided_by', models.CharField(blank=True, help_text='Primary key of a user; null: code.', max_length=255, null=True, verbose_name='decided by')),
                ('decided_at', models.DateTimeField(blank=True, null=True, verbose_name='decided at')),
                ('attempt', models.PositiveIntegerField(default=1, verbose_name='attempt')),
                ('activity', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name='approvals', to='agentexec.activity', verbose_name='activity')),
            ],
            options={
                'verbose_name': 'approval',
                'verbose_name_plural': 'approvals',
                'db_table': 'agentexec_approval',
                'ordering': ['id'],
                'permissions': [('decide_approval', 'Can decide approvals')],
                'default_permissions': ('view',),
            },
        ),
        migrations.AddField(
            model_name='activity',
            name='conversation',
            field=models.ForeignKey(blank=True, db_index=False, null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='activities', to='agentexec.conversation', verbose_name='conversation'),
        ),
        migrations.AddIndex(
            model_name='activity',
            index=models.Index(condition=models.Q(('conversation__isnull', False)), fields=['conversation'], name='agentexec_in_conversation'),
        ),
        migrations.AddIndex(
            model_name='activity',
            index=models.Index(condition=models.Q(('cost__isnull', False)), fields=['cost', 'agent_id'], name='agentexec_cost'),
        ),
        migrations.AddField(
            model_name='activitylog',
            name='type',
            field=models.CharField(blank=True, choices=[('status', 'Status'), ('progress', 'Progress'), ('handoff', 'Handoff'), ('approval', 'Approval')], db_default='', default='', help_text='The kind of event.', max_length=10, verbose_name='type'),
        ),
        migrations.AddField(
            model_name='conversationitem',
            name='activity',
            field=models.ForeignKey(blank=True, db_index=False, help_text='The activity that wrote it; null: code outside of activities.', null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='conversation_items', to='agentexec.activity', verbose_name='activity'),
        ),
        migrations.AddField(
            model_name='conversationitem',
            name='conversation',
            field=models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name='items', to='agentexec.conversation', verbose_name='conversation'),
        ),
        migrations.CreateModel(
            name='ConversationTurn',
            fields=[
                ('id', models.UUIDField(default=django_agentexec.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('scope', models.CharField(blank=True, default='', help_text='The step.', max_length=200, verbose_name='scope')),
                ('start', models.PositiveIntegerField(help_text='The position after the last item at its beginning.', verbose_name='start')),
                ('created_at', models.DateTimeField(default=django.utils.timezone.now, verbose_name='created at')),
                ('activity', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name='conversation_turns', to='agentexec.activity', verbose_name='activity')),
                ('conversation', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='turns', to='agentexec.conversation', verbose_name='conversation')),
            ],
            options={
                'verbose_name': 'conversation turn',
                'verbose_name_plural': 'conversation turns',
                'db_table': 'agentexec_conversation_turn',
                'default_permissions': (),
            },
        ),
        migrations.AddConstraint(
            model_name='conversationturn',
            constraint=models.UniqueConstraint(fields=('activity', 'conversation', 'scope'), name='agentexec_turn'),
        ),
        migrations.AddIndex(
            model_name='conversation',
            index=models.Index(condition=models.Q(('owner__isnull', False)), fields=['owner', 'id'], name='agentexec_conversation_owner'),
        ),
        migrations.AddIndex(
            model_name='agentcall',
            index=models.Index(fields=['name', 'activity'], name='agentexec_call_name'),
        ),
        migrations.AddConstraint(
            model_name='agentcall',
            constraint=models.UniqueConstraint(fields=('activity', 'set_aside', 'path', 'kind', 'ordinal', 'call_id'), name='agentexec_call_place'),
        ),
        migrations.AddIndex(
            model_name='approval',
            index=models.Index(condition=models.Q(('status', 'pending')), fields=['expires_at', 'id'], name='agentexec_pending'),
        ),
        migrations.AddConstraint(
            model_name='approval',
            constraint=models.UniqueConstraint(fields=('activity', 'set_aside', 'path', 'kind', 'call_id', 'number'), name='agentexec_approval_call'),
        ),
        migrations.AddIndex(
            model_name='conversationitem',
            index=models.Index(fields=['conversation', 'position', 'id'], name='agentexec_item_position'),
        ),
        migrations.AddConstraint(
            model_name='conversationitem',
            constraint=models.UniqueConstraint(condition=models.Q(('activity__isnull', False)), fields=('activity', 'conversation', 'key'), name='agentexec_item_key'),
        ),
        migrations.RunPython(create_metadata_index, drop_metadata_index),
    ]
