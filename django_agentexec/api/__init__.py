"""The REST API, on Django REST framework; mounted by `include("django_agentexec.api.urls")`."""
