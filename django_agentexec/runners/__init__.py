"""Runners: adapters between an activity and the framework that drives its agent."""
