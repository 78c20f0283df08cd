"""The routes of the REST API: `path("agents/", include("django_agentexec.api.urls"))`."""

from __future__ import annotations

from django.urls import path

from .actions import CancelView, ForkView, RetryView
from .activities import ActiveCountView, ActivityDetailView, ActivityListView, ActivityResultView
from .approvals import AnswerView, ApprovalDetailView, ApprovalListView, ApproveView, RejectView
from .budgets import BudgetListView
from .calls import CallDetailView, CallListView
from .conversations import ConversationItemsView, ConversationListView
from .document import DocumentView
from .events import ActivityEventsView
from .metrics import MetricsView
from .monitoring import HealthView, QueuesView, WorkersView
from .pauses import PauseListView, ResumeView
from .tasks import EnqueueView, TaskListView
from .usage import ActivityUsageView, ExpensiveRunsView, UsageView

app_name = "agentexec"

# Ids are captured as text, so that the response to an invalid id is JSON. The name of a task may contain slashes.
urlpatterns = [
    path("activities/", ActivityListView.as_view(), name="activity-list"),
    path("activities/active/count/", ActiveCountView.as_view(), name="activity-active-count"),
    path("activities/<str:agent_id>/", ActivityDetailView.as_view(), name="activity-detail"),
    path("activities/<str:agent_id>/result/", ActivityResultView.as_view(), name="activity-result"),
    path("activities/<str:agent_id>/cancel/", CancelView.as_view(), name="activity-cancel"),
    path("activities/<str:agent_id>/retry/", RetryView.as_view(), name="activity-retry"),
    path("activities/<str:agent_id>/fork/", ForkView.as_view(), name="activity-fork"),
    path("activities/<str:agent_id>/events/", ActivityEventsView.as_view(), name="activity-events"),
    path("activities/<str:agent_id>/usage/", ActivityUsageView.as_view(), name="activity-usage"),
    path("conversations/", ConversationListView.as_view(), name="conversation-list"),
    path("conversations/<str:conversation_id>/items/", ConversationItemsView.as_view(), name="conversation-items"),
    path("approvals/", ApprovalListView.as_view(), name="approval-list"),
    path("approvals/<str:approval_id>/", ApprovalDetailView.as_view(), name="approval-detail"),
    path("approvals/<str:approval_id>/approve/", ApproveView.as_view(), name="approval-approve"),
    path("approvals/<str:approval_id>/reject/", RejectView.as_view(), name="approval-reject"),
    path("approvals/<str:approval_id>/answer/", AnswerView.as_view(), name="approval-answer"),
    path("budgets/", BudgetListView.as_view(), name="budget-list"),
    path("usage/", UsageView.as_view(), name="usage"),
    path("usage/runs/", ExpensiveRunsView.as_view(), name="usage-runs"),
    path("activities/<str:agent_id>/calls/", CallListView.as_view(), name="activity-calls"),
    path("activities/<str:agent_id>/calls/<str:call_id>/", CallDetailView.as_view(), name="activity-call"),
    path("tasks/", TaskListView.as_view(), name="task-list"),
    path("tasks/<path:name>/", EnqueueView.as_view(), name="task-enqueue"),
    path("pauses/", PauseListView.as_view(), name="pause-list"),
    path("pauses/resume/", ResumeView.as_view(), name="pause-resume"),
    path("workers/", WorkersView.as_view(), name="worker-list"),
    path("queues/", QueuesView.as_view(), name="queue-list"),
    path("health/", HealthView.as_view(), name="health"),
    path("metrics", MetricsView.as_view(), name="metrics"),
    path("schema/", DocumentView.as_view(), name="schema"),
]
