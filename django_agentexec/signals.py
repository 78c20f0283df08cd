"""How the rooms above the core hear of changes. Every signal is sent after the commit, never before.

Receivers run in whichever process made the change (web, worker or pool), in the thread that wrote it;
keep them short. An exception of a receiver is logged and stops nothing.
"""

from __future__ import annotations

from django.dispatch import Signal

# One committed change of one activity. Arguments: `activity`, the row as it was committed; `log`, the
# `ActivityLog` line of the change, or None where the change wrote none; and `operation`, what was done (see
# `activity.operations`), or None for a new row. Do not save the row; columns that the change did not touch may
# be deferred, and cost a query when they are read.
activity_changed = Signal()

# The same for all changes of one commit at once, in order, which costs far less where much happens. Argument:
# `changes`, a list of (activity, log, operation).
activities_changed = Signal()

# Text of runs has been added to their streams. Argument: `agent_ids`. Sent several times a second while runs stream.
text_streamed = Signal()

# A worker process is about to claim its first activity, or has finished its last one. Argument: `worker`,
# its name.
worker_started = Signal()
worker_stopped = Signal()
