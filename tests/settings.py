"""Settings of the test suite. `AGENTEXEC_TEST_DB=postgresql` runs it on PostgreSQL."""

from __future__ import annotations

SECRET_KEY = "only-for-tests"
DEBUG = False
USE_TZ = True
TIME_ZONE = "UTC"
INSTALLED_APPS = [
    "django.contrib.contenttypes",
    "django.contrib.auth",
    "django_agentexec",
    "tests.testapp",
]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
CACHES = {
    "default": {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": "redis://127.0.0.1:1/0"},
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
