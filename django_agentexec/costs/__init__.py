"""Cost of model calls: prices (`prices`, `library`), usage by day, task, model or metadata (`usage`), `reprice`."""
