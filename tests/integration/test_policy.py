"""The policies: who sees what, who may do what, and which feed receives it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

import pytest
from django.contrib.auth.models import AnonymousUser, User
from django.contrib.auth.models import Permission as ModelPermission
from django.core.checks import run_checks
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings

from django_agentexec import activity
from django_agentexec.models import Activity
from django_agentexec.policy import EVERYTHING, Permission, Policy, StaffPolicy, TenantPolicy, get_policy

pytestmark = pytest.mark.django_db


class OrganizationPolicy(TenantPolicy):
    """A tenant is what a user's first name says."""

    keys = ["organization_id"]

    def tenant(self, user: Any) -> Mapping[str, str | int] | None:
        return {"organization_id": user.first_name} if user.first_name else None


class ForgetfulPolicy(OrganizationPolicy):
    """Names another key than it gives."""

    keys = ["org"]


def user(name: str, *permissions: str, **fields: Any) -> User:
    made = User.objects.create_user(name, **fields)
    made.user_permissions.set(ModelPermission.objects.filter(codename__in=permissions))
    return made


def run_of(**metadata: Any) -> Activity:
    return Activity.objects.get(agent_id=activity.create("import", metadata=metadata))


def visible_to(policy: Policy, who: Any) -> list[Activity]:
    return list(policy.visible(who, Activity.objects.all()))


def test_nobody_but_permitted_staff_sees_anything() -> None:
    run, policy = run_of(), StaffPolicy()
    permitted = user("permitted", "view_activity", is_staff=True)
    refused = [
        AnonymousUser(),
        user("plain"),
        user("staff-without-permission", is_staff=True),
        user("permission-without-staff", "view_activity"),
        user("inactive", "view_activity", is_staff=True, is_active=False),
    ]

    assert visible_to(policy, permitted) == [run]
    assert policy.audience(permitted) == EVERYTHING
    for who in refused:
        assert visible_to(policy, who) == []
        assert policy.audience(who) == ""
        assert not any(policy.may(who, permission) for permission in Permission)
        assert not policy.may_monitor(who)


@pytest.mark.parametrize("permission", Permission)
def test_each_permission_is_its_own(permission: Permission) -> None:
    who = user("one", permission, is_staff=True)

    assert [one for one in Permission if StaffPolicy().may(who, one)] == [permission]


def test_a_tenant_sees_its_own_and_steers_it() -> None:
    ours, theirs, nobodys = run_of(organization_id="org-1"), run_of(organization_id="org-2"), run_of()
    policy, who = OrganizationPolicy(), user("jo", first_name="org-1")

    assert visible_to(policy, who) == [ours]
    assert policy.may(who, Permission.CANCEL, ours)
    assert not policy.may(who, Permission.CANCEL, theirs)
    assert not policy.may(who, Permission.CANCEL, nobodys)
    assert not policy.may_monitor(who)
    assert policy.stamp(who) == {"organization_id": "org-1"}


def test_a_tenants_feed_hears_of_its_own_only() -> None:
    policy, who = OrganizationPolicy(), user("jo", first_name="org-1")

    assert policy.audience(who) in policy.audiences(run_of(organization_id="org-1"))
    assert policy.audience(who) not in policy.audiences(run_of(organization_id="org-2"))
    assert list(policy.audiences(run_of())) == [EVERYTHING]


@pytest.mark.parametrize("who", [AnonymousUser(), User(username="new"), User(first_name="org-1", is_active=False)])
def test_who_has_no_tenant_gets_nothing(who: Any) -> None:
    run_of()
    run_of(organization_id="org-1")
    policy = OrganizationPolicy()

    assert visible_to(policy, who) == []
    assert policy.audience(who) == ""
    assert not policy.may(who, Permission.VIEW)


class NumberPolicy(TenantPolicy):
    """A tenant is a number."""

    keys = ["organization_id", "team"]
    values: Mapping[str, Any] = {}

    def tenant(self, user: Any) -> Mapping[str, Any]:
        return self.values


@pytest.mark.parametrize(
    ("given", "stored", "is_same"),
    [
        (1, "1", True),
        ("1", 1, True),
        (1, 1.0, True),
        (1.5, "1.5", True),
        (10**17, 1e17, True),
        (UUID(int=7), str(UUID(int=7)), True),
        ("1", "1", True),
        (1, True, False),
        (True, "1", False),
        ("1.0", 1, False),
        ("1", "1.0", False),
        ("01", 1, False),
        (1, [1], False),
        (1, {"1": 1}, False),
        (1, 2**70, False),
        ("null", None, False),
    ],
)
def test_a_tenant_is_compared_by_text_and_by_value_everywhere(given: Any, stored: Any, is_same: bool) -> None:
    policy, who = NumberPolicy(), user("jo")
    NumberPolicy.values = {"organization_id": given, "team": "a"}
    run = run_of(organization_id=stored, team="a")
    other = run_of(organization_id=stored, team="b")

    assert visible_to(policy, who) == [run] * is_same
    assert policy.may(who, Permission.VIEW, run) is is_same
    assert not policy.may(who, Permission.VIEW, other)
    assert (policy.audience(who) in policy.audiences(run)) is is_same
    assert policy.audience(who) not in policy.audiences(other)


@pytest.mark.parametrize("given", [2**70, "a\0", "\ud800", [1], {"a": 1}])
def test_a_tenant_that_no_row_could_hold_is_an_error(given: Any) -> None:
    NumberPolicy.values = {"organization_id": given, "team": "a"}

    with pytest.raises(ImproperlyConfigured, match="Return str"):
        visible_to(NumberPolicy(), user("jo"))


def test_staff_see_all_tenants_unless_the_setting_restricts_them() -> None:
    ours, theirs = run_of(organization_id="org-1"), run_of(organization_id="org-2")
    permitted = user("permitted", "view_activity", "retry_activity", is_staff=True, first_name="org-1")
    stateless = user("stateless", "view_activity", is_staff=True)
    root = user("root", is_staff=True, is_superuser=True, first_name="org-1")
    policy = OrganizationPolicy()

    assert set(visible_to(policy, permitted)) == {ours, theirs}
    assert policy.may_monitor(permitted)
    assert policy.audience(permitted) == EVERYTHING
    with override_settings(AGENTEXEC={"STAFF_SEES_ALL_TENANTS": False}):
        assert visible_to(policy, permitted) == [ours]
        assert visible_to(policy, stateless) == []
        assert set(visible_to(policy, root)) == {ours, theirs}
        assert policy.may(permitted, Permission.RETRY, ours)
        assert not policy.may(permitted, Permission.RETRY, theirs)
        assert not policy.may_monitor(permitted)
        assert policy.may_monitor(root)
        assert policy.audience(permitted) not in policy.audiences(theirs)


class ReadOnlyPolicy(OrganizationPolicy):
    permissions = frozenset({Permission.VIEW})


@override_settings(AGENTEXEC={"STAFF_SEES_ALL_TENANTS": False})
def test_restricted_staff_have_their_own_permissions_within_their_tenant() -> None:
    ours, theirs = run_of(organization_id="org-1"), run_of(organization_id="org-2")
    who, policy = user("jo", "cancel_activity", is_staff=True, first_name="org-1"), ReadOnlyPolicy()

    assert [one for one in Permission if policy.may(who, one, ours)] == [Permission.VIEW, Permission.CANCEL]
    assert not any(policy.may(who, one, theirs) for one in Permission)


def test_a_tenant_with_other_keys_than_declared_is_an_error() -> None:
    with pytest.raises(ImproperlyConfigured, match="`keys` has"):
        visible_to(ForgetfulPolicy(), user("jo", first_name="org-1"))


@pytest.mark.parametrize("path", ["no.such.Policy", "datetime.date", "django_agentexec.models.Activity"])
def test_a_policy_that_is_none_is_refused_by_the_check(path: str) -> None:
    with override_settings(AGENTEXEC={"POLICY": path}):
        with pytest.raises(ImproperlyConfigured, match=path):
            get_policy()
        assert "agentexec.E008" in [message.id for message in run_checks(tags=["agentexec"])]
