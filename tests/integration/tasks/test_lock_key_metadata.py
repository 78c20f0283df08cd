"""Lock keys made of metadata: one tenant's runs do not wait for another's."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
from django.test import override_settings
from pydantic import BaseModel, ConfigDict

from django_agentexec import Attempt, InvalidContext, TaskDefinitionError, task
from django_agentexec.models import Activity
from django_agentexec.testing import drain
from tests.support.activity_rows import row
from tests.support.rest_api import POLICY, client, member

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("queue_in_memory")]

KEY = "{metadata.organization_id}:doc:{id}"


class Document(BaseModel):
    model_config = ConfigDict(extra="allow")

    id: int


class WithMetadata(BaseModel):
    metadata: str


def define(template: str, context_type: type[BaseModel] = Document) -> Any:
    def read(agent_id: UUID, context: Any) -> None:
        return None

    read.__annotations__["context"] = context_type
    return task("read_document", lock_key=template, api=True)(read)


def test_each_tenant_has_its_own_key() -> None:
    read = define(KEY)

    keys = [row(read.enqueue(Document(id=1), metadata={"organization_id": org}).agent_id).lock_key for org in ("a", 7)]

    assert keys == ["a:doc:1", "7:doc:1"]


@pytest.mark.parametrize("template", ["{metadata[organization_id]}", "{metadata.organization_id}"])
def test_both_forms_of_a_template_work(template: str) -> None:
    run = define(template).enqueue(Document(id=1), metadata={"organization_id": "a"})

    assert row(run.agent_id).lock_key == "a"


def test_inner_objects_can_be_named() -> None:
    run = define("{metadata.org.id}").enqueue(Document(id=1), metadata={"org": {"id": "a"}})

    assert row(run.agent_id).lock_key == "a"


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        (None, "metadata has no 'organization_id' but no keys"),
        ({"org": "a"}, "metadata has no 'organization_id' but 'org'"),
        ({"organization_id": None}, "is None"),
        ({"organization_id": {"id": 1}}, "name one of its keys"),
    ],
)
def test_a_missing_key_is_an_error_at_enqueue(metadata: Any, message: str) -> None:
    read = define(KEY)

    with pytest.raises(InvalidContext, match=message):
        read.enqueue(Document(id=1), metadata=metadata)
    with pytest.raises(InvalidContext, match=message):
        read.enqueue_many([Document(id=1)], metadata=metadata)
    assert not Activity.objects.exists()


@pytest.mark.parametrize("template", ["{metadata}", "{metadata._x}", "{metadata.__class__}", "{metadat.a}"])
def test_an_impossible_template_is_refused_at_registration(template: str) -> None:
    with pytest.raises(TaskDefinitionError, match="lock_key"):
        define(template)


def test_a_field_of_the_context_keeps_its_name() -> None:
    run = define("{metadata}", WithMetadata).enqueue(WithMetadata(metadata="x"), metadata={"a": "y"})

    assert row(run.agent_id).lock_key == "x"


@override_settings(
    AGENTEXEC={"POLICY": POLICY, "QUEUE_BACKEND": "django_agentexec.queues.memory.MemoryQueue"},
)
def test_a_caller_cannot_choose_the_key_of_another_tenant() -> None:
    define(KEY)

    answer = client(member("org-1")).post(
        "/agents/tasks/read_document/", {"id": 1, "metadata": {"organization_id": "org-2"}}, format="json"
    )

    assert row(UUID(answer.json()["agent_id"])).lock_key == "org-1:doc:1"


def test_children_have_the_key_of_their_parents_metadata() -> None:
    read = define(KEY)

    @task("read_all")
    def read_all(agent_id: UUID, context: Document, attempt: Attempt) -> None:
        attempt.spawn(read, context)
        attempt.spawn(read, context, key="other", metadata={"organization_id": "b"})

    read_all.enqueue(Document(id=1), metadata={"organization_id": "a"})
    drain()

    children = Activity.objects.filter(agent_type="read_document").order_by("agent_id")
    assert list(children.values_list("lock_key", flat=True)) == ["a:doc:1", "b:doc:1"]
