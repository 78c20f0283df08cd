"""Templates of a project extend the pages of the admin, as docs/admin.md describes."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
from django.test import Client

from tests.support.admin_pages import ALL, page_of, staff
from tests.testapp.agents import Text, report

PAGE = Path(__file__).resolve().parents[3] / "docs" / "admin.md"

pytestmark = pytest.mark.django_db


def test_a_template_of_the_project_adds_a_card_to_the_page_of_an_activity(settings: Any, tmp_path: Path) -> None:
    example = re.search(r"^```html\n{# templates/(\S+) #}\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert example
    template = tmp_path / example[1]
    template.parent.mkdir(parents=True)
    template.write_text(example[2])
    settings.TEMPLATES = copy.deepcopy(settings.TEMPLATES)
    settings.TEMPLATES[0]["DIRS"] = [str(tmp_path)]
    agent_id = report.enqueue(Text(), metadata={"ticket": "T-4127"}).agent_id
    client = Client()
    client.force_login(staff(*ALL))

    html = client.get(page_of(agent_id)).content.decode()

    assert "<h2>Ticket</h2><p>T-4127</p>" in html
    assert 'id="ae-activity"' in html
