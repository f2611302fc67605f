"""The nodes: listing, creating, changing and removing them. Registers no agent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import func, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, selectinload

from ..domain.targets import is_host, is_node_name, is_word
from ..errors import Conflict, FieldProblem, InvalidInput, NotFound
from ..models import Mode, Node, Reservation, db, utc_now, write
from .audit import Actor, record
from .node_view import NodeView, read_views
from .policy_version import bump_policy
from .targets import move_targets

MAX_TAGS = 16


@dataclass(frozen=True)
class NodeFields:
    """What an operator sets. None: not given, so it stays as it is, or gets the default."""

    address: str | None = None
    bmc_address: str | None = None
    cluster: str | None = None
    tags: Sequence[str] | None = None
    mode: Mode | None = None
    is_monitored: bool | None = None

    def problems(self) -> list[FieldProblem]:
        """Return what is wrong with the values; an empty text clears a field."""
        found = [
            FieldProblem(field, "not a host name or an IP address")
            for field in ("address", "bmc_address")
            if (value := getattr(self, field)) and not is_host(value)
        ]
        if self.cluster and not is_word(self.cluster):
            found.append(FieldProblem("cluster", _WORD_RULE))
        tags = self.tags or ()
        found += [
            FieldProblem(f"tags.{number}", _WORD_RULE)
            for number, tag in enumerate(tags)
            if not is_word(tag)
        ]
        if len(tags) > MAX_TAGS:
            found.append(FieldProblem("tags", f"at most {MAX_TAGS}"))
        if len(set(tags)) < len(tags):
            found.append(FieldProblem("tags", "one is listed twice"))
        return found


_WORD_RULE = "letters, digits, '.', '_' and '-', at most 63"


def list_nodes(offline_after_s: float) -> list[NodeView]:
    """Return all nodes by name. `offline_after_s`: how old a heartbeat may be, in seconds.

    Who: anybody signed in.
    """
    nodes = db.session.scalars(
        select(Node)
        .where(Node.removed_at.is_(None))
        .options(selectinload(Node.devices), selectinload(Node.targets))
        .order_by(Node.name)
    ).all()
    return read_views(db.session(), nodes, utc_now(), offline_after_s)


def get_node(name: str, offline_after_s: float) -> NodeView:
    """Return one node. Who: anybody signed in. Raises NotFound."""
    return read_views(db.session(), [_find(db.session(), name)], utc_now(), offline_after_s)[0]


def create_node(
    actor: Actor, name: str, fields: NodeFields, offline_after_s: float
) -> NodeView:
    """Add a node; its agent still has to register. Who: operators.

    Raises InvalidInput with every problem, or Conflict when the name is taken.
    """
    problems = fields.problems()
    if not is_node_name(name):
        rule = "lower-case letters, digits, '.', '_' and '-', at most 63"
        problems.insert(0, FieldProblem("name", rule))
    if problems:
        raise InvalidInput("The node cannot be added.", fields=problems)
    node = Node(name=name, mode=Mode.OBSERVE)
    _apply(node, fields)
    try:
        with write() as session:
            # An agent takes no policy that is older than the one it holds, and it may hold
            # one of a removed node of this name.
            last = session.scalar(
                select(func.max(Node.policy_version)).where(
                    Node.name.startswith(_removed_prefix(name), autoescape=True)
                )
            )
            node.policy_version = (last or 0) + 1
            session.add(node)
            session.flush()
            record(session, actor, "node.create", "node", name, after=_public(node))
    except IntegrityError as error:
        raise Conflict(f"There is already a node {name}.") from error
    return get_node(name, offline_after_s)


def change_node(
    actor: Actor, name: str, fields: NodeFields, offline_after_s: float
) -> NodeView:
    """Change what is given in `fields`. Who: operators.

    A new address moves the scrape targets, a new mode is a new policy.
    Raises NotFound, and InvalidInput with every problem.
    """
    problems = fields.problems()
    with write() as session:
        node = _find(session, name, lock=True)
        if fields.address == "" and node.registered_at is not None:
            problems.append(FieldProblem("address", "a registered node needs one"))
        if problems:
            raise InvalidInput("The node cannot be changed so.", fields=problems)
        before = _public(node)
        _apply(node, fields)
        after = _public(node)
        if before != after:
            move_targets(node)
            session.flush()
            if before["mode"] != after["mode"]:
                bump_policy(session, [node.id])
            record(session, actor, "node.change", "node", name, before=before, after=after)
    return get_node(name, offline_after_s)


def remove_node(actor: Actor, name: str) -> None:
    """Take a node out; its history stays and its name becomes free. Who: operators.

    Raises NotFound, and Conflict while it has reservations that run or come: whoever
    removes it releases those first, so that nobody's booking vanishes unseen.
    """
    with write() as session:
        node = _find(session, name)
        # The same lock as a booking takes: none can slip in between check and removal.
        session.execute(
            update(Node).where(Node.id == node.id).values(booking_seq=Node.booking_seq + 1)
        )
        session.refresh(node)
        if node.removed_at is not None:
            raise NotFound(f"There is no node {name}.")
        open_count = session.scalar(
            select(func.count())
            .select_from(Reservation)
            .where(
                Reservation.node_id == node.id,
                Reservation.ends > utc_now(),
                Reservation.is_cancelled.is_(False),
            )
        )
        if open_count:
            raise Conflict(
                f"{name} has {open_count} reservations that run or come: release them first.",
                extra={"reservations": open_count},
            )
        before = _public(node)
        node.removed_at = utc_now()
        node.name = f"{_removed_prefix(name)}{node.id}"
        node.token_hash = node.next_token_hash = None
        node.targets.clear()
        session.flush()
        # Its waiting agent is woken, and refused.
        bump_policy(session, [node.id])
        record(session, actor, "node.remove", "node", name, before=before)


def revoke_agent(actor: Actor, name: str) -> None:
    """End the agent's token at once; repeating it changes nothing. Who: operators.

    What the agent has cached stays in force on the node until it expires.
    Raises NotFound.
    """
    with write() as session:
        node = _find(session, name, lock=True)
        if node.token_hash is None:
            return
        node.token_hash = node.next_token_hash = None
        session.flush()
        # A waiting agent is woken, and refused.
        bump_policy(session, [node.id])
        record(session, actor, "node.revoke_token", "node", name)


def _find(session: Session, name: str, *, lock: bool = False) -> Node:
    query = select(Node).where(Node.name == name, Node.removed_at.is_(None))
    node = session.scalar(query.with_for_update() if lock else query)
    if node is None:
        raise NotFound(f"There is no node {name}.")
    return node


def _removed_prefix(name: str) -> str:
    # "~" cannot be part of a name that somebody chooses; the id behind it must fit too.
    return f"{name[:50]}~"


def _apply(node: Node, fields: NodeFields) -> None:
    for field in ("address", "bmc_address", "cluster", "mode", "is_monitored"):
        value = getattr(fields, field)
        if value is not None:
            setattr(node, field, value)
    if fields.tags is not None:
        node.tags = list(fields.tags)


def _public(node: Node) -> dict[str, object]:
    return {
        "address": node.address,
        "bmc_address": node.bmc_address,
        "cluster": node.cluster,
        "tags": list(node.tags or ()),
        "mode": str(node.mode),
        "is_monitored": node.is_monitored,
    }
