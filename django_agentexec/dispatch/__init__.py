"""From rows to the queue: `push` after a commit, `outbox` during an outage."""
