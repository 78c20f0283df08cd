"""The admin of conversations: the list, the page that reads as a chat, the export, and permissions."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from typing import Any

import pytest
from django.db import connection
from django.test import Client, override_settings
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from django_agentexec import Status
from django_agentexec.admin import conversations
from django_agentexec.models import Activity, AgentCall, Conversation, ConversationItem
from tests.support.admin_pages import CHANGE_LIST, TENANTS, page_of, signed_in
from tests.support.conversation_items import answer, call, output, user

ORDER = '{"order": 20931}'

pytestmark = pytest.mark.django_db

URL = "/admin/agentexec/conversation/"
VIEW = ("view_activity", "view_conversation")
SCRIPT = "<script>alert(1)</script>"


def turn(conversation: Conversation, *items: Any, **fields: Any) -> Activity:
    """Store an activity and the items that it has written."""
    values = {"agent_type": "answer", "status": Status.COMPLETE, "attempt": 1, "metadata": {"organization_id": "org-1"}}
    row = Activity.objects.create(conversation=conversation, **{**values, **fields})
    start = conversation.items.count()
    for number, item in enumerate(items):
        ConversationItem.objects.create(
            conversation=conversation, position=start + number, item=item, activity=row, key=f"#{number}"
        )
    return row


def example() -> Conversation:
    conversation = Conversation.objects.create(
        session_id="ticket-4127", title="Double payment", metadata={"organization_id": "org-1"}
    )
    now = timezone.now()
    done = turn(
        conversation,
        user("My card was charged twice."),
        {"type": "reasoning", "id": "r", "summary": []},
        call("1", "find_order", ORDER),
        call("2", "previous_tickets", ORDER),
        output("1", "2 payments"),
        output("2", "#3990"),
        answer("I can see **both** payments."),
        started_at=now,
        finished_at=now + timezone.timedelta(seconds=4.1),
        usage={"input_tokens": 3800, "output_tokens": 100},
        cost=Decimal("0.0142"),
        attempt=2,
    )
    AgentCall.objects.create(activity=done, kind="agent", agent="Resolver")
    turn(conversation, user("Refund it."), call("3", "refund_order", ORDER), status=Status.ERROR, error="No answer.")
    turn(conversation, status=Status.QUEUED, agent_type="draft")
    return conversation


def page(client: Client, conversation: Conversation, **parameters: Any) -> Any:
    response = client.get(f"{URL}{conversation.pk}/change/", parameters)
    assert response.status_code == 200
    return response


def test_the_page_reads_as_a_chat() -> None:
    conversation = example()

    response = page(signed_in(*VIEW), conversation)

    turns = response.context["turns"]
    assert [(each.role, each.author) for each in turns] == [
        ("user", "User"),
        ("agent", "Resolver"),
        ("user", "User"),
        ("agent", "Agent"),
        ("agent", "draft"),
    ]
    assert turns[1].tools_text == "2 tool calls: find_order, previous_tickets"
    assert [(tool.name, tool.output) for tool in turns[1].tools] == [
        ("find_order", "2 payments"),
        ("previous_tickets", "#3990"),
    ]
    assert turns[1].foot.facts == "4.1 s · 3.9k tokens · $0.014"
    text = response.content.decode()
    assert "<p>I can see <strong>both</strong> payments.</p>" in text
    assert "Attempt 2, turn kept once" in text
    assert "No output. Runs do not see this call." in text
    assert "No answer." in text
    assert "Double payment" in text
    for each in Activity.objects.all():
        assert page_of(each.pk) in text


def test_what_people_and_models_say_is_text() -> None:
    conversation = Conversation.objects.create(session_id=SCRIPT, title=SCRIPT, owner=SCRIPT)
    turn(
        conversation,
        user(SCRIPT),
        call("1", SCRIPT, ORDER),
        output("1", SCRIPT),
        answer(SCRIPT),
        {"type": SCRIPT, "x": SCRIPT},
    )
    turn(conversation, {"role": "user", "content": [{"type": SCRIPT}, SCRIPT, 7]}, {"role": "user", "content": None})
    client = signed_in(*VIEW)

    for address in (URL, f"{URL}{conversation.pk}/change/", f"{URL}?q={SCRIPT}"):
        assert SCRIPT not in client.get(address).content.decode()


@pytest.mark.parametrize("value", [None, 7, [], {}, ["x"], {"type": "x"}])
def test_items_of_any_form_are_shown(value: Any) -> None:
    """The author of a run's input is the author of its items."""
    names = ("type", "role", "content", "call_id", "name", "arguments", "output")
    items = [{name: value} for name in names]
    items += [{"type": kind, **dict.fromkeys(names[1:], value)} for kind in ("function_call", "function_call_output")]
    conversation = Conversation.objects.import_history("odd", items)

    assert len(page(signed_in(*VIEW), conversation).context["turns"]) >= 1


def test_no_page_has_inline_styles_or_scripts() -> None:
    client, conversation = signed_in(*VIEW, "delete_conversation"), example()

    for address in (URL, f"{URL}{conversation.pk}/change/"):
        text = client.get(address).content.decode()
        main = text[text.index('class="ae-page"') :]
        assert not re.search(r"\sstyle=|\son[a-z]+=|<script(?![^>]*\ssrc=)", main[: main.index("</main>")])


def test_the_list_shows_numbers_of_the_activities() -> None:
    example()
    Conversation.objects.create(session_id="empty")
    client = signed_in(*VIEW)

    rows = client.get(URL).context["rows"]
    assert [str(row["conversation"]) for row in rows] == ["empty", "Double payment"]
    assert {name: rows[1][name] for name in ("turns", "active", "failed", "cost")} == {
        "turns": "3",
        "active": 1,
        "failed": 1,
        "cost": "$0.014",
    }
    text = client.get(URL).content.decode()
    assert "1 active" in text
    assert "1 failed" in text


def test_the_list_searches_and_has_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversations, "PAGE_SIZE", 2)
    for number in range(5):
        Conversation.objects.create(session_id=f"s{number}", title=f"t{number}", owner=str(number))
    client = signed_in(*VIEW)

    def listed(**parameters: Any) -> list[str]:
        return [row["conversation"].session_id for row in client.get(URL, parameters).context["rows"]]

    assert (listed(), listed(p=2), listed(p=3)) == (["s4", "s3"], ["s2", "s1"], ["s0"])
    assert listed(q="s3") == listed(q="t3") == listed(q="3") == ["s3"]
    assert listed(q=str(Conversation.objects.get(session_id="s1").pk)) == ["s1"]
    assert listed(q="none") == listed(p=10**9) == []


def test_a_long_conversation_has_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversations, "MAX_ITEMS", 2)
    conversation = Conversation.objects.import_history("one", [user(str(number)) for number in range(5)])
    client = signed_in(*VIEW)

    seen, earlier = [], None
    for _ in range(3):
        context = page(client, conversation, **({"before": earlier} if earlier else {})).context
        seen.append([str(text) for each in context["turns"] for text in each.texts])
        earlier = context["earlier"]

    assert seen == [["<p>3</p>", "<p>4</p>"], ["<p>1</p>", "<p>2</p>"], ["<p>0</p>"]]
    assert earlier is None


def test_pages_need_few_queries() -> None:
    conversation, client = example(), signed_in(*VIEW)
    for number in range(30):
        turn(Conversation.objects.create(session_id=str(number), owner="1"), user("x"))
        turn(conversation, user("x"), answer("y"))

    for address in (URL, f"{URL}{conversation.pk}/change/"):
        client.get(address)
        with CaptureQueriesContext(
            connection,
        ) as queries:
            client.get(address)
        assert len(queries) <= 14, [query["sql"][:100] for query in queries]


def test_the_export_can_be_imported() -> None:
    conversation = example()
    turn(conversation, user("Füße"))

    response = signed_in(*VIEW).get(f"{URL}{conversation.pk}/export/")

    assert response["Content-Disposition"] == f'attachment; filename="conversation-{conversation.pk}.json"'
    copy = Conversation.objects.import_history("copy", json.loads(response.content))
    assert list(copy.items.values_list("item", flat=True)) == list(conversation.items.values_list("item", flat=True))


def test_the_permission_is_needed() -> None:
    conversation = example()
    client = signed_in("view_activity")

    for path in ("", f"{conversation.pk}/change/", f"{conversation.pk}/export/", f"{conversation.pk}/delete/"):
        assert client.get(f"{URL}{path}").status_code in (302, 403, 404)
    assert URL not in client.get(CHANGE_LIST).content.decode()
    assert client.post(f"{URL}{conversation.pk}/change/", {"title": "x"}).status_code == 403


@pytest.mark.parametrize(("permissions", "is_shown"), [(VIEW, True), (("view_conversation",), False)])
def test_the_inbox_is_among_the_tabs_of_those_who_may_see_activities(
    permissions: tuple[str, ...], is_shown: bool
) -> None:
    conversation, client = example(), signed_in(*permissions)

    for address in (URL, f"{URL}{conversation.pk}/change/"):
        tabs = client.get(address).content.decode().split('<nav class="ae-tabs"')[1].split("</nav>")[0]
        assert (f'href="{reverse("admin:agentexec_approval_changelist")}"' in tabs) is is_shown


def test_without_the_permission_for_activities_the_chat_has_no_links() -> None:
    conversation = example()

    response = page(signed_in("view_conversation"), conversation)

    assert {each.foot for each in response.context["turns"]} == {None}
    assert "No answer." not in response.content.decode()


def test_other_tenants_see_nothing() -> None:
    conversation = example()
    with override_settings(AGENTEXEC=TENANTS):
        mine = signed_in(*VIEW, "delete_conversation", name="mine", first_name="org-1")
        foreign = signed_in(*VIEW, "delete_conversation", name="foreign", first_name="org-2")

        assert [row["conversation"] for row in mine.get(URL).context["rows"]] == [conversation]
        assert page(mine, conversation).context["turns"]
        assert foreign.get(URL).context["rows"] == []
        assert foreign.get(f"{URL}{conversation.pk}/change/").status_code == 302
        assert foreign.get(f"{URL}{conversation.pk}/export/").status_code == 404
        assert foreign.post(f"{URL}{conversation.pk}/delete/", {"post": "yes"}).status_code == 302
    assert Conversation.objects.exists()


def test_a_conversation_is_deleted_with_its_items_unless_it_is_active() -> None:
    conversation = example()
    client = signed_in(*VIEW, "delete_conversation")
    address = f"{URL}{conversation.pk}/delete/"

    assert client.post(address, {"post": "yes"}).status_code == 403
    Activity.objects.update(status=Status.COMPLETE)
    assert b"items" in client.get(address).content
    assert client.post(address, {"post": "yes"}).status_code == 302

    assert not Conversation.objects.exists()
    assert not ConversationItem.objects.exists()
    assert Activity.objects.count() == 3


def test_activity_and_conversation_link_each_other() -> None:
    conversation = example()
    row = Activity.objects.filter(status=Status.COMPLETE).get()

    text = signed_in(*VIEW).get(page_of(row.pk)).content.decode()

    assert f"{URL}{conversation.pk}/change/" in text
    assert f'href="{URL}"' in text


def test_the_pages_are_in_german() -> None:
    conversation, client = example(), signed_in(*VIEW)

    with override_settings(LANGUAGE_CODE="de"):
        text = page(client, conversation).content.decode() + client.get(URL).content.decode()

    for german in (
        "2 Tool-Aufrufe: find_order",
        "Versuch 2, Beitrag nur einmal gespeichert",
        "1 aktiv",
        "Unterhaltung",
    ):
        assert german in text
