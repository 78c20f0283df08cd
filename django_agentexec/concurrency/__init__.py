"""Fairness between tenants: limits of rows, and pauses of queues, tasks and tenants.

from django_agentexec import concurrency

concurrency.pause("task", "research_company", reason="provider outage")
concurrency.pause("tenant", "organization_id=7")
concurrency.resume("task", "research_company")
"""

from __future__ import annotations

from .commands import apause, aresume, pause, resume

__all__ = ["apause", "aresume", "pause", "resume"]
