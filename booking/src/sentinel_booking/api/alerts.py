"""`/api/alerts`: what Alertmanager posts, and the history of it."""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Any, Literal

from apiflask import APIBlueprint
from flask import Response
from pydantic import AfterValidator, AwareDatetime, ConfigDict, Field, model_validator

from ..auth import require_bearer, require_role
from ..domain.alerts import PostedAlert, resolved_at
from ..models import Role, utc_now
from ..services import alerts
from ..services.alerts import AlertState
from .schemas import AwareTime, Body, Out, OutTime, Page

bp = APIBlueprint("alerts", __name__, url_prefix="/api/alerts")

Label = Annotated[str, Field(max_length=2000)]
Labels = Annotated[
    dict[Annotated[str, Field(min_length=1, max_length=200)], Label], Field(max_length=100)
]


def _in_utc(value: dt.datetime) -> dt.datetime:
    # Year 1 in an offset east of Greenwich lies before the first time that Python knows.
    return (
        dt.datetime.min.replace(tzinfo=dt.UTC)
        if value.year < 2000
        else value.astimezone(dt.UTC)
    )


class _Tolerant(Body):
    """Newer Alertmanagers add fields: unknown ones are passed over, here and only here."""

    model_config = ConfigDict(extra="ignore", strict=True)


class PostedAlertIn(_Tolerant):
    """One alert; `endsAt` says something only when it is resolved."""

    status: Literal["firing", "resolved"]
    labels: Labels
    annotations: Labels = Field(default_factory=dict)
    starts_at: AwareTime = Field(alias="startsAt")
    ends_at: Annotated[AwareDatetime, AfterValidator(_in_utc)] | None = Field(
        default=None, alias="endsAt"
    )
    fingerprint: str = Field(pattern="^[0-9a-f]{1,64}$")

    @model_validator(mode="after")
    def _check_columns(self) -> PostedAlertIn:
        # What becomes a column, and how long the column is.
        for name, most in (("alertname", 200), ("severity", 32), ("node", 63)):
            if len(self.labels.get(name, "")) > most:
                raise ValueError(f"the label {name} is longer than {most}")
        if not self.labels.get("alertname"):
            raise ValueError("the label alertname is missing")
        return self


class WebhookIn(_Tolerant):
    """Alertmanager's webhook, version 4 (its documentation, "webhook_config")."""

    version: Literal["4"]
    alerts: list[PostedAlertIn] = Field(max_length=2000)


class AlertQuery(Page):
    """`state`: firing or resolved."""

    node: str | None = Field(default=None, max_length=63)
    state: AlertState | None = None


class AlertOut(Out):
    """One firing; `holders` had reservations on the node when it arrived."""

    id: int
    fingerprint: str
    name: str
    severity: str
    node: str
    state: AlertState
    labels: dict[str, Any]  # Any: the values are texts, as Prometheus makes them
    annotations: dict[str, Any]
    holders: list[str]
    starts_at: OutTime
    ends_at: OutTime | None
    received_at: OutTime


class AlertsOut(Out):
    """The newest first."""

    items: list[AlertOut]
    next_cursor: str | None


@bp.post("/webhook")
@require_bearer("webhook")
@bp.input(WebhookIn)
@bp.output({}, status_code=204)
def webhook(json_data: WebhookIn) -> Response:
    """Keep what Alertmanager posts. Alertmanager, by the webhook token.

    Posting the same again changes nothing. A body may have 1 MiB: set `max_alerts` where
    a group can grow beyond some hundred alerts.
    """
    alerts.keep_alerts([_posted(item) for item in json_data.alerts])
    return Response(status=204)


@bp.get("")
@require_role(Role.READONLY)
@bp.input(AlertQuery, location="query")
@bp.output(AlertsOut)
def list_alerts(query_data: AlertQuery) -> dict[str, object]:
    """List alerts, the newest first. Readonly and above."""
    return vars(
        alerts.list_alerts(
            node=query_data.node,
            state=query_data.state,
            cursor=query_data.cursor,
            limit=query_data.limit,
        )
    )


def _posted(item: PostedAlertIn) -> PostedAlert:
    ends_at = None
    if item.status == "resolved":
        now = utc_now()
        ends_at = resolved_at(item.starts_at, item.ends_at or now, now)
    return PostedAlert(
        fingerprint=item.fingerprint,
        labels=item.labels,
        annotations=item.annotations,
        starts_at=item.starts_at,
        ends_at=ends_at,
    )
