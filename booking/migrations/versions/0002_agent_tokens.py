"""An agent's next token, and the boots of a node.

A node that is known already has told no boot yet: the next heartbeat begins its list.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("nodes", sa.Column("next_token_hash", sa.String(length=64), nullable=True))
    # SQLite adds no column that may not be empty without a default for the rows there are.
    op.add_column(
        "nodes",
        sa.Column("boots", sa.JSON(), nullable=False, server_default=sa.text("'[]'")),
    )
    op.add_column("nodes", sa.Column("cloned_at", sa.DateTime(timezone=True), nullable=True))
    op.create_index(op.f("ix_nodes_next_token_hash"), "nodes", ["next_token_hash"], unique=True)


def downgrade() -> None:
    op.drop_index(op.f("ix_nodes_next_token_hash"), table_name="nodes")
    # Not by batch_alter_table: SQLite itself drops columns that nothing refers to.
    op.drop_column("nodes", "cloned_at")
    op.drop_column("nodes", "boots")
    op.drop_column("nodes", "next_token_hash")
