"""The subcommands of `manage.py agentexec`, a module each, and their shared arguments, output and exit codes."""
