"""`manage.py demo`: starts a server and a pool, runs the agents, and shows their results."""

from __future__ import annotations

import signal
import time
from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from uuid import UUID

from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError
from django.urls import reverse

from django_agentexec import approvals
from django_agentexec.conf import conf
from django_agentexec.embedded import embedded_dir, ensure_server
from django_agentexec.models import Activity, Approval, Status, WaitingFor
from example_project.documents.accounts import DEMO, make_demo_user
from example_project.documents.demo.children import HOST, Child, ChildDied, free_port, is_free, wait_for_port
from example_project.documents.demo.screen import Screen
from example_project.documents.demo.work import enqueue_all, set_offline_price
from example_project.documents.model import ModelChoice, model_choice

DEFAULT_PORT = 8000
REFRESH_INTERVAL = 0.2  # seconds between two queries


class Command(BaseCommand):
    """Command that runs the example's agents on the documents of the library."""

    help = "Start a server and a pool, run the agents on the example documents, and show their results."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the options."""
        parser.add_argument("--once", action="store_true", help="End when the last activity has ended.")
        parser.add_argument(
            "--port",
            type=int,
            help=f"Port of the web server; {DEFAULT_PORT} or the next free port by default.",
        )
        parser.add_argument(
            "--timeout", type=float, default=600.0, help="Seconds the activities may take together (600)."
        )

    def handle(self, *args: Any, once: bool, port: int | None, timeout: float, **options: Any) -> None:
        """Run the demo; exits with 0 if every activity completed, else with 1."""
        signal.signal(signal.SIGTERM, _interrupt)
        try:
            model, port = model_choice(), _choose_port(port)
            with ExitStack() as children:
                checks = self._start(port, children)
                self._introduce(model, port, make_demo_user())
                activities = self._run(timeout, checks, approves=once)
                if not once:
                    self._stay(port, checks)
            _require_complete(activities)
        except (ChildDied, ImproperlyConfigured, TimeoutError) as error:
            raise CommandError(str(error)) from error
        except KeyboardInterrupt:
            if once:
                raise CommandError("Interrupted before the end.") from None
            self.stdout.write("\nStopped.")

    def _start(self, port: int, stack: ExitStack) -> Sequence[Callable[[], None]]:
        """Migrate, and start all processes; return functions that raise if a process has died."""
        call_command("migrate", verbosity=0, interactive=False)
        set_offline_price()
        if conf.EMBEDDED:
            self.stdout.write(f"Embedded Valkey: {ensure_server()}")
        log_dir = Path(embedded_dir())
        server = Child("server", ["runserver", "--noreload", f"{HOST}:{port}"], log_dir)
        stack.callback(server.stop)
        pool = Child("pool", ["runagentworkers"], log_dir)
        stack.callback(pool.stop)
        wait_for_port(port, server)
        return server.check, pool.check

    def _introduce(self, model: ModelChoice, port: int, password: str) -> None:
        site = f"http://{HOST}:{port}"
        self.stdout.write(f"The agents use {model}.")
        self.stdout.write(f"Watch them at   {site}{reverse('documents:enter', args=[password])}")
        self.stdout.write(f"The admin is at {site}{reverse('admin:index')} (user {DEMO}, password {password})\n")

    def _run(self, timeout: float, checks: Sequence[Callable[[], None]], *, approves: bool) -> list[Activity]:
        """Enqueue the activities and show their progress until all have ended or wait for a person; return them.

        With `approves`, the letter is approved here, since nobody is there to do it.
        """
        subjects = enqueue_all(DEMO)
        screen = Screen(self.stdout, subjects)
        deadline = time.monotonic() + timeout
        while True:
            activities = _load(list(subjects))
            screen.show(activities)
            if approves:
                self._approve(activities)
            if not any(_is_in_progress(activity, approves) for activity in activities):
                break
            for check in checks:
                check()
            if time.monotonic() > deadline:
                screen.summarize(activities)
                raise TimeoutError(f"Not all activities ended within {timeout:.0f} s; --timeout sets a longer limit.")
            time.sleep(REFRESH_INTERVAL)
        screen.summarize(activities)
        return activities

    def _approve(self, activities: Sequence[Activity]) -> None:
        waiting = [activity.agent_id for activity in activities if activity.waiting_for == WaitingFor.APPROVAL]
        for approval in Approval.objects.pending().filter(activity_id__in=waiting) if waiting else ():
            approvals.approve(approval.id, by="demo --once", reason="Approved by the demo.")

    def _stay(self, port: int, checks: Sequence[Callable[[], None]]) -> None:
        self.stdout.write(
            f"\nServer and pool keep running at http://{HOST}:{port}/ until Ctrl-C. Start a run there, cancel it, "
            "run it again. The letter waits for you: approve or reject it on its page, or in the admin at "
            f"http://{HOST}:{port}{reverse('admin:agentexec_approval_changelist')}"
        )
        while True:
            for check in checks:
                check()
            time.sleep(1)


def _load(agent_ids: list[UUID]) -> list[Activity]:
    return list(Activity.objects.filter(agent_id__in=agent_ids).order_by("agent_id"))


def _is_in_progress(activity: Activity, approves: bool) -> bool:
    """Return whether to wait for an activity: one that waits for the visitor's approval is left to the visitor."""
    return activity.is_active and (approves or activity.waiting_for != WaitingFor.APPROVAL)


def _choose_port(asked: int | None) -> int:
    if asked is not None:
        if not is_free(asked):
            raise CommandError(f"Port {asked} is in use. Choose another with --port, or leave it out.")
        return asked
    port = free_port(DEFAULT_PORT)
    if port is None:
        raise CommandError(f"No port from {DEFAULT_PORT} on is free. Name one with --port.")
    return port


def _require_complete(activities: list[Activity]) -> None:
    failed = [activity for activity in activities if activity.status != Status.COMPLETE]
    if failed:
        raise CommandError(f"{len(failed)} of {len(activities)} activities did not complete.")


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt
