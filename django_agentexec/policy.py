"""Access policies: which activities a user may see, and what they may do. REST, websockets, SSE and the admin use them.

Access is denied by default: `StaffPolicy`, the default policy, permits only staff with the model permissions. Projects
with tenants derive from `TenantPolicy` and set their class as `AGENTEXEC["POLICY"]`.
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
from .models import Activity, ActivityQuerySet, Budget, BudgetScope, ConversationQuerySet, Pause

if TYPE_CHECKING:
    from django.contrib.auth.base_user import AbstractBaseUser
    from django.contrib.auth.models import AnonymousUser
    from django.db.models import QuerySet

    User = AbstractBaseUser | AnonymousUser

EVERYTHING = "all"
"""The audience of users who see every activity."""


class Permission(StrEnum):
    """Permissions; the values are the codenames of the model permissions in the app `agentexec`."""

    VIEW = "view_activity"
    CANCEL = "cancel_activity"
    RETRY = "retry_activity"
    ENQUEUE = "enqueue_task"
    VIEW_CONVERSATION = "view_conversation"
    DECIDE = "decide_approval"
    PAUSE = "pause_activity"


class Policy:
    """The base policy, which denies everything. Subclasses permit what a project needs.

    The REST API, websockets, SSE and the admin first look up an activity in `visible` (an invisible activity does not
    exist for the user), then check with `may` whether the user has the permission.
    """

    def visible(self, user: User, activities: ActivityQuerySet) -> ActivityQuerySet:
        """Return the activities among `activities` that exist for `user`."""
        return activities.none()

    def visible_conversations(self, user: User, conversations: ConversationQuerySet) -> ConversationQuerySet:
        """Return the conversations among `conversations` that exist for `user`; such as `conversations.owned_by(user)`.

        Only in these may the user read items and, over REST, enqueue turns.
        """
        return conversations.none()

    def visible_budgets(self, user: User, budgets: QuerySet[Budget]) -> QuerySet[Budget]:
        """Return the budgets among `budgets` that exist for `user`."""
        return budgets.none()

    def may(self, user: User, permission: Permission, activity: Activity | None = None) -> bool:
        """Return whether `user` has the permission: for this (visible) activity or, without an activity, in general."""
        return False

    def may_monitor(self, user: User) -> bool:
        """Return whether `user` may see workers, queues, health details and metrics, which belong to no tenant."""
        return False

    def may_pause(self, user: User, scope: str, name: str) -> bool:
        """Return whether `user` may pause this queue, task or tenant (`scope`), and see whether it is paused.

        Queues and tasks belong to no tenant. The name of a tenant is a metadata key and value: `organization_id=7`.
        """
        return False

    def may_resume(self, user: User, pause: Pause) -> bool:
        """Return whether `user` may end this pause; by default whether they may pause the same.

        `pause.actor` is the primary key of the user who paused, as text.
        """
        return self.may_pause(user, pause.scope, pause.name)

    def stamp(self, user: User) -> Mapping[str, Any]:
        """Return metadata for activities that `user` enqueues; it takes precedence over the metadata of the request."""
        return {}

    def tenant_of(self, metadata: Mapping[str, Any]) -> Mapping[str, str] | None:
        """Return the values that identify the tenant of an activity with this metadata; empty if it belongs to none.

        None: the policy does not know tenants. Cached answers and results of tools are not shared beyond a tenant.
        """
        return None

    def audience(self, user: User) -> str:
        """Return the name of the live feed that `user` follows, or "" for none."""
        return ""

    def audiences(self, activity: Activity) -> Iterable[str]:
        """Return the names of the feeds that are notified of changes of `activity`."""
        return []


class StaffPolicy(Policy):
    """A policy for staff with the permissions of the model (superusers have all of them), and for no other user."""

    def visible(self, user: User, activities: ActivityQuerySet) -> ActivityQuerySet:
        """Return all activities if `user` may view them, else none."""
        return activities if self.may(user, Permission.VIEW) else activities.none()

    def visible_conversations(self, user: User, conversations: ConversationQuerySet) -> ConversationQuerySet:
        """Return all conversations if `user` may view them, else none."""
        return conversations if self.may(user, Permission.VIEW_CONVERSATION) else conversations.none()

    def visible_budgets(self, user: User, budgets: QuerySet[Budget]) -> QuerySet[Budget]:
        """Return all budgets if `user` may view all activities, else none."""
        return budgets if self.may_monitor(user) else budgets.none()

    def may(self, user: User, permission: Permission, activity: Activity | None = None) -> bool:
        """Return whether `user` is active staff and has the permission."""
        return is_permitted_staff(user, permission)

    def may_monitor(self, user: User) -> bool:
        """Return whether `user` may view activities."""
        return self.may(user, Permission.VIEW)

    def may_pause(self, user: User, scope: str, name: str) -> bool:
        """Return whether `user` is active staff and has the permission."""
        return self.may(user, Permission.PAUSE)

    def audience(self, user: User) -> str:
        """Return the feed of all activities if `user` may view them."""
        return EVERYTHING if self.may(user, Permission.VIEW) else ""

    def audiences(self, activity: Activity) -> Iterable[str]:
        """Return the feed of all activities."""
        return [EVERYTHING]


class TenantPolicy(StaffPolicy):
    """A policy for tenants: users see and control the activities with their tenant's metadata.

    Staff have the same permissions as in `StaffPolicy`. Derive from it and implement `tenant`:

        class OrganizationPolicy(TenantPolicy):
            keys = ["organization_id"]

            def tenant(self, user):
                return {"organization_id": user.organization_id}
    """

    keys: ClassVar[list[str]] = []
    """The metadata keys that identify a tenant."""
    permissions: ClassVar[frozenset[Permission]] = frozenset(Permission)
    """What users may do within their tenant."""

    def tenant(self, user: User) -> Mapping[str, str | int | UUID] | None:
        """Return the values of all `keys` for an active, authenticated user, or None for no access."""
        raise NotImplementedError

    def visible(self, user: User, activities: ActivityQuerySet) -> ActivityQuerySet:
        """Return all activities for permitted staff, else the tenant's activities."""
        if self._sees_all_tenants(user, Permission.VIEW):
            return activities
        tenant = self._tenant(user)
        return activities.for_same_metadata(**tenant) if tenant else activities.none()

    def visible_conversations(self, user: User, conversations: ConversationQuerySet) -> ConversationQuerySet:
        """Return all conversations for permitted staff, else the tenant's conversations."""
        if self._sees_all_tenants(user, Permission.VIEW_CONVERSATION):
            return conversations
        tenant = self._tenant(user)
        if not tenant or not self.may(user, Permission.VIEW_CONVERSATION):
            return conversations.none()
        return conversations.for_same_metadata(**tenant)

    def visible_budgets(self, user: User, budgets: QuerySet[Budget]) -> QuerySet[Budget]:
        """Return all budgets for permitted staff, else those of the tenant's metadata, where one key identifies it."""
        if self.may_monitor(user):
            return budgets
        tenant = self._tenant(user)
        if not tenant or len(self.keys) != 1 or not self.may(user, Permission.VIEW):
            return budgets.none()
        (key,) = self.keys
        return budgets.filter(
            scope=BudgetScope.METADATA, metadata_key=key, metadata_value=text_form(tenant[key]) or None
        )

    def may(self, user: User, permission: Permission, activity: Activity | None = None) -> bool:
        """Return whether `user` is permitted staff, or has one of `permissions` in a tenant (that of the activity)."""
        if self._sees_all_tenants(user, permission):
            return True
        tenant = self._tenant(user)
        if not tenant or not (permission in self.permissions or is_permitted_staff(user, permission)):
            return False
        return activity is None or _text_forms(activity.metadata, self.keys) == _text_forms(tenant, self.keys)

    def may_monitor(self, user: User) -> bool:
        """Return whether `user` is permitted staff of all tenants: workers and queues belong to none."""
        return self._sees_all_tenants(user, Permission.VIEW)

    def may_pause(self, user: User, scope: str, name: str) -> bool:
        """Return whether `user` is permitted staff of all tenants; subclasses may let tenants pause themselves."""
        return self._sees_all_tenants(user, Permission.PAUSE)

    def may_resume(self, user: User, pause: Pause) -> bool:
        """Return whether `user` may pause the same, and is permitted staff of all tenants or made this pause."""
        is_own = pause.actor == str(user.pk)
        if not (is_own or self._sees_all_tenants(user, Permission.PAUSE)):
            return False
        return self.may_pause(user, pause.scope, pause.name)

    def stamp(self, user: User) -> Mapping[str, Any]:
        """Return the tenant's metadata."""
        return self._tenant(user) or {}

    def tenant_of(self, metadata: Mapping[str, Any]) -> Mapping[str, str] | None:
        """Return the texts of the metadata's values of all `keys`, or nothing if one is missing."""
        return _text_forms(metadata, self.keys) or {}

    def audience(self, user: User) -> str:
        """Return the feed of all activities for permitted staff, else the tenant's feed."""
        if self._sees_all_tenants(user, Permission.VIEW):
            return EVERYTHING
        tenant = _text_forms(self._tenant(user) or {}, self.keys)
        return _feed(tenant) if tenant else ""

    def audiences(self, activity: Activity) -> Iterable[str]:
        """Return the feed of all activities and, if the activity belongs to a tenant, the tenant's feed."""
        tenant = _text_forms(activity.metadata, self.keys)
        if not tenant:
            return [EVERYTHING]
        # Subscribers of releases before 0.2 name a feed by the values themselves, not by their texts.
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
            return None  # activities without a tenant must not be visible to users without a tenant
        if not self.keys or set(tenant) != set(self.keys):
            raise ImproperlyConfigured(
                f"{type(self).__name__}.tenant() returned the keys {sorted(tenant)}; `keys` has {sorted(self.keys)}."
            )
        if _text_forms(tenant, self.keys) is None:
            raise ImproperlyConfigured(
                f"{type(self).__name__}.tenant() returned {tenant!r}; the values must be text, UUIDs or numbers "
                "below 2**63. Return str(value), and store the same text in the metadata."
            )
        return tenant


def is_permitted_staff(user: User, permission: Permission) -> bool:
    """Return whether `user` is active staff with this permission of the model `Activity`."""
    if not (user.is_active and getattr(user, "is_staff", False)):
        return False
    return bool(user.has_perm(f"{Activity._meta.app_label}.{permission}"))  # type: ignore[attr-defined]  # is_staff comes with PermissionsMixin


def nobody() -> User:
    """Return Django's `AnonymousUser`, or a substitute in a project without `django.contrib.auth`."""
    if apps.is_installed("django.contrib.auth"):
        from django.contrib.auth.models import AnonymousUser

        return AnonymousUser()
    return cast("User", _Anonymous())


class _Anonymous:
    """The attributes of `AnonymousUser` that a policy uses."""

    pk = id = None
    username = ""
    is_active = is_staff = is_superuser = is_authenticated = False
    is_anonymous = True

    def has_perm(self, permission: str, obj: object = None) -> bool:
        """Return False."""
        return False


def get_policy() -> Policy:
    """Return the policy of the settings. Raises `ImproperlyConfigured` if it is not a `Policy`."""
    try:
        policy = (import_string(conf.POLICY) if isinstance(conf.POLICY, str) else conf.POLICY)()
    except (ImportError, TypeError) as error:
        raise ImproperlyConfigured(f"AGENTEXEC['POLICY'] is {conf.POLICY!r}, which cannot be used: {error}") from error
    if not isinstance(policy, Policy):
        raise ImproperlyConfigured(
            f"AGENTEXEC['POLICY'] is {conf.POLICY!r}, which is not a subclass of {Policy.__module__}.Policy."
        )
    return policy


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
    """Return the name of a feed: short, with characters that every channel layer allows."""
    text = json.dumps(sorted(tenant.items()))
    return "tenant-" + hashlib.sha256(text.encode()).hexdigest()[:32]
