"""Parts of `manage.py demo`: its activities, its child processes, and its screen."""
