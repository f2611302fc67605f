"""What Prometheus scrapes: the targets of each job. Scrapes nothing itself."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from ..domain.targets import (
    BMC_JOB,
    TargetGroup,
    is_job,
    join_host_port,
    split_port,
    target_group,
)
from ..errors import NotFound, Unavailable
from ..models import Node, Target, db


def list_targets(job: str) -> list[TargetGroup]:
    """Return the job's targets, by node; a job that no node has is empty.

    Raises NotFound for what cannot be a job's name, and Unavailable when the database
    fails: Prometheus then keeps the targets it has, whereas an empty list drops them all.
    """
    if not is_job(job):
        raise NotFound("There can be no job of that name.")
    address = Node.bmc_address if job == BMC_JOB else Target.address
    query = (
        select(address.label("address"), Node.name, Node.cluster, Node.tags)
        .where(Node.removed_at.is_(None))
        .order_by(Node.name)
    )
    if job == BMC_JOB:
        query = query.where(Node.bmc_address != "")
    else:
        query = query.join(Target, Target.node_id == Node.id).where(Target.job == job)
    try:
        rows = db.session.execute(query).all()
    except SQLAlchemyError as error:
        db.session.rollback()
        raise Unavailable("The database does not answer.") from error
    return [
        target_group(row.address, node=row.name, cluster=row.cluster, tags=row.tags)
        for row in rows
    ]


def move_targets(node: Node) -> None:
    """Point the node's targets to the address it has now, in the caller's transaction."""
    for target in node.targets:
        target.address = join_host_port(node.address, split_port(target.address))
