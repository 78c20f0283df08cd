"""Transfer of rows to the queue: `push` after a commit, `outbox` after an outage."""
