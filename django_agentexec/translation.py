"""`gettext` for the messages of exceptions, which may be raised before Django has loaded the apps."""

from __future__ import annotations

from django.core.exceptions import AppRegistryNotReady
from django.utils import translation


def gettext(message: str) -> str:
    """Return the message in the current language; before the apps are loaded, as it is."""
    try:
        return translation.gettext(message)
    except AppRegistryNotReady:
        return message
