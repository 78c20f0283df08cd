"""Traces leave the process only if a key is set, and are sent out before a worker stops.

The SDK by itself exports every trace, prompts included, to whoever `OPENAI_API_KEY` belongs to, and that
variable is set wherever OpenAI's models are used. Here the setting `TRACING_API_KEY` decides alone.
"""

from __future__ import annotations

import logging
import threading
from typing import Any

from agents import flush_traces, set_trace_processors, set_tracing_disabled, set_tracing_export_api_key
from agents.tracing import TracingProcessor, get_trace_provider
from agents.tracing.processors import default_processor
from agents.tracing.provider import DefaultTraceProvider
from django.dispatch import receiver

from django_agentexec.conf import conf
from django_agentexec.signals import worker_started, worker_stopped

logger = logging.getLogger(__name__)

# What the SDK itself allows for its last export at the end of a process. A worker's process does not
# come that far: multiprocessing ends its children without calling exit handlers.
FLUSH_SECONDS = 5.0


@receiver(worker_started, dispatch_uid="agentexec.tracing.configure")
def configure_tracing(**signal: Any) -> None:
    """Give the SDK's exporter its key, or take the exporter out if there is none.

    Processors that the project has added, and a trace provider of its own, are left alone. Called when
    a worker starts, and before each run, because a run need not be inside of a worker.
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
            "This version of the agents SDK hides its trace processors: tracing is switched off, "
            "because AGENTEXEC['TRACING_API_KEY'] is not set."
        )
        set_tracing_disabled(True)
    elif default_processor() in processors:
        set_trace_processors([each for each in processors if each is not default_processor()])


@receiver(worker_stopped, dispatch_uid="agentexec.tracing.flush")
def flush_tracing(**signal: Any) -> None:
    """Send out what the trace processors still hold, and wait for it `FLUSH_SECONDS` at most."""
    # Flushing has no limit of its own: one batch may be tried three times for a minute each.
    thread = threading.Thread(target=flush_traces, name="agentexec-flush-traces", daemon=True)
    thread.start()
    thread.join(FLUSH_SECONDS)
    if thread.is_alive():
        logger.warning("Traces could not be exported within %s seconds; the rest is dropped.", FLUSH_SECONDS)


def _processors(provider: DefaultTraceProvider) -> tuple[TracingProcessor, ...] | None:
    # The SDK can replace all processors, but not name them: they have to be looked up.
    found = getattr(getattr(provider, "_multi_processor", None), "_processors", None)
    return found if isinstance(found, tuple) else None
