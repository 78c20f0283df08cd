"""Who may see and do what. REST, websocket, SSE and the admin all ask the one policy of the settings.

Closed unless opened: `StaffPolicy`, the default, lets only staff with the model permissions in. Projects
with tenants derive from `TenantPolicy` and name their class in `AGENTEXEC["POLICY"]`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Any, ClassVar, cast
from uuid import UUID

from django.apps import apps
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from .conf import conf
from .expressions import text_form
from .models import Activity, ActivityQuerySet

if TYPE_CHECKING:
    from django.contrib.auth.base_user import AbstractBaseUser
    from django.contrib.auth.models import AnonymousUser

    User = AbstractBaseUser | AnonymousUser

EVERYTHING = "all"
"""The audience of those who see every activity."""


class Permission(StrEnum):
    """What one may be allowed to do; the values are the model permissions' codenames in the app `agentexec`."""

    VIEW = "view_activity"
    CANCEL = "cancel_activity"
    RETRY = "retry_activity"
    ENQUEUE = "enqueue_task"


class Policy:
    """Lets nobody in. Derive from it, and open what you need; each surface asks these six questions.

    A surface first looks an activity up among the `visible` ones (what is not visible does not exist), then
    asks whether the user `may` do what they want.
    """

    def visible(self, user: User, activities: ActivityQuerySet) -> ActivityQuerySet:
        """Return those of `activities` that `user` may know of."""
        return activities.none()

    def may(self, user: User, permission: Permission, activity: Activity | None = None) -> bool:
        """Whether `user` has the permission, for this (visible) activity or, without one, at all."""
        return False

    def may_monitor(self, user: User) -> bool:
        """Whether `user` may see workers, queues, health in detail and metrics, which are everybody's."""
        return False

    def stamp(self, user: User) -> Mapping[str, Any]:
        """Return metadata that an activity gets when `user` enqueues it from outside; it wins over theirs."""
        return {}

    def audience(self, user: User) -> str:
        """Return the name of the live feed that `user` follows, or "" for none."""
        return ""

    def audiences(self, activity: Activity) -> Iterable[str]:
        """Return the names of the feeds that are told of a change of `activity`."""
        return []


class StaffPolicy(Policy):
    """Staff with the permissions of the model (superusers have all); nobody else."""

    def visible(self, user: User, activities: ActivityQuerySet) -> ActivityQuerySet:
        """Return all for those who may view, else none."""
        return activities if self.may(user, Permission.VIEW) else activities.none()

    def may(self, user: User, permission: Permission, activity: Activity | None = None) -> bool:
        """Whether `user` is active staff and has the permission."""
        return is_permitted_staff(user, permission)

    def may_monitor(self, user: User) -> bool:
        """Whether `user` may view activities."""
        return self.may(user, Permission.VIEW)

    def audience(self, user: User) -> str:
        """Return the feed of everything, for those who may view."""
        return EVERYTHING if self.may(user, Permission.VIEW) else ""

    def audiences(self, activity: Activity) -> Iterable[str]:
        """Return the feed of everything."""
        return [EVERYTHING]


class TenantPolicy(StaffPolicy):
    """Staff as in `StaffPolicy`; other users see, and steer, the activities with their tenant's metadata.

    Derive from it and write `tenant`:

        class OrganizationPolicy(TenantPolicy):
            keys = ["organization_id"]

            def tenant(self, user):
                return {"organization_id": user.organization_id}
    """

    keys: ClassVar[list[str]] = []
    """The metadata keys that make a tenant."""
    permissions: ClassVar[frozenset[Permission]] = frozenset(Permission)
    """What users may do within their tenant."""

    def tenant(self, user: User) -> Mapping[str, str | int | UUID] | None:
        """Return the values of all `keys` for an active, authenticated user, or None for no access."""
        raise NotImplementedError

    def visible(self, user: User, activities: ActivityQuerySet) -> ActivityQuerySet:
        """Return all for permitted staff, else the tenant's."""
        if self._sees_all_tenants(user, Permission.VIEW):
            return activities
        tenant = self._tenant(user)
        return activities.for_same_metadata(**tenant) if tenant else activities.none()

    def may(self, user: User, permission: Permission, activity: Activity | None = None) -> bool:
        """Whether `user` is permitted staff, or belongs to a tenant (the activity's) and it is one of `permissions`."""
        if self._sees_all_tenants(user, permission):
            return True
        tenant = self._tenant(user)
        if not tenant or not (permission in self.permissions or is_permitted_staff(user, permission)):
            return False
        return activity is None or _text_forms(activity.metadata, self.keys) == _text_forms(tenant, self.keys)

    def may_monitor(self, user: User) -> bool:
        """Whether `user` is permitted staff of all tenants: workers and queues belong to none."""
        return self._sees_all_tenants(user, Permission.VIEW)

    def stamp(self, user: User) -> Mapping[str, Any]:
        """Return the tenant's metadata."""
        return self._tenant(user) or {}

    def audience(self, user: User) -> str:
        """Return the feed of everything for permitted staff, else the tenant's."""
        if self._sees_all_tenants(user, Permission.VIEW):
            return EVERYTHING
        tenant = _text_forms(self._tenant(user) or {}, self.keys)
        return _feed(tenant) if tenant else ""

    def audiences(self, activity: Activity) -> Iterable[str]:
        """Return the feed of everything and, if the activity belongs to one, its tenant's."""
        tenant = _text_forms(activity.metadata, self.keys)
        if not tenant:
            return [EVERYTHING]
        # Followers of the release before 0.2 know a feed by the values themselves, not by their texts.
        former = _feed({key: activity.metadata[key] for key in self.keys})
        return list(dict.fromkeys([EVERYTHING, _feed(tenant), former]))

    def _sees_all_tenants(self, user: User, permission: Permission) -> bool:
        if not is_permitted_staff(user, permission):
            return False
        return conf.STAFF_SEES_ALL_TENANTS or bool(getattr(user, "is_superuser", False))

    def _tenant(self, user: User) -> dict[str, Any] | None:
        if not (user.is_authenticated and user.is_active):
            return None
        given = self.tenant(user) or {}
        tenant = {key: str(value) if isinstance(value, UUID) else value for key, value in given.items()}
        if not tenant or None in tenant.values():
            return None  # nobody's activities must not become those of a user without a tenant
        if not self.keys or set(tenant) != set(self.keys):
            raise ImproperlyConfigured(
                f"{type(self).__name__}.tenant() gave {sorted(tenant)}, but `keys` says {sorted(self.keys)}."
            )
        if _text_forms(tenant, self.keys) is None:
            raise ImproperlyConfigured(
                f"{type(self).__name__}.tenant() gave {tenant!r}; a tenant is text, a UUID or a number "
                "below 2**63. Return str(value), and write the same text into the metadata."
            )
        return tenant


def is_permitted_staff(user: User, permission: Permission) -> bool:
    """Whether `user` is active staff with this permission of the model `Activity`."""
    if not (user.is_active and getattr(user, "is_staff", False)):
        return False
    return bool(user.has_perm(f"{Activity._meta.app_label}.{permission}"))  # type: ignore[attr-defined]  # is_staff comes with PermissionsMixin


def nobody() -> User:
    """Return who is not signed in: Django's `AnonymousUser`, or a stand-in for it in a project without that app."""
    if apps.is_installed("django.contrib.auth"):
        from django.contrib.auth.models import AnonymousUser

        return AnonymousUser()
    return cast("User", _Nobody())


class _Nobody:
    """As much of `AnonymousUser` as a policy asks for."""

    pk = id = None
    username = ""
    is_active = is_staff = is_superuser = is_authenticated = False
    is_anonymous = True

    def has_perm(self, permission: str, obj: object = None) -> bool:
        """Return False."""
        return False


def get_policy() -> Policy:
    """Return the policy of the settings. Raises `ImproperlyConfigured` if it is none."""
    try:
        made = (import_string(conf.POLICY) if isinstance(conf.POLICY, str) else conf.POLICY)()
    except (ImportError, TypeError) as error:
        raise ImproperlyConfigured(f"AGENTEXEC['POLICY'] is {conf.POLICY!r}, which cannot be used: {error}") from error
    if not isinstance(made, Policy):
        raise ImproperlyConfigured(f"AGENTEXEC['POLICY'] is {conf.POLICY!r}, which is no {Policy.__module__}.Policy.")
    return made


def _text_forms(metadata: Mapping[str, Any], keys: Iterable[str]) -> dict[str, str] | None:
    """Return the texts of the metadata's values of all `keys`, or None if one is missing or not comparable."""
    texts: dict[str, str] = {}
    for key in keys:
        text = text_form(metadata.get(key))
        if text is None:
            return None
        texts[key] = text
    return texts


def _feed(tenant: Mapping[str, Any]) -> str:
    """Return a feed's name: short, and made of characters that every channel layer allows."""
    text = json.dumps(sorted(tenant.items()))
    return "tenant-" + hashlib.sha256(text.encode()).hexdigest()[:32]
