"""Tests of budgets without a database."""
