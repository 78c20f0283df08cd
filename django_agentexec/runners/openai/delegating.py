"""`DelegatingModel`: the base of models that stand before another model."""

from __future__ import annotations

from typing import Any

from agents import Model
from agents.retry import ModelRetryAdvice, ModelRetryAdviceRequest


class DelegatingModel(Model):
    """A model that stands before `inner`; subclasses define its calls. All other attributes are those of `inner`."""

    def __init__(self, inner: Model) -> None:
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["inner"], name)

    async def _cleanup_on_run_end(self, owner: object) -> None:
        await self.inner._cleanup_on_run_end(owner)

    async def close(self) -> None:
        """Close the inner model."""
        await self.inner.close()

    def get_retry_advice(self, request: ModelRetryAdviceRequest) -> ModelRetryAdvice | None:
        """Return the advice of the inner model."""
        return self.inner.get_retry_advice(request)
