"""Transfer of rows to the queue."""
