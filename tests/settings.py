"""Settings of the test suite. The servers' addresses come from the environment (`tests/support/server_plugin.py`)."""

from __future__ import annotations

import json
import os
from importlib.util import find_spec

SECRET_KEY = "only-for-tests"
DEBUG = False
ALLOWED_HOSTS = ["127.0.0.1"]
USE_TZ = True
TIME_ZONE = "UTC"
INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "rest_framework",
    "django_filters",
    "drf_spectacular",
    "channels",
    "django_agentexec",
    "django_agentexec.live",
    "tests.testapp",
]
if find_spec("django_celery_beat"):  # which may not allow the newest Django yet
    INSTALLED_APPS += ["django_celery_beat", "django_agentexec.schedules"]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
ROOT_URLCONF = "tests.urls"
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
STATIC_URL = "static/"
SQLITE = {
    "ENGINE": "django.db.backends.sqlite3",
    "NAME": os.environ.get("AGENTEXEC_TEST_SQLITE", ":memory:"),
    "OPTIONS": {
        "transaction_mode": "IMMEDIATE",
        "timeout": 20,
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL",
    },
    "TEST": {"NAME": os.environ.get("AGENTEXEC_TEST_SQLITE", ":memory:")},
}
DATABASES = {"default": json.loads(os.environ.get("AGENTEXEC_TEST_DATABASE", "null")) or SQLITE}
CACHES = {
    "default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"},
    "agentexec": {
        "BACKEND": "django_redis.cache.RedisCache",
        "LOCATION": os.environ.get("AGENTEXEC_TEST_REDIS", "redis://127.0.0.1:1/0"),
    },
}
SPECTACULAR_SETTINGS = {"PREPROCESSING_HOOKS": ["django_agentexec.api.document.one_operation_per_task"]}
CHANNEL_LAYERS = {
    "default": {
        "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
        "CONFIG": {"hosts": [os.environ.get("AGENTEXEC_TEST_REDIS", "redis://127.0.0.1:1/0")]},
    }
}
ASGI_APPLICATION = "tests.asgi.application"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
AGENTEXEC = json.loads(os.environ.get("AGENTEXEC_TEST_SETTINGS", "{}"))
