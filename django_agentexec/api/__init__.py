"""The REST API, mounted by `path("agents/", include("django_agentexec.api.urls"))`.

Neither this package nor REST framework has to be in INSTALLED_APPS. The extra `api` installs the libraries.
"""

from __future__ import annotations

from importlib.util import find_spec

_missing = [
    name for name in ("rest_framework", "django_filters", "drf_spectacular", "prometheus_client") if not find_spec(name)
]
if _missing:
    raise ImportError(
        f"The REST API needs {', '.join(_missing)}: pip install 'django-agentexec[api]', "
        "or remove django_agentexec.api.urls from your URL configuration.",
        name=_missing[0],
    )
