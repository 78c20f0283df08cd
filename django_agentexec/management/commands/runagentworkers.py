"""`manage.py runagentworkers`: run the pool."""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from typing import Any

import django
from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import CommandError, CommandParser
from django.db import DEFAULT_DB_ALIAS, DatabaseError, connections
from django.db.migrations.executor import MigrationExecutor

from django_agentexec import __version__
from django_agentexec.activity.store import database
from django_agentexec.conf import conf
from django_agentexec.exceptions import AgentExecError, InvalidOption, QueueMisconfigured, QueueUnavailable
from django_agentexec.models import Activity
from django_agentexec.parsing import parse_digits
from django_agentexec.pool.options import PoolOptions
from django_agentexec.pool.services import ServiceFactory, registered_services
from django_agentexec.pool.supervisor import Pool
from django_agentexec.queues import get_queue
from django_agentexec.tasks.options import validate_queue
from django_agentexec.tasks.registry import registry
from django_agentexec.terminal.pipes import PipeSafeCommand
from django_agentexec.worker.logs import configure_logging
from django_agentexec.worker.options import WorkerOptions

_LEVELS = {0: "ERROR", 1: "INFO", 2: "DEBUG", 3: "DEBUG"}

EPILOG = """
exit codes:
  0  drained after SIGTERM or Ctrl-C, or the burst is done
  1  could not start: configuration, tasks, database or queue (the message says which)
  2  wrong arguments
  3  stopped, but processes had to be killed; their activities run again elsewhere

signals:
  SIGTERM, SIGINT   claim nothing more, give running activities the grace period, return the rest, exit
  a second one      return everything to the queue and exit at once
"""


class Command(PipeSafeCommand):
    """Run worker processes that execute enqueued activities."""

    help = "Run a pool of worker processes that execute enqueued activities."
    requires_migrations_checks = True

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        return super().create_parser(
            prog_name, subcommand, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter, **kwargs
        )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--workers", type=_positive, metavar="N", help="processes (setting WORKERS)")
        parser.add_argument(
            "--concurrency", type=_positive, metavar="N", help="activities at once per process (setting CONCURRENCY)"
        )
        parser.add_argument("--queues", metavar="A,B", help="queues to listen to, the first one first (setting QUEUES)")
        parser.add_argument("--burst", action="store_true", help="exit when nothing is due within 5 seconds")
        parser.add_argument("--autoreload", action="store_true", help="start anew when code changes (development)")
        scheduling = parser.add_mutually_exclusive_group()
        scheduling.add_argument("--no-scheduler", action="store_true", help="run no schedules in this pool")
        scheduling.add_argument("--scheduler-only", action="store_true", help="run schedules, and no worker processes")
        parser.add_argument(
            "--max-tasks-per-child", type=_positive, metavar="N", help="replace a process after N activities"
        )
        parser.add_argument(
            "--max-rss", type=_positive, metavar="MB", help="replace a process that uses more memory than this"
        )

    def check_migrations(self) -> None:
        """Refuse to start where the rows cannot be written; other apps' migrations are a notice, as in Django."""
        alias = database()
        try:
            executor = MigrationExecutor(connections[alias])
            for label in [Activity._meta.app_label, *(duty.app_label for duty in registered_services().values())]:
                if not executor.migration_plan(executor.loader.graph.leaf_nodes(label)):
                    continue
                migrate = "migrate" if alias == DEFAULT_DB_ALIAS else f"migrate --database {alias}"
                raise CommandError(f"DATABASES[{alias!r}] lacks migrations of {label}. Run manage.py {migrate} first.")
            super().check_migrations()
        except DatabaseError as error:
            raise CommandError(f"DATABASES[{alias!r}] cannot be used: {error}".rstrip()) from error

    def handle(self, *args: Any, **options: Any) -> None:
        # With --autoreload the watcher imports them: a mistake is waited for to be mended, not the end.
        tasks = [] if options["autoreload"] else _import_tasks()
        try:
            pool_options = self._pool_options(options)
            level = _LEVELS[options["verbosity"]]
            configure_logging(level)
            if not get_queue().crosses_processes:
                raise CommandError(
                    f"The queue backend {conf.QUEUE_BACKEND} lives in one process, so no worker would see its "
                    "activities. Use it in tests, with django_agentexec.testing.drain()."
                )
            pool = Pool(pool_options)
            self._banner(pool, pool_options, tasks)
            if pool_options.autoreload:
                from django_agentexec.pool.autoreload import watch

                watch(pool.reload)
            code = pool.run()
        except QueueMisconfigured as error:
            raise CommandError(str(error)) from error
        except QueueUnavailable as error:
            raise CommandError(f"{error} Is it running, and does CACHES name the right address?") from error
        except (AgentExecError, ImproperlyConfigured) as error:
            raise CommandError(str(error)) from error
        if pool.wants_reload:
            from django_agentexec.pool.autoreload import restart

            restart()
        self.say("Stopped.")
        if code:
            sys.exit(code)

    def _pool_options(self, options: dict[str, Any]) -> PoolOptions:
        names = options["queues"].split(",") if options["queues"] else conf.QUEUES
        try:
            queues = tuple(dict.fromkeys(validate_queue(name.strip()) for name in names))
        except InvalidOption as error:
            raise CommandError(f"--queues: {error}") from error
        worker = WorkerOptions(
            queues=queues,
            concurrency=options["concurrency"] or conf.CONCURRENCY,
            burst=options["burst"],
            max_tasks=options["max_tasks_per_child"],
            max_rss=options["max_rss"] << 20 if options["max_rss"] else None,
            log_level=_LEVELS[options["verbosity"]],
        )
        workers = 0 if options["scheduler_only"] else options["workers"] or conf.WORKERS
        duties = _duties(no_scheduler=options["no_scheduler"], scheduler_only=options["scheduler_only"])
        if options["burst"]:
            if options["scheduler_only"]:
                raise CommandError("--scheduler-only runs until it is stopped; it goes without --burst.")
            duties = {}  # a burst does what is there, and makes nothing new
        return PoolOptions(worker, workers=workers, autoreload=options["autoreload"], duties=tuple(duties.values()))

    def _banner(self, pool: Pool, options: PoolOptions, tasks: list[str]) -> None:
        worker = options.worker
        if options.autoreload:
            known = "imported anew when code changes"
        else:
            known = ", ".join(tasks) or "none: has an installed app an agents.py?"
        self.say(
            f"django-agentexec {__version__}, Django {django.get_version()}, "
            f"settings {os.environ.get('DJANGO_SETTINGS_MODULE', '?')}\n"
            f"  pool         {pool.name}\n"
            f"  queues       {', '.join(worker.queues)}\n"
            f"  tasks        {known}\n"
            f"  slots        {options.workers} processes x {worker.concurrency} activities\n"
            f"  duties       {', '.join(duty.name for duty in options.duties) or 'none'}\n"
            f"  lease        {conf.LEASE:g} s, grace period {conf.GRACE_PERIOD:g} s\n"
            f"{'  burst        exits when nothing is due within 5 seconds' if worker.burst else 'Quit with Ctrl-C.'}"
        )


def _duties(*, no_scheduler: bool, scheduler_only: bool) -> dict[str, ServiceFactory]:
    """Return what the pool does besides supervising."""
    duties = dict(registered_services())
    if scheduler_only:
        if "scheduler" not in duties:
            raise CommandError("--scheduler-only needs 'django_agentexec.schedules' in INSTALLED_APPS.")
        return {"scheduler": duties["scheduler"]}
    if no_scheduler:
        duties.pop("scheduler", None)
    return duties


def _import_tasks() -> list[str]:
    """Import every task here first, and return their names: workers that cannot would fail each activity."""
    try:
        return sorted(definition.name for definition in registry)
    except Exception as error:
        raise CommandError(
            f"No task can run, since not every agents.py can be imported:\n\n{traceback.format_exc()}"
        ) from error


def _positive(text: str) -> int:
    value = parse_digits(text)
    if not value:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return value
