"""The tests on pages of the documentation pass."""

from __future__ import annotations

import inspect

import pytest

from tests.support.docs_code import ROOT, execute, only_tasks_of_pages


@pytest.mark.django_db
@pytest.mark.parametrize("page", ["README.md", "docs/testing.md"])
def test_the_tests_of_a_page_pass(page: str) -> None:
    with only_tasks_of_pages():
        namespace = execute(ROOT / page)
        functions = [value for name, value in namespace.items() if name.startswith("test_")]
        tests = [function for function in functions if {*inspect.signature(function).parameters} <= {"db"}]
        assert tests
        for test in tests:
            test(*inspect.signature(test).parameters)
