"""Conversations over REST: the list, the items, the option of an enqueue, and tenants."""

from __future__ import annotations

from typing import Any

import pytest
from django.http import HttpResponse
from django.test import override_settings
from rest_framework.test import APIClient

from django_agentexec.models import Activity, Conversation, ConversationItem
from django_agentexec.policy import Policy
from tests.support.rest_api import POLICY, client, member, outside_task, staff

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("read_title")]

URL = "/agents/conversations/"
TASK = "/agents/tasks/read_title/"


class OwnerPolicy(Policy):
    """A policy that shows users their own conversations."""

    def may(self, user: Any, permission: Any, activity: Any = None) -> bool:
        return bool(user.is_authenticated)

    def visible_conversations(self, user: Any, conversations: Any) -> Any:
        return conversations.owned_by(user)


def conversation(session_id: str, *texts: str, **options: Any) -> Conversation:
    items = [{"role": "user", "content": text} for text in texts]
    return Conversation.objects.import_history(session_id, items, **options)


def viewer() -> APIClient:
    return client(staff("viewer", "view_conversation"))


def post(who: APIClient, **parameters: str) -> HttpResponse:
    query = "&".join(f"{name}={value}" for name, value in parameters.items())
    return who.post(f"{TASK}?{query}", {"title": "Acme"}, format="json")


def ids(answer: HttpResponse) -> list[str]:
    return [item["session_id"] for item in answer.json()["items"]]


def test_the_list_has_pages_and_filters() -> None:
    for number in range(3):
        conversation(f"s{number}", metadata={"ticket": number}, owner="7" if number else None)
    who = viewer()

    answer = who.get(URL, {"page_size": 2})
    assert (answer.status_code, ids(answer)) == (200, ["s2", "s1"])
    assert {name: answer.json()[name] for name in ("total", "total_is_bounded", "page", "page_size")} == {
        "total": 3,
        "total_is_bounded": False,
        "page": 1,
        "page_size": 2,
    }
    assert set(answer.json()["items"][0]) == {
        *("id", "session_id", "title", "owner", "metadata", "created_at", "updated_at"),
    }
    assert answer.json()["items"][0]["metadata"] == {}, "metadata may name tenants"
    assert ids(who.get(URL, {"page_size": 2, "page": 2})) == ["s0"]
    assert ids(who.get(URL, {"session_id": "s1"})) == ["s1"]
    assert ids(who.get(URL, {"owner": "7"})) == ["s2", "s1"]
    assert ids(who.get(URL, {"metadata.ticket": "2"})) == ["s2"]
    assert who.get(URL, {"sesion_id": "s1"}).status_code == 400


def test_the_items_are_read_in_parts() -> None:
    row = conversation("one", *map(str, range(5)))
    removed = row.items.all()[1]
    ConversationItem.objects.filter(pk=removed.pk).update(removed_by=row.pk)
    who, url = viewer(), f"{URL}{row.pk}/items/"

    seen, after = [], {}
    while True:
        part = who.get(url, {"limit": 2, **after}).json()
        seen += [item["item"]["content"] for item in part["items"]]
        after = {"after": part["items"][-1]["id"]}
        if not part["has_more"]:
            break

    assert seen == ["0", "2", "3", "4"]
    assert set(part["items"][0]) == {"id", "position", "item", "activity_id", "created_at"}
    assert who.get(url, {"after": removed.pk, "limit": 1}).json()["items"][0]["item"]["content"] == "2"
    assert who.get(url, {"after": 10**9}).status_code == 404
    assert who.get(url, {"limit": 0}).status_code == 400


def test_items_of_the_same_position_are_all_read() -> None:
    row = conversation("one", "a", "b")
    ConversationItem.objects.update(position=0)
    url = f"{URL}{row.pk}/items/"

    first = viewer().get(url, {"limit": 1}).json()["items"][0]
    second = client(staff("other", "view_conversation")).get(url, {"after": first["id"]}).json()["items"]

    assert [item["item"]["content"] for item in (first, *second)] == ["a", "b"]


@pytest.mark.parametrize("conversation_id", ["7", "x", "0190a220-c8b9-7251-a135-c356d9b0aae6"])
def test_an_unknown_conversation_is_404(conversation_id: str) -> None:
    assert viewer().get(f"{URL}{conversation_id}/items/").status_code == 404


def test_others_see_nothing() -> None:
    row = conversation("one", "a")
    for who in (APIClient(), client(staff("nobody", "view_activity")), client(member("acme"))):
        for url in (URL, f"{URL}{row.pk}/items/"):
            assert who.get(url).status_code in (401, 403)


def test_a_policy_without_the_method_shows_nothing() -> None:
    row = conversation("one", "a")

    class Old(Policy):
        def may(self, user: Any, permission: Any, activity: Any = None) -> bool:
            return True

    with override_settings(AGENTEXEC={"POLICY": Old}):
        who = viewer()
        assert who.get(URL).json()["items"] == []
        assert who.get(f"{URL}{row.pk}/items/").status_code == 404
        assert post(who, conversation="one").status_code == 404
        assert post(who, conversation="new").status_code == 404
    assert [each.session_id for each in Conversation.objects.all()] == ["one"]


@override_settings(AGENTEXEC={"POLICY": POLICY})
def test_tenants_see_and_use_their_conversations_only() -> None:
    mine = conversation("mine", "a", metadata={"organization_id": "acme"})
    theirs = conversation("theirs", "b", metadata={"organization_id": "rival"})
    conversation("nobody's", "c")
    who = client(member("acme"))

    assert ids(who.get(URL)) == ["mine"]
    assert ids(who.get(URL, {"session_id": "theirs"})) == []
    assert who.get(f"{URL}{mine.pk}/items/").json()["items"][0]["item"]["content"] == "a"
    assert who.get(f"{URL}{theirs.pk}/items/").status_code == 404
    assert post(who, conversation="mine").status_code == 202
    assert post(who, conversation="new").status_code == 202
    for foreign in ("theirs", "nobody's"):
        assert post(who, conversation=foreign).status_code == 404

    assert sorted(Activity.objects.values_list("conversation__session_id", flat=True)) == ["mine", "new"]
    new = Conversation.objects.get(session_id="new")
    assert new.metadata == {"organization_id": "acme"}
    assert new.owner is not None


@override_settings(AGENTEXEC={"POLICY": POLICY})
def test_staff_enqueue_no_turn_of_one_tenant_into_a_conversation_of_another() -> None:
    """The turn would show the history to the tenant with which the activity is stamped."""
    conversation("mine", "a", metadata={"organization_id": "acme"})
    conversation("theirs", "b", metadata={"organization_id": "rival"})
    user = staff("all", "view_activity", "enqueue_task", "view_conversation")
    user.first_name = "acme"
    user.save()
    who = client(user)

    assert post(who, conversation="mine").status_code == 202
    assert post(who, conversation="theirs").status_code == 404
    assert post(who, conversation="theirs", **{"metadata.organization_id": "rival"}).status_code == 404
    user.first_name = ""  # staff without a tenant name the tenant
    user.save()
    who = client(user)
    assert post(who, conversation="theirs", **{"metadata.organization_id": "acme"}).status_code == 404
    assert post(who, conversation="theirs", **{"metadata.organization_id": "rival"}).status_code == 202
    assert post(who, conversation="theirs").status_code == 202


@override_settings(AGENTEXEC={"POLICY": OwnerPolicy})
def test_a_policy_may_show_users_their_own_conversations() -> None:
    user = member("acme")
    conversation("mine", "a", owner=str(user.pk))
    conversation("theirs", "b", owner="0")
    who = client(user)

    assert ids(who.get(URL)) == ["mine"]
    assert post(who, conversation="theirs").status_code == 404
    assert post(who, conversation="new").status_code == 202
    assert ids(who.get(URL)) == ["new", "mine"]


def test_an_enqueued_turn_names_its_conversation() -> None:
    who = client(staff("all", "view_activity", "enqueue_task", "view_conversation"))

    answer = post(who, conversation="one")

    detail = who.get(answer.json()["status_url"]).json()
    assert detail["conversation_id"] == str(Conversation.objects.get().pk)
    assert detail["lock_key"] == Conversation.objects.get().lock_key


def test_impossible_conversations_are_400_and_create_nothing() -> None:
    who = client(staff("all", "enqueue_task", "view_conversation"))

    assert post(who, conversation="").status_code == 400
    assert post(who, conversation="x" * 256).status_code == 400
    with outside_task("locked", lock_key="title:{title}"):
        answer = who.post("/agents/tasks/locked/?conversation=one", {"title": "Acme"}, format="json")
    assert answer.status_code == 400
    assert "lock key" in answer.json()["non_field_errors"][0]
    assert not Conversation.objects.exists()


def test_the_document_describes_the_paths() -> None:
    paths = client(staff("all", "view_activity")).get("/agents/schema/").json()["paths"]

    assert paths["/agents/conversations/"]["get"]["operationId"] == "list_conversations"
    names = {each["name"] for each in paths["/agents/conversations/{conversation_id}/items/"]["get"]["parameters"]}
    assert names == {"after", "limit", "conversation_id"}
