"""Helpers of the tests: servers, processes, users, rows and doubles that several test modules share."""
