"""Settings of the example project. The environment may set:

- `DEBUG` (default 1; with 0, `SECRET_KEY` and `ALLOWED_HOSTS` are required)
- `REDIS_URL`: a Redis or Valkey server to use instead of the embedded one
- `DATABASE_URL`: a PostgreSQL database to use instead of SQLite, as in `postgresql://user:password@host:5432/name`
- `DATA_DIR`: the folder of the database, the uploads and the embedded server; by default the project's folder
- `GUESTS`: 1 permits visitors to sign in as guests and start runs; always permitted with DEBUG
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from django_agentexec.embedded import socket_path

BASE_DIR = Path(__file__).resolve().parent.parent
DATA_DIR = Path(os.environ.get("DATA_DIR", BASE_DIR)).resolve()

DEBUG = os.environ.get("DEBUG", "1") != "0"
SECRET_KEY = "insecure-and-for-the-example-only" if DEBUG else os.environ["SECRET_KEY"]
ALLOWED_HOSTS = os.environ.get("ALLOWED_HOSTS", "").split(",") if not DEBUG else ["localhost", "127.0.0.1"]

INSTALLED_APPS = [
    "daphne",  # before staticfiles: its runserver speaks websocket
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.humanize",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "channels",
    "rest_framework",
    "django_filters",
    "drf_spectacular",
    "django_agentexec",
    "django_agentexec.live",
    "example_project.documents",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
ROOT_URLCONF = "example_project.urls"
WSGI_APPLICATION = "example_project.wsgi.application"
ASGI_APPLICATION = "example_project.asgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]


def postgresql(url: str) -> dict[str, Any]:
    """Return Django's settings of the database at `url`."""
    parts = urlsplit(url)
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": unquote(parts.path.removeprefix("/")),
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": parts.hostname or "",
        "PORT": parts.port or "",
        "CONN_HEALTH_CHECKS": True,
        "CONN_MAX_AGE": 60,
    }


DATABASES: dict[str, dict[str, Any]] = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": DATA_DIR / "db.sqlite3",
        "OPTIONS": {
            # Web and workers write at the same time: readers must not block (WAL), and a transaction takes the write
            # lock at its start, where SQLite waits for it, and not later, where it fails.
            "transaction_mode": "IMMEDIATE",
            "timeout": 20,
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
        },
    }
}
if DATABASE_URL := os.environ.get("DATABASE_URL", ""):
    DATABASES["default"] = postgresql(DATABASE_URL)

REDIS_URL = os.environ.get("REDIS_URL", "")
if REDIS_URL:
    CACHES = {"default": {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": REDIS_URL}}

AGENTEXEC = {
    "EMBEDDED": DEBUG and not REDIS_URL,
    "EMBEDDED_DIR": DATA_DIR / ".agentexec",
    "POLICY": "example_project.documents.policy.VisitorPolicy",
    # Metadata has the visitor's name and the document's title, which the list of runs shows.
    "EXPOSE_METADATA": True,
}
# Changes reach the websockets of every server process through Redis's Pub/Sub.
CHANNEL_LAYERS = {
    "default": {
        "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
        "CONFIG": {"hosts": [REDIS_URL or f"unix://{socket_path(DATA_DIR / '.agentexec')}"]},
    }
}

GUESTS = DEBUG or os.environ.get("GUESTS") == "1"
LOGIN_URL = "documents:welcome"
LOGIN_REDIRECT_URL = "documents:runs"
LOGOUT_REDIRECT_URL = "documents:welcome"

LANGUAGE_CODE = "en"
TIME_ZONE = "UTC"
USE_TZ = True
STATIC_URL = "static/"
STATIC_ROOT = DATA_DIR / "static"
MEDIA_ROOT = DATA_DIR / "uploads"  # only agents read them; no URL serves them
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
