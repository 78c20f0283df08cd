"""Resilience of calls: circuit breakers of models, and tools whose first result is returned again."""
