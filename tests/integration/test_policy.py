"""The policies: who sees what, who may do what, and which feed hears of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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


def test_a_tenant_with_other_keys_than_declared_is_an_error() -> None:
    with pytest.raises(ImproperlyConfigured, match="`keys` says"):
        visible_to(ForgetfulPolicy(), user("jo", first_name="org-1"))


@pytest.mark.parametrize("path", ["no.such.Policy", "datetime.date", "django_agentexec.models.Activity"])
def test_a_policy_that_is_none_is_refused_by_the_check(path: str) -> None:
    with override_settings(AGENTEXEC={"POLICY": path}):
        with pytest.raises(ImproperlyConfigured, match=path):
            get_policy()
        assert "agentexec.E008" in [message.id for message in run_checks(tags=["agentexec"])]
