"""The judgment: each promise is a function from the history of a run to its findings; it is kept without findings.

A finding names what it found, so that it can be looked up. What is excused is excused by evidence of that very process
at that very time, never by the run having been rough; each function says what.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from itertools import pairwise

from tests.chaos.history import FOREVER, Execution, History, Row

TERMINAL = ("complete", "error", "canceled")
NOTICE = 3.0  # seconds for which a handler may still run after its process resumes; leases are checked once a second
TIME_LIMITED = ("count:", "lead:", "stream:", "watched")  # keys that may remain, since they expire
LASTING = ("workers",)  # old entries are ignored by readers
QUIET_PLACES = ("pending", "ready", "suspects", "leased", "delayed")
FENCED = re.compile(r"^fence=(\d+) (.*)$")
CRASHED = "The worker process died"
LAPSED = "The lease of this activity expired"

Findings = Iterator[str]
Judge = Callable[[History], Findings]


def nothing_is_lost(history: History) -> Findings:
    """Every successful enqueue has its row; every row was enqueued, and has ended.

    If the call failed, it is unknown whether its commit arrived: a row may exist or not; if it does, it must end.
    """
    offered = {event.name for event in history.of("offers")}
    for event in history.of("enqueued"):
        row = history.rows_by_id.get(event.agent_id)
        if row is None:
            yield f"{event.name} ({event.agent_id}) was enqueued, and has no row"
        elif row.name != event.name:
            yield f"{event.name} ({event.agent_id}) was enqueued, but its row belongs to {row.name}"
    for row in history.rows:
        if row.name not in offered:
            yield f"{row.name} ({row.agent_id}) has a row, but was not enqueued"
        if row.status not in TERMINAL:
            yield f"{row.name} ({row.agent_id}) has not ended: it is {row.status}"


def a_rollback_leaves_nothing(history: History) -> Findings:
    """An enqueue in a rolled back transaction has no row and never runs."""
    undone = {event.name for event in history.of("undone")}
    for row in history.rows:
        if row.name in undone:
            yield f"{row.name} ({row.agent_id}) was rolled back, and has a row"
    for execution in history.executions:
        if execution.name in undone:
            yield f"{execution.name} ({execution.agent_id}) was rolled back, and was run by process {execution.pid}"


def a_key_runs_one_at_a_time(history: History) -> Findings:
    """No handler of a lock key starts before the previous handler has ended, was stopped, or has died.

    Excused is an overlap with a handler that could not be notified of the loss of its lease: the driver had frozen its
    process before the next process started, and the handler ended within NOTICE of the thaw. Likewise where a handler
    had blocked the event loop of its process, and the queue was out of its reach at that time: else the lease
    would have been extended by its thread.
    """
    by_key: dict[str, list[Execution]] = defaultdict(list)
    for execution in history.executions:
        if execution.key:
            by_key[execution.key].append(execution)
    for key, executions in by_key.items():
        live: list[Execution] = []
        for later in executions:
            live = [earlier for earlier in live if earlier.end > later.start]
            for earlier in live:
                if not _could_not_be_told(history, earlier, later):
                    yield (
                        f"{later.name} ({later.agent_id}, process {later.pid}, fence {later.fence}) started at "
                        f"{later.start:.3f}, while {earlier.name} ({earlier.agent_id}, process {earlier.pid}, fence "
                        f"{earlier.fence}) of the same key {key} ran from {earlier.start:.3f} to {earlier.end:.3f}"
                    )
            live.append(later)


def _could_not_be_told(history: History, earlier: Execution, later: Execution) -> bool:
    def covers(since: float, until: float) -> bool:
        return earlier.start < until and since < later.start and earlier.end <= until + NOTICE

    frozen = [f for f in history.faults if f.kind == "freeze_worker" and f.pid == earlier.pid]
    if any(covers(f.since, f.until) for f in frozen):
        return True
    return any(
        covers(since, until) and _was_out_of_reach(history, earlier.pool, since - history.lease, until)
        for since, until in history.blocks.get(earlier.pid, [])
    )


def _was_out_of_reach(history: History, pool: int, since: float, until: float) -> bool:
    """Return whether the pool lost its connection to the queue, or the queue its data, at any time in between."""
    return any(
        fault.since < until
        and fault.until > since
        and (
            fault.kind in ("kill_valkey", "flush")
            or (fault.kind == "network" and pool in fault.places and not fault.choice.endswith(":database"))
        )
        for fault in history.faults
    )


def a_key_keeps_its_order(history: History) -> Findings:
    """The activities of a key start, for the first time, in the order in which their enqueues returned.

    A key has one producer, which numbers them. Left out are those whose enqueue failed: when their commit arrived,
    if it did, nobody knows. An activity that is retried has had its first start.
    """
    answered = {event.agent_id for event in history.of("enqueued")}
    firsts: dict[str, list[Execution]] = defaultdict(list)
    for executions in history.executions_of.values():
        first = executions[0]
        if first.key and first.agent_id in answered:
            firsts[first.key].append(first)
    for key, executions in firsts.items():
        for earlier, later in pairwise(sorted(executions, key=lambda execution: execution.start)):
            if later.name < earlier.name:
                yield (
                    f"{earlier.name} ({earlier.agent_id}) of key {key} started at {earlier.start:.3f}, before "
                    f"{later.name} ({later.agent_id}) at {later.start:.3f}, which was enqueued first"
                )


def effects_happen_once(history: History) -> Findings:
    """One row per enqueue, one line of completion per completed activity and none for others, the result of the
    execution that the row names, and no repeated line of progress."""
    for name, count in Counter(row.name for row in history.rows).items():
        if count > 1:
            yield f"{name} has {count} rows"
    completions: Counter[str] = Counter()
    progress: Counter[tuple[str, str]] = Counter()
    for line in history.lines:
        if line.status == "complete":
            completions[line.agent_id] += 1
        if FENCED.match(line.message):
            progress[line.agent_id, line.message] += 1
    for (agent_id, message), count in progress.items():
        if count > 1:
            yield f"{agent_id} has {count} log lines {message!r}"
    for row in history.rows:
        expected = 1 if row.status == "complete" else 0
        if completions[row.agent_id] != expected:
            yield f"{row.name} ({row.agent_id}) is {row.status} with {completions[row.agent_id]} lines of completion"
        if row.status == "complete" and row.result != {"name": row.name, "fence": row.fence}:
            yield f"{row.name} ({row.agent_id}) has fence {row.fence}, but the result {row.result}"


def no_stale_write_is_accepted(history: History) -> Findings:
    """In the log of an activity, fences never decrease, and no write was accepted that began after the start of an
    execution with a newer fence."""
    newest: dict[str, int] = {}
    for line in sorted(history.lines, key=lambda line: line.id):
        found = FENCED.match(line.message)
        if not found:
            continue
        fence = int(found[1])
        if fence < newest.get(line.agent_id, 0):
            yield f"{line.agent_id}: the line {line.message!r} follows one of fence {newest[line.agent_id]}"
        newest[line.agent_id] = max(fence, newest.get(line.agent_id, 0))
    for write in history.of("wrote"):
        for execution in history.executions_of.get(write.agent_id, []):
            if execution.fence > write.fence and execution.start < write.at:
                yield (
                    f"{write.name} ({write.agent_id}): process {write.pid} wrote {write.detail!r} with fence "
                    f"{write.fence}, begun at {write.at:.3f}, after fence {execution.fence} had started"
                )


def every_end_fits_its_history(history: History) -> Findings:
    """`complete`: the execution of the row's fence returned. `canceled`: a cancel was requested, and a confirmed
    cancel is final. `error`: max_retries + 1 executions raised, or the processes of MAX_CRASHES starts died with them,
    or MAX_EXPIRED_LEASES starts were cut off: by a death, or by the next start, which holds the lease by then. A
    process that lives on is charged no crash."""
    asked = {event.agent_id for event in history.of("cancels")}
    confirmed = {event.agent_id for event in history.of("canceled")}
    for row in history.rows:
        what = f"{row.name} ({row.agent_id}, {row.task})"
        if row.agent_id in confirmed and row.status != "canceled":
            yield f"{what} is {row.status}, although its cancellation was confirmed"
        executions = history.executions_of.get(row.agent_id, [])
        match row.status:
            case "complete":
                if not any(e.fence == row.fence and e.how == "returned" for e in executions):
                    yield f"{what} is complete with fence {row.fence}, but no such execution has returned"
            case "canceled":
                if row.agent_id not in asked:
                    yield f"{what} is canceled, but no cancel was requested"
            case "error":
                yield from _error_fits(history, row, what, executions)


def _error_fits(history: History, row: Row, what: str, executions: list[Execution]) -> Findings:
    raised = {e.fence for e in executions if e.how == "raised"}
    if row.error.startswith(CRASHED):
        # A process may also die between the start in the row, which is in the log, and the handler.
        begun = max(history.starts_in_log[row.agent_id], len(executions))
        survived = [e for e in executions if not _died(history, e, executions)]
        if min(row.crashes, begun - len(survived)) < history.max_crashes:
            yield (
                f"{what} was given up after {row.crashes} crashes, but only {begun} starts, of which {len(survived)} "
                f"ended: {[(e.fence, e.pid, e.how) for e in executions]}"
            )
    elif row.error.startswith(LAPSED):
        begun = max(history.starts_in_log[row.agent_id], len(executions))
        ended = [e for e in executions if e.how == "raised" and not _was_superseded(e, executions)]
        if begun - len(ended) < history.max_expired_leases:
            yield (
                f"{what} was given up for its leases, but only {begun} starts, of which {len(ended)} ended: "
                f"{[(e.fence, e.pid, e.how) for e in executions]}"
            )
    elif row.error.endswith("fails as planned"):
        if row.retries != row.max_retries or len(raised) < row.max_retries + 1:
            yield f"{what} failed for good after {row.retries} retries and {len(raised)} errors, of {row.max_retries}"
    else:
        yield f"{what} ended in an unplanned error: {row.error!r}"


def _died(history: History, execution: Execution, executions: list[Execution]) -> bool:
    """Return whether the process of this execution apparently died before its end was in the row.

    What a handler returned or raised is lost if its process dies before it is written. An error that was written is
    followed by a retry, so by a start; else the death was before the next start.
    """
    if execution.how in ("died", "exits"):
        return True
    later = [other.start for other in executions if other.start > execution.start]
    died = history.deaths.get(execution.pid)
    return died is not None and execution.how != "raised" and died < min(later, default=FOREVER)


def _was_superseded(execution: Execution, executions: list[Execution]) -> bool:
    return any(execution.start < other.start < execution.end for other in executions)


def poison_ends_and_its_neighbours_do_not(history: History) -> Findings:
    """An activity that kills its process each time is in `error` after MAX_CRASHES starts, and crashes no other twice.

    A loss of Redis's data may lose the count of the latest crash, which allows one more start or one more crash of
    another. A death counts when its pool reports it: if the lease expires first, one more start is allowed.
    """
    losses = [fault.since for fault in history.faults if fault.kind in ("kill_valkey", "flush")]
    deaths: dict[str, list[Execution]] = defaultdict(list)
    poisoned = {e.pid: e for e in history.executions if e.how == "exits"}
    for row in history.rows:
        executions = history.executions_of.get(row.agent_id, [])
        if not executions:
            continue
        lost = sum(executions[0].start - history.lease < at < executions[-1].start for at in losses)
        if row.task == "poison":
            if row.status not in ("error", "canceled"):
                yield f"{row.name} ({row.agent_id}) is poison, and {row.status}"
            unreported = sum(_could_not_be_reported(history, execution) for execution in executions)
            if len(executions) > history.max_crashes + lost + unreported:
                yield f"{row.name} ({row.agent_id}) is poison, and was started {len(executions)} times"
        deaths[row.agent_id] = [
            e for e in executions if e.how == "died" and e.pid in poisoned and poisoned[e.pid].agent_id != e.agent_id
        ]
        if len(deaths[row.agent_id]) > 1 + lost:
            yield f"{row.name} ({row.agent_id}) died {len(deaths[row.agent_id])} times by others' poison"


def _could_not_be_reported(history: History, execution: Execution) -> bool:
    """Return whether the pool was killed, frozen, replaced or disconnected from the queue while the lease expired."""
    until = execution.end + history.lease
    return _was_out_of_reach(history, execution.pool, execution.end, until) or any(
        fault.since < until and fault.until > execution.end - NOTICE
        for fault in history.faults
        if fault.kind in ("kill_pool", "freeze_pool", "deploy") and fault.number == execution.pool
    )


def no_key_is_left(history: History) -> Findings:
    """Redis contains only the keys of the queue, with empty places, and keys that expire."""
    for place in QUIET_PLACES:
        if history.occupied.get(place):
            yield f"{history.occupied[place]} activities are still {place} in the queue"
    for key, seconds in history.keys_left.items():
        _, _, own = key.partition(":")
        lasting = key in history.queue_keys or own in LASTING
        if not lasting and not (seconds >= 0 and own.startswith(TIME_LIMITED)):
            yield f"Redis holds the key {key!r} ({'without expiry' if seconds < 0 else f'for {seconds} s'})"


def no_process_is_left(history: History) -> Findings:
    """No process of the run is left, and pools and producers ended with the expected exit codes."""
    yield from (f"still there: {process}" for process in history.processes_left)
    for name, codes in history.exit_codes.items():
        if any(codes):
            yield f"{name} ended with {list(codes)}"


PROMISES: dict[str, Judge] = {
    "nothing is lost": nothing_is_lost,
    "a rollback leaves nothing": a_rollback_leaves_nothing,
    "a key runs one at a time": a_key_runs_one_at_a_time,
    "a key keeps its order": a_key_keeps_its_order,
    "effects happen once": effects_happen_once,
    "no stale write is accepted": no_stale_write_is_accepted,
    "every end fits its history": every_end_fits_its_history,
    "poison ends, and its neighbours do not": poison_ends_and_its_neighbours_do_not,
    "no key is left": no_key_is_left,
    "no process is left": no_process_is_left,
}


def judge(history: History) -> dict[str, list[str]]:
    """Return the findings of each promise."""
    return {promise: list(judge(history)) for promise, judge in PROMISES.items()}
