"""What `manage.py demo` is made of: the work it enqueues, its child processes, and its screen."""
