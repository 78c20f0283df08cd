"""What a handler's annotations say, and every declaration that is refused at registration."""

from __future__ import annotations

import datetime
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from pydantic import BaseModel, Field, RootModel, computed_field

from django_agentexec import Attempt, InvalidContext, Priority, Task, TaskDefinitionError, UnknownTask, task
from django_agentexec.tasks import AnyTask, registry
from django_agentexec.tasks.registry import Registry
from django_agentexec.tasks.signature import read_signature

if TYPE_CHECKING:
    from decimal import Decimal


class Text(BaseModel):
    text: str = ""


class User(BaseModel):
    id: int
    team: str | None = None


class Context(BaseModel):
    user: User
    key: str = ""
    owner: str | None = None
    tags: list[str] = Field(default_factory=list)

    @computed_field  # type: ignore[prop-decorator]  # pydantic's documented form
    @property
    def region(self) -> str:
        return "eu"

    @computed_field  # type: ignore[prop-decorator]  # as above
    @property
    def broken(self) -> str:
        raise RuntimeError("asked for")


Numbers = RootModel[list[int]]


def define(handler: Callable[..., Any], **options: Any) -> AnyTask:
    return Task("t", handler, **options)


def plain(agent_id: UUID, context: Text) -> str:
    return context.text


async def with_attempt(agent_id: UUID, context: Text, attempt: Attempt) -> None: ...


def with_optional_attempt(agent_id: UUID, context: Text, attempt: Attempt | None = None) -> None: ...


def with_keyword_default(agent_id: UUID, context: Text, *, dry: bool = False) -> None: ...


def without_result(agent_id: UUID, context: Text): ...  # type: ignore[no-untyped-def]  # what is tested


def test_a_sync_handler() -> None:
    signature = read_signature("t", plain)

    assert (signature.context_type, signature.is_async, signature.wants_attempt) == (Text, False, False)


def test_an_async_handler_that_wants_its_attempt() -> None:
    signature = read_signature("t", with_attempt)

    assert (signature.is_async, signature.wants_attempt) == (True, True)


def test_an_attempt_may_have_a_default_for_direct_calls() -> None:
    assert read_signature("t", with_optional_attempt).wants_attempt


def test_keywords_with_defaults_are_the_handlers_own() -> None:
    assert not read_signature("t", with_keyword_default).wants_attempt


def test_a_handler_without_a_return_annotation_may_return_any_json() -> None:
    assert define(without_result).store_result({"a": [1]}) == b'{"a":[1]}'


def nothing() -> None: ...
def only_id(agent_id: UUID) -> None: ...
def four(agent_id: UUID, context: Text, attempt: Attempt, more: int) -> None: ...
def other_third(agent_id: UUID, context: Text, retries: int = 3) -> None: ...
def required_keyword(agent_id: UUID, context: Text, *, dry: bool) -> None: ...
def star(*arguments: Any) -> None: ...
def text_id(agent_id: str, context: Text) -> None: ...
def no_annotation(agent_id: UUID, context) -> None: ...  # type: ignore[no-untyped-def]  # what is tested
def dictionary(agent_id: UUID, context: dict[str, Any]) -> None: ...
def optional(agent_id: UUID, context: Text | None) -> None: ...
def base(agent_id: UUID, context: BaseModel) -> None: ...
def root(agent_id: UUID, context: Numbers) -> None: ...
def unresolved(agent_id: UUID, context: Text) -> Decimal: ...
def missing_attribute(agent_id: UUID, context: Text) -> datetime.nothing: ...  # type: ignore[name-defined]  # as above
def unstorable(agent_id: UUID, context: Text) -> Iterator[object] | Registry: ...
def generator(agent_id: UUID, context: Text) -> Iterator[int]:
    yield 1


async def async_generator(agent_id: UUID, context: Text) -> AsyncIterator[int]:
    yield 1


class Callable_:
    def __call__(self, agent_id: UUID, context: Text) -> None: ...


REFUSED = [
    (nothing, "must have the parameters"),
    (only_id, "must have the parameters"),
    (four, "must have the parameters"),
    (other_third, "must have the parameters"),
    (required_keyword, "must have the parameters"),
    (star, "must have the parameters"),
    (text_id, "a UUID"),
    (no_annotation, "has no annotation"),
    (dictionary, "a context is a Pydantic model"),
    (optional, "a context is a Pydantic model"),
    (base, "a context is a Pydantic model"),
    (root, "a context is a Pydantic model"),
    (unresolved, "outside of TYPE_CHECKING"),
    (missing_attribute, "cannot be resolved"),
    (unstorable, "cannot store as JSON"),
    (generator, "yields nothing"),
    (async_generator, "yields nothing"),
    (Callable_(), "must be a function"),
    (Text, "must be a function"),
    (None, "must be a function"),
]


@pytest.mark.parametrize(("handler", "message"), REFUSED, ids=lambda value: getattr(value, "__name__", None))
def test_a_handler_of_another_form_is_refused(handler: Any, message: str) -> None:
    with pytest.raises(TaskDefinitionError, match=message):
        define(handler)


BAD_OPTIONS: list[dict[str, Any]] = [
    {"max_retries": -1},
    {"max_retries": "3"},
    {"max_retries": True},
    {"max_retries": 10**10},
    {"timeout": 1e300},
    {"timeout": 0},
    {"timeout": -1.0},
    {"timeout": "10"},
    {"timeout": float("nan")},
    {"timeout": float("inf")},
    {"timeout": datetime.timedelta(seconds=-5)},
    {"priority": 2},
    {"priority": True},
    {"priority": "HIGH"},
    {"queue": ""},
    {"queue": "a b"},
    {"queue": "{a}"},
    {"backoff": 5},
    {"retry_on": ["ValueError"]},
    {"retry_on": int},
    {"give_up_on": [ValueError()]},
]


@pytest.mark.parametrize("options", BAD_OPTIONS, ids=str)
def test_an_impossible_option_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(TaskDefinitionError, match="Task 't'"):
        define(plain, **options)


@pytest.mark.parametrize("name", ["", "x" * 201, "a\x00", "a\nb", "\ud800"], ids=ascii)
def test_an_impossible_name_is_refused(name: str) -> None:
    with pytest.raises(TaskDefinitionError, match="1 to 200 printable characters"):
        Task(name, plain)


def test_a_decorator_without_its_name_is_refused() -> None:
    with pytest.raises(TaskDefinitionError, match="A task needs a name"):
        task(plain)  # type: ignore[arg-type]  # the mistake


def test_a_single_exception_needs_no_list() -> None:
    definition = define(plain, retry_on=ConnectionError, give_up_on=ConnectionResetError)

    assert definition.retry_delay(ConnectionError(), 1) is not None
    assert definition.retry_delay(ConnectionResetError(), 1) is None
    assert definition.retry_delay(ValueError(), 1) is None


def test_options_have_defaults() -> None:
    definition = define(plain)

    assert (definition.queue, definition.max_retries, definition.timeout) == ("default", 3, None)
    assert definition.priority is Priority.NORMAL


def test_a_task_is_called_as_the_function_it_is() -> None:
    assert define(plain)(UUID(int=1), Text(text="x")) == "x"


# Lock keys


def with_context(agent_id: UUID, context: Context) -> None: ...


@pytest.mark.parametrize(
    ("template", "key"),
    [
        ("user:{user.id}", "user:7"),
        ("{key}", "k"),
        ("{region}/{tags[0]}", "eu/first"),
        ("static", "static"),
        ("{{{key}}}", "{k}"),
        ("{user.id:05d}", "00007"),
    ],
)
def test_a_lock_key_is_made_of_the_context(template: str, key: str) -> None:
    definition = define(with_context, lock_key=template)

    assert definition.lock_key(Context(user=User(id=7), key="k", tags=["first"])) == key


@pytest.mark.parametrize(
    "template",
    [
        "{nope}",
        "{}",
        "{0}",
        "{key",
        "{key:{nope}}",
        "{key.__class__}",
        "{user.__class__.__init__.__globals__}",
        "{user._private}",
        "{__class__}",
        b"{key}",
    ],
)
def test_a_lock_key_that_names_nothing_of_the_context_is_refused(template: Any) -> None:
    with pytest.raises(TaskDefinitionError, match="lock_key"):
        define(with_context, lock_key=template)


@pytest.mark.parametrize(
    "template", ["{owner}", "{user.team}", "{key}", "{tags[0]}", "{broken}", "{user.nope}", "{user.id:q}"]
)
def test_a_lock_key_without_a_value_is_refused(template: str) -> None:
    definition = define(with_context, lock_key=template)

    with pytest.raises(InvalidContext, match="lock key"):
        definition.lock_key(Context(user=User(id=7)))


@pytest.mark.parametrize("key", ["x" * 501, "a\x00b", "\ud800"], ids=["long", "NUL", "surrogate"])
def test_a_lock_key_that_cannot_be_stored_is_refused(key: str) -> None:
    definition = define(with_context, lock_key="{key}")

    with pytest.raises(InvalidContext, match="lock key"):
        definition.lock_key(Context(user=User(id=7), key=key))


# The registry


def test_two_functions_of_one_name_are_refused() -> None:
    names = Registry()
    names.register(define(plain))

    with pytest.raises(TaskDefinitionError, match=r"Two tasks are called 't'.*plain.*with_attempt"):
        names.register(define(with_attempt))


def test_a_module_may_be_imported_again() -> None:
    names = Registry()
    again = define(plain)
    names.register(define(plain))

    names.register(again)

    assert names.get("t") is again


def test_the_agents_modules_of_installed_apps_are_found() -> None:
    assert {"shout", "report"} <= {definition.name for definition in registry}


def test_an_unknown_task_names_the_closest() -> None:
    with pytest.raises(UnknownTask, match=r"no task 'shuot'. Did you mean 'shout'"):
        registry.get("shuot")


def test_a_time_limit_may_be_a_timedelta() -> None:
    assert define(plain, timeout=datetime.timedelta(minutes=2)).timeout == 120.0
