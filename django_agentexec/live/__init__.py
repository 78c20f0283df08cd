"""The websockets, on Channels; on when `django_agentexec.live` is in INSTALLED_APPS."""
