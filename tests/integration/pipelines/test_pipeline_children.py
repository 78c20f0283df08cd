"""Children of steps: `spawn`, `gather` and `map` in sync steps, their async twins, and the deprecated awaitable use."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID

import pytest
from pydantic import BaseModel

from django_agentexec import Pipeline, get_result, step, task
from django_agentexec.testing import drain, memory_queue

pytestmark = pytest.mark.django_db(transaction=True)


class Text(BaseModel):
    text: str


class Texts(BaseModel):
    texts: list[str]


@pytest.fixture(autouse=True)
def upper() -> Iterator[None]:
    @task("upper", max_retries=0)
    def upper(agent_id: UUID, context: Text) -> Text:
        return Text(text=context.text.upper())

    with memory_queue():
        yield


def contexts(texts: Texts) -> list[Text]:
    return [Text(text=text) for text in texts.texts]


def result_of(pipeline: type[Pipeline]) -> list[str]:
    """Run the pipeline inline and by the queue; both must have the same result."""
    inline = pipeline.run(Texts(texts=["a", "b"]))
    run = pipeline.enqueue(Texts(texts=["a", "b"]))
    drain()
    assert get_result(run) == inline
    texts: list[str] = inline.texts
    return texts


def test_sync_steps_spawn_and_gather() -> None:
    class Sync(Pipeline, max_retries=0):
        @step(0)
        def one_by_one(self, context: Texts) -> Texts:
            children = [self.spawn("upper", one) for one in contexts(context)]
            return Texts(texts=[one.text for one in self.gather(*children)])

        @step(1)
        def together(self, found: Texts) -> Texts:
            self.spawn_many("upper", contexts(found))
            return Texts(texts=[one.text for one in self.gather()])

        @step(2)
        def mapped(self, found: Texts) -> Texts:
            return Texts(texts=[one.text for one in self.map("upper", contexts(found))])

    assert result_of(Sync) == ["A", "B"]


def test_async_steps_spawn_and_gather() -> None:
    class Async(Pipeline, max_retries=0):
        @step(0)
        async def one_by_one(self, context: Texts) -> Texts:
            found = await self.agather(*(self.aspawn("upper", one) for one in contexts(context)))
            return Texts(texts=[one.text for one in found])

        @step(1)
        async def together(self, found: Texts) -> Texts:
            await self.aspawn_many("upper", contexts(found))
            return Texts(texts=[one.text for one in await self.agather()])

        @step(2)
        async def mapped(self, found: Texts) -> Texts:
            return Texts(texts=[one.text for one in await self.amap("upper", contexts(found))])

    assert result_of(Async) == ["A", "B"]


def test_awaiting_the_sync_names_is_deprecated_and_works() -> None:
    class Deprecated(Pipeline, max_retries=0):
        @step(0)
        async def one_by_one(self, context: Texts) -> Texts:
            found = await self.gather(*(self.spawn("upper", one) for one in contexts(context)))  # type: ignore[misc]
            return Texts(texts=[one.text for one in found])

        @step(1)
        async def together(self, found: Texts) -> Texts:
            await self.spawn_many("upper", contexts(found))  # type: ignore[misc]
            return Texts(texts=[one.text for one in await self.gather()])  # type: ignore[misc]

        @step(2)
        async def mapped(self, found: Texts) -> Texts:
            return Texts(texts=[one.text for one in await self.map("upper", contexts(found))])  # type: ignore[misc]

    with pytest.warns(DeprecationWarning, match=r"use `await self\.a") as warned:
        assert result_of(Deprecated) == ["A", "B"]

    named = {str(warning.message).rsplit("`await self.", 1)[-1].partition("(")[0] for warning in warned}
    assert named == {"aspawn", "aspawn_many", "agather", "amap"}
    assert {warning.filename for warning in warned} == {__file__}


@pytest.mark.parametrize("name", ["map", "amap", "aspawn"])
def test_a_step_may_have_the_name_of_a_later_method(name: str) -> None:
    def only(self: Pipeline, context: Texts) -> Texts:
        return context

    only.__name__ = name
    pipeline = type("Named", (Pipeline,), {name: step(0)(only)})

    assert result_of(pipeline) == ["a", "b"]
