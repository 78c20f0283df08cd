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
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _

from django_agentexec import __version__
from django_agentexec.activity.store import database
from django_agentexec.conf import conf
from django_agentexec.exceptions import AgentExecError, InvalidOption, QueueMisconfigured, QueueUnavailable
from django_agentexec.logs import configure_logging
from django_agentexec.models import Activity
from django_agentexec.parsing import parse_digits
from django_agentexec.pool.autoreload import CodeWatcher, is_trial
from django_agentexec.pool.queue_weights import read_queues
from django_agentexec.pool.services import ServiceFactory, registered_services
from django_agentexec.pool.supervisor import Pool, PoolOptions
from django_agentexec.queues import get_queue
from django_agentexec.tasks.registry import registry
from django_agentexec.terminal.pipes import PipeSafeCommand
from django_agentexec.worker.options import WorkerOptions

_LEVELS = {0: "ERROR", 1: "INFO", 2: "DEBUG", 3: "DEBUG"}

EPILOG = _("""
exit codes:
  0  drained after SIGTERM or Ctrl-C, or the burst is done
  1  could not start: configuration, tasks, database or queue (see the error message)
  2  wrong arguments
  3  stopped, but processes had to be killed; their activities run again on other workers

signals:
  SIGTERM, SIGINT   stop claiming, wait for running activities (GRACE_PERIOD), return the rest to the queue, exit
  a second signal   return all activities to the queue and exit at once
""")


class Command(PipeSafeCommand):
    """Run worker processes that execute enqueued activities."""

    requires_migrations_checks = True

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        self.help = gettext("Run a pool of worker processes that execute enqueued activities.")
        return super().create_parser(
            prog_name, subcommand, epilog=str(EPILOG), formatter_class=argparse.RawDescriptionHelpFormatter, **kwargs
        )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--workers", type=_positive, metavar="N", help=gettext("number of processes (setting WORKERS)")
        )
        parser.add_argument(
            "--concurrency",
            type=_positive,
            metavar="N",
            help=gettext("activities at once per process (setting CONCURRENCY)"),
        )
        parser.add_argument(
            "--queues",
            metavar="A,B",
            help=gettext("queues to claim from, in this order, or by weight: A:3,B:1 (settings QUEUES, QUEUE_WEIGHTS)"),
        )
        parser.add_argument("--burst", action="store_true", help=gettext("exit when nothing is due within 5 seconds"))
        parser.add_argument(
            "--autoreload", action="store_true", help=gettext("restart when code changes (development)")
        )
        scheduling = parser.add_mutually_exclusive_group()
        scheduling.add_argument("--no-scheduler", action="store_true", help=gettext("run no schedules in this pool"))
        scheduling.add_argument(
            "--scheduler-only", action="store_true", help=gettext("run only schedules, without worker processes")
        )
        parser.add_argument(
            "--max-tasks-per-child", type=_positive, metavar="N", help=gettext("replace a process after N activities")
        )
        parser.add_argument(
            "--max-rss", type=_positive, metavar="MB", help=gettext("replace a process that uses more memory than this")
        )

    def check_migrations(self) -> None:
        """Refuse to start without the required tables; for other apps print Django's notice."""
        alias = database()
        try:
            executor = MigrationExecutor(connections[alias])
            for label in [Activity._meta.app_label, *(service.app_label for service in registered_services().values())]:
                if not executor.migration_plan(executor.loader.graph.leaf_nodes(label)):
                    continue
                migrate = "migrate" if alias == DEFAULT_DB_ALIAS else f"migrate --database {alias}"
                raise CommandError(
                    gettext(
                        "DATABASES[%(alias)r] has unapplied migrations of %(label)s. Run manage.py %(migrate)s first."
                    )
                    % {"alias": alias, "label": label, "migrate": migrate}
                )
            super().check_migrations()
        except DatabaseError as error:
            raise CommandError(f"DATABASES[{alias!r}] cannot be used: {error}".rstrip()) from error

    def handle(self, *args: Any, **options: Any) -> None:
        # With --autoreload the watcher imports them: after an error it waits for a change.
        tasks = [] if options["autoreload"] else _import_tasks()
        try:
            pool_options = self._pool_options(options)
            level = _LEVELS[options["verbosity"]]
            configure_logging(level)
            if not get_queue().crosses_processes:
                raise CommandError(
                    gettext(
                        "The queue backend %(queue_backend)s exists only in one process, so workers cannot claim "
                        "its activities. Use it in tests, with django_agentexec.testing.drain()."
                    )
                    % {"queue_backend": conf.QUEUE_BACKEND}
                )
            if pool_options.autoreload and is_trial():
                _import_tasks()
                return
            pool = Pool(pool_options)
            self._banner(pool, pool_options, tasks)
            watcher = CodeWatcher(pool.reload)
            if pool_options.autoreload:
                watcher.start()
            code = pool.run()
        except QueueMisconfigured as error:
            raise CommandError(str(error)) from error
        except QueueUnavailable as error:
            raise CommandError(
                gettext("%(error)s Check that it is running and that %(server_setting)s names its address.")
                % {"error": error, "server_setting": get_queue().server_setting}
            ) from error
        except (AgentExecError, ImproperlyConfigured) as error:
            raise CommandError(str(error)) from error
        if pool.wants_reload:
            watcher.restart()
        self.say(gettext("Stopped."))
        if code:
            sys.exit(code)

    def _pool_options(self, options: dict[str, Any]) -> PoolOptions:
        try:
            queues, weights = read_queues(options["queues"])
        except InvalidOption as error:
            source = "--queues" if options["queues"] else "AGENTEXEC['QUEUES'], AGENTEXEC['QUEUE_WEIGHTS']"
            raise CommandError(f"{source}: {error}") from error
        worker = WorkerOptions(
            queues=queues,
            weights=weights,
            concurrency=options["concurrency"] or conf.CONCURRENCY,
            burst=options["burst"],
            max_tasks=options["max_tasks_per_child"],
            max_rss=options["max_rss"] << 20 if options["max_rss"] else None,
            log_level=_LEVELS[options["verbosity"]],
        )
        workers = 0 if options["scheduler_only"] else options["workers"] or conf.WORKERS
        services = _services(no_scheduler=options["no_scheduler"], scheduler_only=options["scheduler_only"])
        if options["burst"]:
            if options["scheduler_only"]:
                raise CommandError(gettext("--scheduler-only runs until it is stopped; omit --burst."))
            services = {}  # a burst runs existing activities and creates none
        return PoolOptions(worker, workers=workers, autoreload=options["autoreload"], services=tuple(services.values()))

    def _banner(self, pool: Pool, options: PoolOptions, tasks: list[str]) -> None:
        worker = options.worker
        if options.autoreload:
            known = gettext("imported again when code changes")
        else:
            known = ", ".join(tasks) or gettext("none; define them in the agents.py of an installed app")
        processes = ngettext("%(number)d process", "%(number)d processes", options.workers)
        activities = ngettext("%(number)d activity", "%(number)d activities", worker.concurrency)
        slots = f"{processes % {'number': options.workers}} x {activities % {'number': worker.concurrency}}"
        lease = gettext("%(lease)g s, grace period %(grace)g s")
        rows = [
            (gettext("pool"), pool.name),
            (gettext("queues"), ", ".join(_queue_texts(worker))),
            (gettext("tasks"), known),
            (gettext("slots"), slots),
            (gettext("services"), ", ".join(service.name for service in options.services) or gettext("none")),
            (gettext("lease"), lease % {"lease": conf.LEASE, "grace": conf.GRACE_PERIOD}),
        ]
        if worker.burst:
            rows.append((gettext("burst"), gettext("exits when nothing is due within 5 seconds")))
        width = max(12, *(len(label) for label, _value in rows))
        settings = os.environ.get("DJANGO_SETTINGS_MODULE", "?")
        head = gettext("settings %(settings)s") % {"settings": settings}
        self.say(f"django-agentexec {__version__}, Django {django.get_version()}, {head}")
        for label, value in rows:
            self.say(f"  {label:<{width}} {value}")
        if not worker.burst:
            self.say(gettext("Quit with Ctrl-C."))


def _queue_texts(worker: WorkerOptions) -> list[str]:
    if not worker.weights:
        return list(worker.queues)
    return [f"{name}:{weight}" for name, weight in zip(worker.queues, worker.weights, strict=True)]


def _services(*, no_scheduler: bool, scheduler_only: bool) -> dict[str, ServiceFactory]:
    """Return the services of the pool, by name."""
    services = dict(registered_services())
    if scheduler_only:
        if "scheduler" not in services:
            raise CommandError(gettext("--scheduler-only needs 'django_agentexec.schedules' in INSTALLED_APPS."))
        return {"scheduler": services["scheduler"]}
    if no_scheduler:
        services.pop("scheduler", None)
    return services


def _import_tasks() -> list[str]:
    """Import all tasks and return their names. An error ends the command; in workers it would fail each activity."""
    try:
        return sorted(definition.name for definition in registry)
    except Exception as error:
        raise CommandError(
            gettext("Could not import the tasks of the project:\n\n%(traceback)s")
            % {"traceback": traceback.format_exc()}
        ) from error


def _positive(text: str) -> int:
    value = parse_digits(text)
    if not value:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return value
