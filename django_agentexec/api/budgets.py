"""The budgets over REST, with what was spent of them."""

from __future__ import annotations

from pydantic import BaseModel
from rest_framework.request import Request
from rest_framework.response import Response

from ..activity.store import database
from ..budgets.queries import BudgetSchema, consumption, declared_budgets
from ..models import Budget
from ..policy import get_policy
from .base import AgentView
from .openapi import operation
from .parameters import NoParameters
from .permissions import MayView

MAX_BUDGETS = 1_000


class BudgetListSchema(BaseModel):
    """Budgets by name."""

    items: list[BudgetSchema]
    has_more: bool
    """Whether there are more budgets than those in the list."""


class BudgetListView(AgentView):
    """The budgets that the policy shows to the user."""

    permission_classes = [MayView]

    @operation("list_budgets", {200: BudgetListSchema}, errors=[400])
    def get(self, request: Request) -> Response:
        """List the visible budgets, each with what was spent and reserved in its current period.

        Those that tasks declare in code follow, with the monitor permission.
        """
        NoParameters.read(request)
        budgets = get_policy().visible_budgets(request.user, Budget.objects.using(database()))
        found = list(budgets.order_by("name", "id")[: MAX_BUDGETS + 1])
        items = consumption(found[:MAX_BUDGETS]) + (declared_budgets() if self.monitors else [])
        return Response(BudgetListSchema(items=items, has_more=len(found) > MAX_BUDGETS).model_dump(mode="json"))
