"""The rate of changes of one user: REST and websockets count together."""

from __future__ import annotations

from uuid import UUID, uuid4

import pytest

from django_agentexec import rates
from django_agentexec.live.websocket import auth
from django_agentexec.policy import Permission
from tests.support.activity_rows import row
from tests.support.rest_api import admin, client, staff
from tests.testapp.agents import Text, shout

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("few_changes")]


def test_changes_over_websockets_and_rest_share_one_allowance() -> None:
    run, who = shout.enqueue(Text()).agent_id, admin()
    cancel = f"/agents/activities/{run}/cancel/"

    auth.run_action(who, run, Permission.CANCEL)
    assert client(who).post(cancel).status_code == 409
    auth.run_action(who, run, Permission.RETRY)
    with pytest.raises(auth.Refused, match="Too many changes; try again in 3600 seconds") as refused:
        auth.run_action(who, run, Permission.CANCEL)

    assert (refused.value.code, row(run).status) == ("too_many", "queued")
    assert client(who).post(cancel).status_code == 429
    auth.run_action(staff("other", "view_activity", "cancel_activity"), run, Permission.CANCEL)


def test_guesses_over_websockets_count() -> None:
    who = admin()
    codes = []
    for _ in range(4):
        with pytest.raises(auth.Refused) as refused:
            auth.run_action(who, uuid4(), Permission.CANCEL)
        codes.append(refused.value.code)

    assert codes == ["not_found"] * 3 + ["too_many"]


def test_the_next_change_is_allowed_when_the_first_is_old_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_000_000.0
    monkeypatch.setattr(rates.time, "time", lambda: now)
    for second in range(3):
        now = 1_000_000.0 + second
        assert rates.count_change(UUID(int=1)) is None

    now += 98
    assert rates.count_change(UUID(int=1)) == 3_500
    now += 3_500
    assert rates.count_change(UUID(int=1)) is None
    assert rates.count_change(UUID(int=1)) == 1
