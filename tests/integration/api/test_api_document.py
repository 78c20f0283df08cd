"""The OpenAPI document, and the effects of the API on a project's own document, URLs and imports."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.core.management import call_command
from django.test import override_settings
from django.urls import include, path, set_urlconf
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.settings import patched_settings
from drf_spectacular.validation import validate_schema
from pydantic import BaseModel

from django_agentexec import Run, task
from django_agentexec.api.json_schema import for_openapi_30
from django_agentexec.api.urls import urlpatterns as routes
from django_agentexec.tasks import registry
from tests.support.rest_api import admin, client, outside_task, staff

pytestmark = pytest.mark.django_db

VERSIONS = ["3.0.3", "3.1.0"]


class Page(BaseModel):
    url: str


class Fetch(BaseModel):
    pages: list[Page]


@pytest.fixture(autouse=True)
def tasks() -> Iterator[None]:
    """Two tasks whose contexts have parts of the same name."""

    @task("fetch", api=True)
    def fetch(agent_id: UUID, context: Fetch) -> None:
        """Fetch pages."""

    with outside_task():
        yield


def document() -> dict[str, Any]:
    answer = client(admin()).get("/agents/schema/")
    assert answer.status_code == 200
    found: dict[str, Any] = answer.json()
    return found


@pytest.mark.parametrize("version", VERSIONS)
def test_spectacular_prints_no_warning(version: str) -> None:
    with patched_settings({"OAS_VERSION": version}):
        call_command("spectacular", "--validate", "--fail-on-warn", stdout=io.StringIO())


@pytest.mark.parametrize("version", VERSIONS)
def test_it_is_valid_without_the_hook_too(version: str) -> None:
    with patched_settings({"OAS_VERSION": version, "PREPROCESSING_HOOKS": []}):
        whole = SchemaGenerator().get_schema(public=True)

    validate_schema(whole)
    operation = whole["paths"]["/agents/tasks/{name}/"]["post"]
    (name,) = [one for one in operation["parameters"] if one["name"] == "name"]
    tasks = sorted(task.name for task in registry if task.api)  # others may have been registered, too
    assert name["schema"]["enum"] == tasks
    assert {"fetch", "read_title"} <= set(tasks)
    assert len(operation["requestBody"]["content"]["application/json"]["schema"]["anyOf"]) == len(tasks)


def test_each_task_is_an_operation_with_its_context_as_a_component() -> None:
    found = document()

    operation = found["paths"]["/agents/tasks/fetch/"]["post"]
    body = operation["requestBody"]["content"]["application/json"]["schema"]
    schemas = found["components"]["schemas"]
    assert operation["operationId"] == "enqueue_fetch"
    assert operation["description"].startswith("Fetch pages.")
    assert body == {"$ref": "#/components/schemas/fetch_context"}
    assert schemas["fetch_context"]["required"] == ["pages"]
    assert list(schemas["fetch_context_Page"]["properties"]) == ["url"]
    assert list(schemas["read_title_context_Page"]["properties"]) == ["number", "words"]
    assert "/agents/tasks/shout/" not in found["paths"]


def test_it_describes_every_route() -> None:
    found = document()

    described = {where.replace("{name}", "").removeprefix("/agents/") for where in found["paths"]}
    for route in routes:
        where = re.sub(r"<str:(\w+)>", r"{\1}", str(route.pattern)).replace("<path:name>", "fetch")
        assert where in described
    assert found["info"]["title"] == "Agents"


def test_the_document_requires_permission_to_view_or_enqueue() -> None:
    for name, allowed in (("view_activity", 200), ("enqueue_task", 200), ("cancel_activity", 403)):
        assert client(staff(name, name)).get("/agents/schema/").status_code == allowed
    assert client().get("/agents/schema/").status_code == 403


def test_every_route_has_a_name_and_a_view_with_its_own_permission() -> None:
    for route in routes:
        assert route.name
        assert "permission_classes" in vars(route.callback.cls)


def test_only_json_is_spoken() -> None:
    who = client(admin())

    assert who.get("/agents/activities/", headers={"Accept": "text/html"}).status_code == 406
    assert who.get("/agents/activities/", headers={"Accept": "*/*"})["Content-Type"] == "application/json"


@pytest.mark.parametrize(
    ("schema", "older"),
    [
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, {"type": "integer", "nullable": True}),
        (
            {"anyOf": [{"$ref": "#/x"}, {"type": "null"}], "default": None},
            {"allOf": [{"$ref": "#/x"}], "nullable": True, "default": None},
        ),
        (
            {"anyOf": [{"type": "integer"}, {"type": "string"}, {"type": "null"}]},
            {"anyOf": [{"type": "integer"}, {"type": "string"}], "nullable": True},
        ),
        ({"const": "x"}, {"enum": ["x"]}),
        ({"exclusiveMinimum": 0}, {"minimum": 0, "exclusiveMinimum": True}),
        ({"type": "array", "prefixItems": [{"type": "integer"}]}, {"type": "array", "items": {}}),
        ({"$ref": "#/x", "description": "y"}, {"allOf": [{"$ref": "#/x"}], "description": "y"}),
        ({"examples": [1, 2]}, {"example": 1}),
        ({"properties": {"const": {"const": 1}}}, {"properties": {"const": {"enum": [1]}}}),
        ({"type": ["string", "null"]}, {"type": "string", "nullable": True}),
        ({"default": {"const": 1}}, {"default": {"const": 1}}),
    ],
)
def test_a_schema_in_the_words_of_an_older_version(schema: dict[str, Any], older: dict[str, Any]) -> None:
    assert for_openapi_30(schema) == older


# Where an activity is found


def handle() -> Run:
    return Run(uuid4(), "import")


class Elsewhere:
    """A project that mounts the API below another prefix."""

    urlpatterns = [path("api/v1/", include("django_agentexec.api.urls"))]


class Nowhere:
    """A project without the API."""

    urlpatterns: list[Any] = []


@pytest.mark.parametrize(("urls", "where"), [(Elsewhere, "/api/v1/activities/{}/"), (Nowhere, "/runs/{}")])
@override_settings(AGENTEXEC={"STATUS_URL": "/runs/{agent_id}"})
def test_the_status_url_follows_the_mounted_api(urls: type, where: str) -> None:
    one = handle()
    with override_settings(ROOT_URLCONF=urls):
        assert one.status_url == where.format(one.agent_id)
    set_urlconf(None)


@override_settings(ROOT_URLCONF=Elsewhere)
def test_the_location_follows_the_mounted_api() -> None:
    answer = client(admin()).post("/api/v1/tasks/read_title/", {"title": "x"}, format="json")

    assert answer["Location"] == answer.json()["status_url"] == f"/api/v1/activities/{answer.json()['agent_id']}/"


def test_a_project_of_workers_alone_has_no_urls() -> None:
    code = (
        "from uuid import UUID; from django.conf import settings;"
        "settings.configure(INSTALLED_APPS=['django_agentexec',"
        "'django.contrib.contenttypes', 'django.contrib.auth']); import django; django.setup();"
        "from django_agentexec import Run; print(Run(UUID(int=7), 'x').status_url)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == f"/agents/activities/{UUID(int=7)}/"


def test_without_its_libraries_the_api_names_the_extra() -> None:
    code = (
        "import sys, importlib.util as u; found = u.find_spec;"
        "u.find_spec = lambda name, *a: None if name == 'drf_spectacular' else found(name, *a);"
        "import django_agentexec.api"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert "The REST API needs drf_spectacular: pip install 'django-agentexec[api]'" in done.stderr
