"""The pages of all runs and of one run, within the visitor's permissions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from django.contrib.auth.mixins import LoginRequiredMixin
from django.db.models.fields.json import KT
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.views.generic import DetailView, ListView
from django.views.generic.edit import FormMixin

from django_agentexec.models import Activity, ActivityQuerySet, Approval
from django_agentexec.policy import Permission, get_policy

from ..catalogue import CONTRACTS, REPORTS, label
from ..forms import KINDS, StartForm
from ..library import Document
from ..model import model_choice
from ..shelf import Shelf
from ..start import start

if TYPE_CHECKING:  # Django's views are generic for the type checker only
    ActivityList = ListView[Activity]
    ActivityDetail = DetailView[Activity]
    WithForm = FormMixin[StartForm]
else:
    ActivityList, ActivityDetail, WithForm = ListView, DetailView, FormMixin

PAGE_SIZE = 50


def visible(request: HttpRequest) -> ActivityQuerySet:
    """Return the activities that the visitor may see, with the common columns of the example's tasks."""
    activities = get_policy().visible(request.user, Activity.objects.all())
    shown: ActivityQuerySet = activities.annotate(
        title=KT("metadata__title"), document=KT("context__document"), headline=KT("result__headline")
    )
    return shown


class Runs(LoginRequiredMixin, WithForm, ActivityList):
    """Page with the form that starts a run, and the runs, active runs first."""

    template_name = "documents/runs.html"
    context_object_name = "runs"
    paginate_by = PAGE_SIZE
    form_class = StartForm

    def get_queryset(self) -> ActivityQuerySet:
        """Return the runs without their large columns."""
        return visible(self.request).without_payloads().active_first()

    def get_form_kwargs(self) -> dict[str, Any]:
        """Add the visitor's documents to the form."""
        return {**super().get_form_kwargs(), "shelf": Shelf(self.request.user.get_username())}

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        """Add the documents, and the model of the agents."""
        shelf = Shelf(self.request.user.get_username())
        return super().get_context_data(
            model=model_choice(),
            kinds=KINDS,
            shelves=[
                ("Contracts", "contract", _labelled(map(shelf.get, CONTRACTS))),
                ("Company reports", "report", _labelled(map(shelf.get, REPORTS))),
                ("Yours", "", _labelled(shelf.uploaded())),
            ],
            **kwargs,
        )

    def post(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        """Start a run, and redirect to its page."""
        if not get_policy().may(request.user, Permission.ENQUEUE):
            return HttpResponse("You may not start runs.", status=403)
        form = self.get_form()
        if not form.is_valid():
            self.object_list = self.get_queryset()
            return self.render_to_response(self.get_context_data(form=form), status=400)
        handle = start(request.user.get_username(), form.cleaned_data["found"], form.cleaned_data["kind"])
        return redirect("documents:run", handle.agent_id)


class Run(LoginRequiredMixin, ActivityDetail):
    """Page of one run: progress, log and result."""

    template_name = "documents/run.html"
    context_object_name = "run"
    pk_url_kwarg = "agent_id"

    def get_queryset(self) -> ActivityQuerySet:
        """Return the visible runs: the run of another visitor is a 404."""
        return visible(self.request)

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        """Add the log, and the visitor's permissions."""
        run, policy = self.object, get_policy()
        logs = list(run.logs.all())
        return super().get_context_data(
            model=model_choice(),
            logs=logs,
            last_log_id=logs[-1].pk if logs else 0,
            may_cancel=policy.may(self.request.user, Permission.CANCEL, run),
            may_retry=policy.may(self.request.user, Permission.RETRY, run),
            may_decide=policy.may(self.request.user, Permission.DECIDE, run),
            approvals=list(Approval.objects.filter(activity=run).pending()),
            **kwargs,
        )


def _labelled(documents: Iterable[Document]) -> list[tuple[str, Document]]:
    return [(label(document), document) for document in documents]


class Result(Run):
    """The result only: the page fetches it when the run is complete."""

    template_name = "documents/result.html"
