"""`/api/nodes`: the nodes, their invites and their charts."""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Literal

from apiflask import APIBlueprint
from pydantic import Field

from ..auth import current_actor, require_role
from ..config import current_config
from ..domain.charts import MAX_MINUTES, MIN_MINUTES
from ..models import Kind, Mode, Role
from ..services import charts, invites, nodes
from ..services.node_view import DeviceState, NodeState
from .schemas import Body, Out, OutTime, Query

bp = APIBlueprint("nodes", __name__, url_prefix="/api/nodes")

Host = Annotated[str, Field(max_length=253)]
Word = Annotated[str, Field(max_length=63)]


class NodeChangeIn(Body):
    """What is absent stays as it is; an empty text clears a field."""

    address: Host = ""
    bmc_address: Host = ""
    cluster: Word = ""
    tags: list[Word] = Field(default=[], max_length=nodes.MAX_TAGS)
    mode: Mode = Mode.OBSERVE
    is_monitored: bool = True


class NodeIn(NodeChangeIn):
    """A new node; its name is its identity in every series, and cannot be changed."""

    name: str = Field(min_length=1, max_length=63)


class RunningOut(Out):
    """A reservation that runs now."""

    id: int
    holder: str
    kind: Kind
    whole_node: bool
    starts: OutTime
    ends: OutTime


class DeviceOut(Out):
    """`reservation` has the device now."""

    slot: int
    uuid: str
    vendor: str
    index: int
    minor: int | None
    model: str
    bus_id: str
    memory_bytes: int | None
    state: DeviceState
    reservation: RunningOut | None


class TargetOut(Out):
    """`address` is "host:port"."""

    job: str
    address: str


class NodeOut(Out):
    """`mode` is what operators set, `agent_mode` and `lock` what the agent says there is.

    `unclean`: former holders whose processes outlived the limit of a handover. `cloned_at`:
    since when it is known that two machines use the node's token.
    """

    name: str
    state: NodeState
    address: str
    bmc_address: str
    cluster: str
    tags: list[str]
    mode: Mode
    is_monitored: bool
    has_agent: bool
    registered_at: OutTime | None
    heartbeat_at: OutTime | None
    agent_version: str
    agent_mode: str | None
    clock_skew_s: float | None
    sessions: dict[str, int]
    problems: list[str]
    policy_version: int
    agent_policy_version: int | None
    lock: Literal["locked", "open", "partial"] | None
    unclean: list[str]
    cloned_at: OutTime | None
    devices: list[DeviceOut]
    targets: list[TargetOut]
    running: list[RunningOut]


class NodesOut(Out):
    """All nodes, by name."""

    items: list[NodeOut]


class InviteIn(Body):
    """How long the code is good; absent: `invite_hours` of the configuration."""

    hours: int | None = Field(default=None, ge=1, le=24 * 30)


class InviteOut(Out):
    """The code is shown this once."""

    node: str
    code: str
    expires_at: OutTime


class ChartQuery(Query):
    """How far back the chart goes."""

    minutes: int = Field(default=60, ge=MIN_MINUTES, le=MAX_MINUTES)


class SeriesOut(Out):
    """A line; null where there is no reading."""

    label: str
    values: list[float | None]


class ChartOut(Out):
    """`times` are Unix seconds; each series has as many values."""

    chart: str
    unit: str
    times: list[int]
    series: list[SeriesOut]


@bp.get("")
@require_role(Role.READONLY)
@bp.output(NodesOut)
def list_nodes() -> dict[str, object]:
    """List all nodes with their devices and what runs on them. Readonly and above."""
    return {"items": nodes.list_nodes(current_config().offline_after_s)}


@bp.post("")
@require_role(Role.OPERATOR)
@bp.input(NodeIn)
@bp.output(NodeOut, status_code=201)
@bp.doc(responses={409: "The name is taken"})
def create_node(json_data: NodeIn) -> dict[str, object]:
    """Add a node; its agent registers with an invite. Operators."""
    return vars(
        nodes.create_node(
            current_actor(),
            json_data.name,
            _fields(json_data),
            current_config().offline_after_s,
        )
    )


@bp.get("/<name>")
@require_role(Role.READONLY)
@bp.output(NodeOut)
@bp.doc(responses={404: "No such node"})
def get_node(name: str) -> dict[str, object]:
    """Show one node. Readonly and above."""
    return vars(nodes.get_node(name, current_config().offline_after_s))


@bp.patch("/<name>")
@require_role(Role.OPERATOR)
@bp.input(NodeChangeIn)
@bp.output(NodeOut)
@bp.doc(responses={404: "No such node"})
def change_node(name: str, json_data: NodeChangeIn) -> dict[str, object]:
    """Change what is given. Operators."""
    return vars(
        nodes.change_node(
            current_actor(), name, _fields(json_data), current_config().offline_after_s
        )
    )


@bp.delete("/<name>")
@require_role(Role.OPERATOR)
@bp.output({}, status_code=204)
@bp.doc(responses={404: "No such node", 409: "It has reservations that run or come"})
def remove_node(name: str) -> str:
    """Take a node out; its history stays. Operators."""
    nodes.remove_node(current_actor(), name)
    return ""


@bp.post("/<name>/invites")
@require_role(Role.OPERATOR)
@bp.input(InviteIn)
@bp.output(InviteOut, status_code=201)
@bp.doc(responses={404: "No such node"})
def create_invite(name: str, json_data: InviteIn) -> dict[str, object]:
    """Make a one-time code with which the node's agent registers. Operators."""
    hours = json_data.hours or current_config().invite_hours
    return vars(invites.create_invite(current_actor(), name, dt.timedelta(hours=hours)))


@bp.delete("/<name>/token")
@require_role(Role.OPERATOR)
@bp.output({}, status_code=204)
@bp.doc(responses={404: "No such node"})
def revoke_agent(name: str) -> str:
    """Revoke the agent's token; repeating it changes nothing. Operators."""
    nodes.revoke_agent(current_actor(), name)
    return ""


@bp.get("/<name>/charts/<chart>")
@require_role(Role.READONLY)
@bp.input(ChartQuery, location="query")
@bp.output(ChartOut)
@bp.doc(responses={404: "No such node or chart", 503: "Prometheus does not answer"})
def read_chart(name: str, chart: str, query_data: ChartQuery) -> dict[str, object]:
    """Show one chart's data from Prometheus. Readonly and above."""
    return vars(
        charts.read_chart(current_config().prometheus_url, name, chart, query_data.minutes)
    )


def _fields(body: NodeChangeIn) -> nodes.NodeFields:
    given = body.given()
    given.pop("name", None)
    return nodes.NodeFields(**given)
