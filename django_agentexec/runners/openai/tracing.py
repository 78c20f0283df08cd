"""Export of traces: only if a key is configured, and flushed before a worker stops.

By default the SDK exports every trace, including prompts, to the owner of `OPENAI_API_KEY`, and that variable is set
wherever OpenAI's models are used. In this package only the setting `TRACING_API_KEY` enables the export.
"""

from __future__ import annotations

import logging
from typing import Any

from agents import flush_traces, set_trace_processors, set_tracing_disabled, set_tracing_export_api_key
from agents.tracing import TracingProcessor, get_trace_provider
from agents.tracing.processors import default_processor
from agents.tracing.provider import DefaultTraceProvider
from django.dispatch import receiver

from django_agentexec.background import start_daemon_thread
from django_agentexec.conf import conf
from django_agentexec.signals import worker_started, worker_stopped

logger = logging.getLogger(__name__)

# The limit of the SDK for its last export at the exit of a process. Worker processes do not run exit handlers,
# because multiprocessing ends its children without them.
FLUSH_TIMEOUT = 5.0  # seconds


@receiver(worker_started, dispatch_uid="agentexec.tracing.configure")
def configure_tracing(**signal: Any) -> None:
    """Pass the key to the SDK's exporter, or remove the exporter if no key is configured.

    Processors and trace providers of the project are not changed. Called when a worker starts and before each run,
    because runs also occur outside of workers.
    """
    if conf.TRACING_API_KEY:
        set_tracing_export_api_key(conf.TRACING_API_KEY)
        return
    provider = get_trace_provider()
    if not isinstance(provider, DefaultTraceProvider):
        return
    processors = _processors(provider)
    if processors is None:
        logger.warning(
            "This version of the agents SDK hides its trace processors. Tracing is disabled, "
            "because AGENTEXEC['TRACING_API_KEY'] is not set."
        )
        set_tracing_disabled(True)
    elif default_processor() in processors:
        set_trace_processors([each for each in processors if each is not default_processor()])


@receiver(worker_stopped, dispatch_uid="agentexec.tracing.flush")
def flush_tracing(**signal: Any) -> None:
    """Flush the trace processors and wait at most `FLUSH_TIMEOUT` seconds."""
    # Flushing has no time limit: a batch may be tried three times for a minute each.
    thread = start_daemon_thread("agentexec-flush-traces", flush_traces)
    thread.join(FLUSH_TIMEOUT)
    if thread.is_alive():
        logger.warning("Could not export all traces within %s seconds; the rest is dropped.", FLUSH_TIMEOUT)


def _processors(provider: DefaultTraceProvider) -> tuple[TracingProcessor, ...] | None:
    # The SDK has a function to replace all processors, but no function to list them.
    found = getattr(getattr(provider, "_multi_processor", None), "_processors", None)
    return found if isinstance(found, tuple) else None
