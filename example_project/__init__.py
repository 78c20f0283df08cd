"""A small product that uses django-agentexec: agents that read contracts and company reports."""
