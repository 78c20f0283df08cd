"""Budgets: limits for the model calls of activities, in money or tokens.

Each call reserves its estimated cost in the ledgers of its budgets before it starts, and settles the actual cost
afterwards. A call that would exceed a limit is not made: its activity is suspended, or fails.
"""
