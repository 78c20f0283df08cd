"""The parent process of `runagentworkers`: supervision of worker processes, and services."""
