"""`/nodes`: the machines, and what operators do with them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping

from flask import Blueprint, flash, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from werkzeug.datastructures import ImmutableMultiDict

from ..auth import current_actor, require_role
from ..config import Config, current_config
from ..errors import BookingError, InvalidInput
from ..models import Mode, Role
from ..services.alerts import AlertState, list_alerts
from ..services.invites import create_invite
from ..services.node_view import NodeView
from ..services.nodes import (
    NodeFields,
    change_node,
    create_node,
    get_node,
    list_nodes,
    remove_node,
    revoke_agent,
)
from .forms import by_field, whole_form
from .links import is_loopback, is_plain_http
from .runbooks import runbook_link
from .texts import _, _l
from .timeline import read_timeline

bp = Blueprint("web_nodes", __name__, url_prefix="/nodes")

_FIELDS = ("name", "address", "bmc_address", "cluster", "tags", "mode", "is_monitored")
MAX_INVITE_HOURS = 24 * 7
# More than fire for one node that can still be helped; /alerts has the rest.
MAX_FIRING = 10

# In the order in which they stand on the page; those of cards only where there are cards.
CARD_CHARTS = (
    ("accelerator-utilization", _l("Card utilisation")),
    ("accelerator-memory", _l("Card memory in use")),
    ("accelerator-temperature", _l("Card temperature")),
    ("accelerator-power", _l("Card power")),
)
HOST_CHARTS = (
    ("cpu-utilization", _l("CPU utilisation")),
    ("memory", _l("Memory in use")),
    ("network", _l("Network")),
    ("ssh-sessions", _l("SSH sessions")),
)


@bp.get("")
@require_role(Role.READONLY)
def show_nodes() -> ResponseReturnValue:
    """List the nodes. R."""
    return render_template("nodes.html", nodes=list_nodes(current_config().offline_after_s))


@bp.get("/<name>")
@require_role(Role.READONLY)
def show_node(name: str) -> ResponseReturnValue:
    """Show one node. R."""
    return _node_page(name)


@bp.get("/add")
@require_role(Role.OPERATOR)
def show_add_form() -> ResponseReturnValue:
    """Show the form for a new node. O."""
    return _form(None, {"mode": Mode.OBSERVE.value, "is_monitored": "1"})


@bp.post("/add")
@require_role(Role.OPERATOR)
def add() -> ResponseReturnValue:
    """Add a node. O."""
    name = request.form.get("name", "").strip()
    try:
        create_node(current_actor(), name, _fields(request.form), _config().offline_after_s)
    except BookingError as error:
        return _refused(None, error)
    flash(_("Node %(name)s added. Make an invite code to register its agent.", name=name))
    return redirect(url_for("web_nodes.show_node", name=name), 303)


@bp.get("/<name>/edit")
@require_role(Role.OPERATOR)
def show_edit_form(name: str) -> ResponseReturnValue:
    """Show the form for a node's settings. O."""
    node = get_node(name, _config().offline_after_s)
    return _form(name, _values(node))


@bp.post("/<name>/edit")
@require_role(Role.OPERATOR)
def edit(name: str) -> ResponseReturnValue:
    """Change a node's settings. O."""
    try:
        change_node(current_actor(), name, _fields(request.form), _config().offline_after_s)
    except BookingError as error:
        return _refused(name, error)
    flash(_("Saved."))
    return redirect(url_for("web_nodes.show_node", name=name), 303)


@bp.post("/<name>/mode")
@require_role(Role.OPERATOR)
def switch_mode(name: str) -> ResponseReturnValue:
    """Set the node to enforce or to observe. O."""
    mode = request.form.get("mode", "")
    if mode not in set(Mode):
        raise InvalidInput.field("mode", "must be observe or enforce")
    fields = NodeFields(mode=Mode(mode))
    change_node(current_actor(), name, fields, _config().offline_after_s)
    if mode == Mode.ENFORCE:
        flash(_("Asked for: enforce. This page says when it is in force."))
    else:
        flash(_("Asked for: observe. This page says when it is in force."))
    return redirect(url_for("web_nodes.show_node", name=name), 303)


@bp.post("/<name>/invite")
@require_role(Role.OPERATOR)
def invite(name: str) -> ResponseReturnValue:
    """Make an invite code and show it, once. O."""
    # Shown in the answer itself: after a redirect it would have to wait somewhere.
    made = create_invite(current_actor(), name, dt.timedelta(hours=_config().invite_hours))
    public_url = _config().public_url
    return render_template(
        "invite.html",
        invite=made,
        public_url=public_url,
        is_loopback=is_loopback(public_url),
        is_plain_http=is_plain_http(public_url),
    ), 201


@bp.post("/<name>/revoke")
@require_role(Role.OPERATOR)
def revoke(name: str) -> ResponseReturnValue:
    """End the agent's token. O."""
    revoke_agent(current_actor(), name)
    flash(_("The agent's token is revoked. A new invite code lets it register again."))
    return redirect(url_for("web_nodes.show_node", name=name), 303)


@bp.post("/<name>/remove")
@require_role(Role.OPERATOR)
def remove(name: str) -> ResponseReturnValue:
    """Take a node out. O."""
    try:
        remove_node(current_actor(), name)
    except BookingError as error:
        return _node_page(name, problem=whole_form(error, {})), error.status
    flash(_("Node %(name)s removed.", name=name))
    return redirect(url_for("web_nodes.show_nodes"), 303)


def _config() -> Config:
    return current_config()


def _node_page(name: str, problem: str = "") -> str:
    config = _config()
    node = get_node(name, config.offline_after_s)
    return render_template(
        "node.html",
        node=node,
        problem=problem,
        alerts=list_alerts(node=name, state=AlertState.FIRING, limit=MAX_FIRING).items,
        runbook_link=runbook_link,
        timeline=read_timeline(node),
        charts=(*(CARD_CHARTS if node.devices else ()), *HOST_CHARTS),
        grafana_url=config.grafana_url,
        has_prometheus=bool(config.prometheus_url),
    )


def _form(
    name: str | None,
    values: Mapping[str, str],
    errors: Mapping[str, list[str]] | None = None,
    problem: str = "",
) -> str:
    return render_template(
        "node_form.html", name=name, values=values, errors=errors or {}, problem=problem
    )


def _refused(name: str | None, error: BookingError) -> ResponseReturnValue:
    errors = by_field(error, _FIELDS)
    page = _form(name, request.form.to_dict(), errors, whole_form(error, errors))
    return page, error.status


def _fields(form: ImmutableMultiDict[str, str]) -> NodeFields:
    """Read the form; a mode that is none of the two keeps what is there."""
    mode = form.get("mode", "")
    return NodeFields(
        address=form.get("address", "").strip(),
        bmc_address=form.get("bmc_address", "").strip(),
        cluster=form.get("cluster", "").strip(),
        tags=form.get("tags", "").replace(",", " ").split(),
        mode=Mode(mode) if mode in set(Mode) else None,
        # A box that is not ticked is not sent.
        is_monitored="is_monitored" in form,
    )


def _values(node: NodeView) -> dict[str, str]:
    values = {
        "address": node.address,
        "bmc_address": node.bmc_address,
        "cluster": node.cluster,
        "tags": " ".join(node.tags),
        "mode": node.mode.value,
    }
    if node.is_monitored:
        values["is_monitored"] = "1"
    return values
