"""`/api/agent`: what the agent on a node calls."""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Literal

from apiflask import APIBlueprint
from flask import Response, g, jsonify, request
from pydantic import AfterValidator, AwareDatetime, Field

from ..auth import (
    bearer_token,
    client_ip,
    current_actor,
    guarded_by,
    public,
    set_actor,
)
from ..config import current_config
from ..domain.inventory import ReportedDevice, ReportedTarget
from ..domain.policy import policy_document, policy_etag
from ..metrics import POLICY_WAITING, POLICY_WAITS_REFUSED
from ..models import Mode, utc_now
from ..services import agents, heartbeats, inventory, policy
from ..services.audit import Actor
from ..services.policy_watch import current_policy_watch
from .schemas import Body, Out, OutTime, Query

bp = APIBlueprint("agent", __name__, url_prefix="/api/agent")

MAX_WAIT_S = 60
# How soon an agent asks again that was not let to wait.
BUSY_RETRY_S = 5

Version = Annotated[str, Field(min_length=1, max_length=32)]


def _check_clock(value: dt.datetime) -> dt.datetime:
    # A node without a battery wakes up in 1970, and just then its heartbeat is wanted.
    if not 1970 <= value.year <= 2199:
        raise ValueError("the year must lie between 1970 and 2199")
    return value


NodeTime = Annotated[AwareDatetime, AfterValidator(_check_clock)]
Number = Annotated[int, Field(ge=0, le=2**31 - 1)]


def _check_agent() -> None:
    agent = agents.find_agent(bearer_token(), client_ip())
    g.sentinel_agent = agent
    set_actor(Actor(kind="agent", name=agent.node, ip=client_ip()))


# For a node's agent, by the token that its registration gave.
require_agent = guarded_by(_check_agent, scheme="agent")


def _current_agent() -> agents.Agent:
    agent: agents.Agent = g.sentinel_agent
    return agent


class RegisterIn(Body):
    """`address`: host name or IP address under which Prometheus reaches the node."""

    code: str = Field(min_length=1, max_length=64)
    hostname: str = Field(min_length=1, max_length=253)
    address: str = Field(min_length=1, max_length=253)
    agent_version: Version


class RegisterOut(Out):
    """The token is shown this once."""

    node: str
    token: str


class DeviceIn(Body):
    """One chip, as `sentinel-exporter devices` prints it."""

    vendor: Literal["nvidia", "ascend"]
    uuid: str = Field(min_length=1, max_length=96)
    index: Number
    minor: Number | None
    model: str = Field(max_length=100)
    bus_id: str = Field(max_length=32)
    memory_bytes: int | None = Field(ge=0, lt=2**63)


class TargetIn(Body):
    """A port of this node; the host is the address that it registered with."""

    job: str = Field(min_length=1, max_length=63)
    port: int = Field(ge=1, le=65535)


class InventoryIn(Body):
    """The whole truth: what is not listed is gone."""

    devices: list[DeviceIn] = Field(max_length=256)
    targets: list[TargetIn] = Field(max_length=32)


class SlottedDeviceOut(Out):
    """A device with the slot that it has for good."""

    vendor: str
    uuid: str
    index: int
    minor: int | None
    model: str
    bus_id: str
    memory_bytes: int | None
    slot: int


class InventoryOut(Out):
    """In the order of the report."""

    devices: list[SlottedDeviceOut]


class HeartbeatIn(Body):
    """`sent_at` is by the node's clock; `policy_version` null: none is held yet."""

    agent_version: Version
    sent_at: NodeTime
    boot_id: str = Field(max_length=64)
    mode: Mode
    policy_version: Number | None
    sessions: dict[Annotated[str, Field(min_length=1, max_length=64)], Number] = Field(
        max_length=1000
    )
    problems: list[Annotated[str, Field(max_length=2000)]] = Field(max_length=100)
    # locked: sshd's drop-in and the PAM gate are in place; open: neither is.
    lock: Literal["locked", "open", "partial"] | None = None
    # Former holders whose processes outlived the limit of a handover.
    unclean: list[Annotated[str, Field(min_length=1, max_length=64)]] | None = Field(
        default=None, max_length=1000
    )


class HeartbeatOut(Out):
    """By the server's clock."""

    server_time: OutTime


class TokenOut(Out):
    """Shown this once."""

    token: str


class PolicyQuery(Query):
    """How long to wait for a change, in seconds."""

    wait: int = Field(default=0, ge=0, le=MAX_WAIT_S)


@bp.post("/register")
@public
@bp.input(RegisterIn)
@bp.output(RegisterOut, status_code=201)
@bp.doc(responses={403: "The code is unknown, used or expired"})
def register(json_data: RegisterIn) -> dict[str, object]:
    """Register a node's agent. Whoever has an invite's code; it works once."""
    return vars(
        agents.register_agent(
            code=json_data.code,
            hostname=json_data.hostname,
            address=json_data.address,
            agent_version=json_data.agent_version,
            ip=client_ip(),
        )
    )


@bp.put("/inventory")
@require_agent
@bp.input(InventoryIn)
@bp.output(InventoryOut)
def put_inventory(json_data: InventoryIn) -> dict[str, object]:
    """Report the node's devices and scrape targets. The node's agent."""
    devices = [
        ReportedDevice(
            vendor=device.vendor,
            uuid=device.uuid,
            index=device.index,
            minor=device.minor,
            model=device.model,
            bus_id=device.bus_id,
            memory_bytes=device.memory_bytes,
        )
        for device in json_data.devices
    ]
    targets = [ReportedTarget(target.job, target.port) for target in json_data.targets]
    slotted = inventory.report_inventory(
        current_actor(), _current_agent().node_id, devices, targets
    )
    return {
        "devices": [{**vars(item.device), "slot": item.slot} for item in slotted],
    }


@bp.post("/heartbeat")
@require_agent
@bp.input(HeartbeatIn)
@bp.output(HeartbeatOut)
def heartbeat(json_data: HeartbeatIn) -> dict[str, dt.datetime]:
    """Say that the node lives, and how it fares. The node's agent."""
    server_time = heartbeats.accept_heartbeat(
        current_actor(),
        _current_agent().node_id,
        heartbeats.Heartbeat(
            agent_version=json_data.agent_version,
            sent_at=json_data.sent_at,
            boot_id=json_data.boot_id,
            mode=str(json_data.mode),
            policy_version=json_data.policy_version,
            sessions=json_data.sessions,
            problems=json_data.problems,
            lock=json_data.lock,
            unclean=json_data.unclean,
        ),
    )
    return {"server_time": server_time}


@bp.post("/token")
@require_agent
@bp.output(TokenOut, status_code=201)
def issue_token() -> dict[str, str]:
    """Give a new token; its first use ends the one used here. The node's agent.

    Asked again, the one that was given and never used is replaced.
    """
    agent = _current_agent()
    return {"token": agents.issue_token(current_actor(), agent.node_id, bearer_token())}


@bp.get("/policy")
@require_agent
@bp.input(PolicyQuery, location="query")
@bp.doc(
    responses={
        200: "The policy, as contract/policy.schema.json says, with ETag",
        304: "Nothing has changed; with Retry-After: too many wait already",
    }
)
def get_policy(query_data: PolicyQuery) -> Response:
    """Give the node's policy, or wait until it differs from If-None-Match's. The node's agent.

    The answer comes well under a second after the change. A revoked token ends the wait
    with 401.
    """
    node_id = _current_agent().node_id
    known = request.if_none_match
    version = policy.read_policy_version(node_id)
    is_known = known.contains_weak(policy_etag(node_id, version, utc_now()))
    if is_known and query_data.wait:
        # A waiting request must hold no connection: there are more nodes than connections.
        policy.release_connection()
        with POLICY_WAITING.track_inprogress():
            has_waited = current_policy_watch().wait(node_id, version, query_data.wait)
        if not has_waited:
            POLICY_WAITS_REFUSED.inc()
            return _not_modified(node_id, version, retry_after_s=BUSY_RETRY_S)
        # The token may have been revoked meanwhile: that is also what wakes it.
        _check_agent()
        version = policy.read_policy_version(node_id)
        is_known = known.contains_weak(policy_etag(node_id, version, utc_now()))
    if is_known:
        return _not_modified(node_id, version)
    horizon = dt.timedelta(days=current_config().policy_horizon_days)
    found = policy.read_policy(node_id, horizon)
    response = jsonify(policy_document(found))
    response.set_etag(policy_etag(node_id, found.version, found.generated_at))
    return response


def _not_modified(node_id: int, version: int, retry_after_s: int | None = None) -> Response:
    response = Response(status=304)
    response.set_etag(policy_etag(node_id, version, utc_now()))
    if retry_after_s is not None:
        response.headers["Retry-After"] = str(retry_after_s)
    return response
