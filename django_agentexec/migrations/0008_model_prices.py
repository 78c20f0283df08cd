"""Prices of models, and the index of model calls by time.

The new column of calls has a default of the database: nothing is rewritten, and the previous release keeps working.
"""

import django.core.validators
import django_agentexec.models.prices
from decimal import Decimal
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('agentexec', '0007_durable_agents'),
    ]

    operations = [
        migrations.CreateModel(
            name='ModelPrice',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('pattern', models.CharField(help_text='Name of the model, or a pattern with * and ?, such as gpt-5*. Letter case does not matter.', max_length=200, validators=[django_agentexec.models.prices.validate_pattern], verbose_name='model')),
                ('provider', models.CharField(blank=True, default='', help_text="A provider such as openai, or the host name of the model's server; empty: every provider.", max_length=100, validators=[django_agentexec.models.prices.validate_pattern], verbose_name='provider')),
                ('valid_from', models.DateField(default=django_agentexec.models.prices.today, help_text='Calls that start on this day or later have this price.', verbose_name='valid from')),
                ('input_price', models.DecimalField(decimal_places=6, help_text='US dollars for a million input tokens.', max_digits=14, validators=[django.core.validators.MinValueValidator(Decimal('0'))], verbose_name='input price')),
                ('cached_price', models.DecimalField(blank=True, decimal_places=6, help_text="US dollars for a million input tokens from the provider's cache; empty: the input price.", max_digits=14, null=True, validators=[django.core.validators.MinValueValidator(Decimal('0'))], verbose_name='cached price')),
                ('output_price', models.DecimalField(decimal_places=6, help_text='US dollars for a million output tokens.', max_digits=14, validators=[django.core.validators.MinValueValidator(Decimal('0'))], verbose_name='output price')),
            ],
            options={
                'verbose_name': 'model price',
                'verbose_name_plural': 'model prices',
                'db_table': 'agentexec_model_price',
                'ordering': ['pattern', 'provider', '-valid_from'],
            },
        ),
        migrations.AddField(
            model_name='agentcall',
            name='provider',
            field=models.CharField(blank=True, db_default='', default='', help_text='Of the model: a provider such as openai, or the host name of its server; empty: unknown.', max_length=100, verbose_name='provider'),
        ),
        migrations.AddIndex(
            model_name='agentcall',
            index=models.Index(condition=models.Q(('kind', 'model')), fields=['started_at'], name='agentexec_call_model'),
        ),
        migrations.AddConstraint(
            model_name='modelprice',
            constraint=models.UniqueConstraint(fields=('pattern', 'provider', 'valid_from'), name='agentexec_price'),
        ),
        migrations.AddConstraint(
            model_name='modelprice',
            constraint=models.CheckConstraint(condition=models.Q(('input_price__gte', 0), ('output_price__gte', 0), models.Q(('cached_price__isnull', True), ('cached_price__gte', 0), _connector='OR')), name='agentexec_price_not_negative'),
        ),
    ]
