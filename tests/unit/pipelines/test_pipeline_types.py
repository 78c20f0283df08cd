"""What a pipeline's class is refused for, and which types fit into which."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import Annotated, Any, Literal, Optional, TypeVar, Union

import pytest
from pydantic import BaseModel

from django_agentexec import Pipeline, TaskDefinitionError, step
from django_agentexec.serialization.flow import covers, fits, tuple_parts, type_name
from django_agentexec.tasks import registry

Result = TypeVar("Result")


class Input(BaseModel):
    company: str


class Brand(BaseModel):
    name: str


class SpecialBrand(Brand):
    note: str = ""


class Report(BaseModel):
    text: str


@pytest.fixture(autouse=True)
def forget_the_tasks() -> Iterator[None]:
    before = {definition.name for definition in registry}
    yield
    for name in {definition.name for definition in registry} - before:
        registry.unregister(name)


def method(name: str, result: Any, **parameters: Any) -> Callable[..., Any]:
    """Return a method with these annotations."""
    names = ", ".join(["self", *parameters])
    scope: dict[str, Any] = {}
    exec(f"def {name}({names}): ...", scope)
    made: Callable[..., Any] = scope[name]
    made.__annotations__ = {**parameters, "return": result}
    return made


def marked(*methods: Callable[..., Any]) -> dict[str, Any]:
    return {one.__name__: step(number)(one) for number, one in enumerate(methods)}


def pipeline(*methods: Callable[..., Any], **keywords: Any) -> type[Pipeline]:
    return type("TestedPipeline", (Pipeline,), marked(*methods), **keywords)


FIRST = method("first", Brand, context=Input)
LAST = method("last", Report, brand=Brand)


def test_declared_types_are_those_of_the_steps() -> None:
    typed = type("Typed", (Pipeline,), {"__orig_bases__": (Pipeline[Input, Report],), **marked(FIRST, LAST)})

    assert typed.task.context_type is Input


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        (Pipeline[Brand, Report], "is declared with Brand, but its first step 'first' takes Input"),
        (Pipeline[Input, Brand], "is declared with Brand, but its last step 'last' returns Report"),
    ],
)
def test_other_declared_types_are_refused(declared: Any, message: str) -> None:
    with pytest.raises(TaskDefinitionError, match=message):
        type("Typed", (Pipeline,), {"__orig_bases__": (declared,), **marked(FIRST, LAST)})


def test_a_generic_base_may_leave_the_types_open() -> None:
    class Base(Pipeline[Input, Result], abstract=True):
        pass

    class Typed(Base[Report]):
        first = step(0)(FIRST)
        last = step(1)(LAST)

    assert Typed.steps[-1].result is Report


def test_a_pipeline_registers_itself_by_its_name() -> None:
    class HTTPFetchPipeline(Pipeline):
        @step(0)
        def fetch(self, context: Input) -> Report: ...

    assert HTTPFetchPipeline.task.name == "http_fetch_pipeline"
    assert registry.get("http_fetch_pipeline").context_type is Input


def test_name_and_options_are_keywords_of_the_class() -> None:
    made = pipeline(FIRST, LAST, name="research", max_retries=7, timeout=5, lock_key="company:{company}", api=True)

    assert (made.task.name, made.task.max_retries, made.task.timeout, made.task.api) == ("research", 7, 5, True)
    assert made.task.lock_key(Input(company="a")) == "company:a"


def test_a_base_class_is_no_task() -> None:
    base = pipeline(FIRST, abstract=True)

    class Derived(base):  # type: ignore[misc, valid-type]
        @step(9)
        def report(self, brand: Brand) -> Report: ...

    assert [one.name for one in Derived.steps] == ["first", "report"]
    assert "tested_pipeline" not in {definition.name for definition in registry}


REFUSED: list[tuple[list[Callable[..., Any]], str]] = [
    ([], "has no step. Mark its methods"),
    ([method("first", Report)], "its first step 'first' takes nothing"),
    ([method("first", Report, context=str)], "its first step 'first' takes str"),
    ([method("first", Report, a=Input, b=Input)], "its first step 'first' takes Input, Input"),
    ([method("first", tuple[Brand, Report], context=Input)], r"its last step 'first' returns tuple\[Brand, Report\]"),
    ([method("first", str, context=Input)], "its last step 'first' returns str"),
    (
        [method("first", str, context=Input), LAST],
        r"step 'first' returns str, but the next step, 'last', takes \(Brand\)",
    ),
    (
        [method("first", tuple[Brand, Report], context=Input), LAST],
        r"step 'first' returns tuple\[Brand, Report\], but the next step, 'last', takes \(Brand\)",
    ),
    (
        [method("first", tuple[Report, Brand], context=Input), method("last", Report, brand=Brand, report=Report)],
        r"returns tuple\[Report, Brand\], but the next step, 'last', takes \(Brand, Report\)",
    ),
    ([method("first", None, context=Input), LAST], r"step 'first' returns None, but the next step"),
    ([method("run", Report, context=Input)], "a step cannot be called 'run'"),
    ([method("first", Callable, context=Input), LAST], "returns .*Callable, which cannot be stored|but the next step"),
]


@pytest.mark.parametrize(("methods", "message"), REFUSED, ids=range(len(REFUSED)))
def test_a_wrong_flow_is_refused_when_the_class_is_made(methods: list[Callable[..., Any]], message: str) -> None:
    with pytest.raises(TaskDefinitionError, match=message):
        pipeline(*methods)


def test_each_step_needs_a_different_order() -> None:
    with pytest.raises(TaskDefinitionError, match="steps 'first' and 'last' have the same order 0"):
        type("Tested", (Pipeline,), {"first": step(0)(FIRST), "last": step(0)(LAST)})


def test_parameters_and_results_must_be_annotated() -> None:
    def bare(self, context):  # type: ignore[no-untyped-def]  # the mistake
        ...

    with pytest.raises(TaskDefinitionError, match=r"Step 'bare' .*: 'context' and its result must be annotated"):
        pipeline(bare)


def test_a_generator_is_no_step() -> None:
    def parts(self: Pipeline, context: Input) -> Iterator[Report]:
        yield Report(text="")

    with pytest.raises(TaskDefinitionError, match="must return its result; generators are not supported"):
        pipeline(parts)


@pytest.mark.parametrize(
    "options",
    [
        {"max_retries": -1},
        {"max_retries": True},
        {"max_retries": 10**10},
        {"timeout": 1e300},
        {"timeout": 0},
        {"timeout": "1"},
        {"timeout": timedelta()},
        {"backoff": 5},
    ],
    ids=str,
)
def test_impossible_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(TaskDefinitionError, match=rf"@step\(0, 'x'\): {next(iter(options))}="):
        step(0, "x", **options)


def test_a_step_without_an_order_is_refused() -> None:
    with pytest.raises(TaskDefinitionError, match=r"@step\(0, 'research'\), not @step"):
        step(LAST)  # type: ignore[arg-type]  # the mistake


FITTING = [
    (Brand, Brand),
    (SpecialBrand, Brand),
    (Brand, Any),
    (Any, Brand),
    (Brand, Brand | None),
    (SpecialBrand, Union[Brand, Report]),  # noqa: UP007  # the other form of it
    (Brand | None, Optional[Brand]),  # noqa: UP045
    (list[SpecialBrand], list[Brand]),
    (list[Brand], Sequence[Brand]),
    (list[Brand], list),
    (Literal["a"], Literal["a", "b"]),
    (Literal["a"], str),
    (Annotated[Brand, "x"], Brand),
    (dict[str, SpecialBrand], dict[str, Brand]),
    (bool, int),
]
NOT_FITTING = [
    (Brand, SpecialBrand),
    (Brand | None, Brand),
    (Brand | Report, Brand | None),
    (list[Brand], list[SpecialBrand]),
    (list[Brand], tuple[Brand, ...]),
    (Literal["a", "b"], Literal["a"]),
    (str, Brand),
    (dict[str, Brand], dict[int, Brand]),
]


@pytest.mark.parametrize(("produced", "wanted"), FITTING, ids=str)
def test_types_that_fit(produced: Any, wanted: Any) -> None:
    assert fits(produced, wanted)


@pytest.mark.parametrize(("produced", "wanted"), NOT_FITTING, ids=str)
def test_types_that_do_not_fit(produced: Any, wanted: Any) -> None:
    assert not fits(produced, wanted)


def test_only_tuples_of_a_fixed_length_are_unpacked() -> None:
    assert tuple_parts(tuple[Brand, int]) == (Brand, int)
    assert tuple_parts(tuple[Brand, ...]) is None
    assert tuple_parts(Brand) is None


def test_types_read_as_in_the_code() -> None:
    assert [type_name(one) for one in (Brand, tuple[Brand, Report], list[Brand] | None, type(None))] == [
        "Brand",
        "tuple[Brand, Report]",
        "list[Brand] | None",
        "None",
    ]


@pytest.mark.parametrize(
    ("new", "stored", "held"),
    [
        ({"a": 1, "b": 2}, {"a": 1}, True),
        ({"b": 2}, {"a": 1}, False),
        ({"a": {"x": 1}}, {"a": {"x": 1, "y": 2}}, False),
        ([1, 2], [1, 2], True),
        ([1], [1, 2], False),
        (1.0, 1, True),
        ("1", 1, False),
    ],
)
def test_what_holds_what(new: Any, stored: Any, held: bool) -> None:
    assert covers(new, stored) is held


def test_the_time_limit_of_a_step_may_be_a_timedelta() -> None:
    class Limited(Pipeline, abstract=True):
        @step(0, timeout=timedelta(minutes=2))
        def only(self, context: Input) -> Report: ...

    assert Limited.steps[0].options.timeout == 120.0


def test_retries_of_a_step_is_a_deprecated_alias() -> None:
    with pytest.warns(DeprecationWarning, match="use max_retries") as warned:

        class Retried(Pipeline, abstract=True):
            @step(0, retries=2)
            def only(self, context: Input) -> Report: ...

    assert Retried.steps[0].options.max_retries == 2
    assert warned[0].filename == __file__
