"""The test suite as an ASGI application, as docs/live.md says."""

from __future__ import annotations

import os

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
http = get_asgi_application()

from channels.auth import AuthMiddlewareStack  # noqa: E402  # models may be imported from here on
from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402

from django_agentexec.live.routing import websocket_urlpatterns  # noqa: E402

# Without AllowedHostsOriginValidator: the consumers themselves must refuse foreign origins.
application = ProtocolTypeRouter(
    {"http": http, "websocket": AuthMiddlewareStack(URLRouter(websocket_urlpatterns))},
)
