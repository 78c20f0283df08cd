"""Settings of the benchmarks; the servers' addresses come from the environment (see `servers.py`)."""

from __future__ import annotations

import json
import os

SECRET_KEY = "only-for-benchmarks"
DEBUG = False
USE_TZ = True
INSTALLED_APPS = [
    "django.contrib.contenttypes",
    "django.contrib.auth",
    "django.contrib.sessions",
    "channels",
    "django_agentexec",
    "django_agentexec.live",
    "benchmarks",
]
ALLOWED_HOSTS = ["127.0.0.1"]
CHANNEL_LAYERS = {
    "default": {
        "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
        "CONFIG": {"hosts": [os.environ["BENCHMARK_REDIS"]]},
    }
}
DATABASES = {"default": json.loads(os.environ["BENCHMARK_DATABASE"])}
CACHES = {
    "default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"},
    "agentexec": {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": os.environ["BENCHMARK_REDIS"]},
}
AGENTEXEC = json.loads(os.environ.get("BENCHMARK_SETTINGS", "{}"))
