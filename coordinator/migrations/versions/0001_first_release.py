"""The tables of the first release."""

import sqlalchemy as sql
from alembic import op

revision = "0001"
down_revision = None


def text(length: int) -> sql.String:
    """As the tables have it: sorted by its bytes."""
    return sql.String(length).with_variant(sql.String(length, collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "chain",
        sql.Column("entry", sql.Integer(), autoincrement=False, nullable=False),
        sql.Column("kind", text(16), nullable=False),
        sql.Column("key", text(80), nullable=False),
        sql.Column("digest", sql.LargeBinary(length=32), nullable=False),
        sql.Column("head", sql.LargeBinary(length=32), nullable=False),
        sql.PrimaryKeyConstraint("entry"),
    )
    op.create_table(
        "counters",
        sql.Column("site", text(64), nullable=False),
        sql.Column("kind", text(16), nullable=False),
        sql.Column("counter", sql.BigInteger(), nullable=False),
        sql.PrimaryKeyConstraint("site", "kind"),
    )
    op.create_table(
        "evaluations",
        sql.Column("version", sql.BigInteger(), autoincrement=False, nullable=False),
        sql.Column("site", text(64), nullable=False),
        sql.Column("metric", text(64), nullable=False),
        sql.Column("numerator", sql.Float(), nullable=False),
        sql.Column("denominator", sql.Float(), nullable=False),
        sql.Column("num_examples", sql.BigInteger(), nullable=False),
        sql.Column("received_at_s", sql.Float(), nullable=False),
        sql.PrimaryKeyConstraint("version", "site", "metric"),
    )
    op.create_table(
        "facts",
        sql.Column("name", text(80), nullable=False),
        sql.Column("value", text(256), nullable=False),
        sql.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "parts",
        sql.Column("version", sql.BigInteger(), autoincrement=False, nullable=False),
        sql.Column("kind", text(16), nullable=False),
        sql.Column("codec", text(64), nullable=False),
        sql.Column("size_bytes", sql.BigInteger(), nullable=False),
        sql.Column("digest", sql.LargeBinary(length=32), nullable=False),
        sql.Column("chunk_digests", sql.LargeBinary(), nullable=False),
        sql.PrimaryKeyConstraint("version", "kind"),
    )
    op.create_index("ix_parts_digest", "parts", ["digest"])

    op.create_table(
        "totals",
        sql.Column("up_to", sql.BigInteger(), autoincrement=False, nullable=False),
        sql.Column("site", text(64), nullable=False),
        sql.Column("num_accepted", sql.BigInteger(), nullable=False),
        sql.Column("num_refused", sql.BigInteger(), nullable=False),
        sql.Column("num_steps", sql.BigInteger(), nullable=False),
        sql.Column("weight", sql.Float(), nullable=False),
        sql.Column("up_to_number", sql.BigInteger(), nullable=False),
        sql.Column("gap_s", sql.Float(), nullable=True),
        sql.Column("last_s", sql.Float(), nullable=True),
        sql.Column("num_examples", sql.BigInteger(), nullable=True),
        sql.Column("work_s", sql.Float(), nullable=True),
        sql.PrimaryKeyConstraint("up_to", "site"),
    )
    op.create_table(
        "updates",
        sql.Column("number", sql.Integer(), autoincrement=True, nullable=False),
        sql.Column("update_id", sql.LargeBinary(length=32), nullable=False),
        sql.Column("site", text(64), nullable=False),
        sql.Column("sequence", sql.BigInteger(), nullable=False),
        sql.Column("base_version", sql.BigInteger(), nullable=False),
        sql.Column("codec", text(64), nullable=False),
        sql.Column("num_examples", sql.BigInteger(), nullable=False),
        sql.Column("num_steps", sql.BigInteger(), nullable=False),
        sql.Column("work_s", sql.Float(), nullable=False),
        sql.Column("size_bytes", sql.BigInteger(), nullable=False),
        sql.Column("digest", sql.LargeBinary(length=32), nullable=False),
        sql.Column("received_at_s", sql.Float(), nullable=False),
        sql.Column("arrived_s", sql.Float(), nullable=False),
        sql.Column("norm", sql.Float(), nullable=True),
        sql.Column("reason", text(32), nullable=True),
        sql.Column("version", sql.BigInteger(), nullable=True),
        sql.Column("weight", sql.Float(), nullable=True),
        sql.PrimaryKeyConstraint("number"),
        sql.UniqueConstraint("update_id"),
        sqlite_autoincrement=True,
    )
    op.create_index("folded_of_a_site", "updates", ["site", "version", "reason"])
    op.create_index("ix_updates_digest", "updates", ["digest"])
    op.create_index("ix_updates_version", "updates", ["version"])
    op.create_index("updates_of_a_site", "updates", ["site", "base_version"])

    op.create_table(
        "verdicts",
        sql.Column("number", sql.Integer(), autoincrement=True, nullable=False),
        sql.Column("site", text(64), nullable=False),
        sql.Column("verdict", text(16), nullable=False),
        sql.Column("after_number", sql.BigInteger(), nullable=False),
        sql.Column("given_at_s", sql.Float(), nullable=False),
        sql.PrimaryKeyConstraint("number"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "versions",
        sql.Column("version", sql.BigInteger(), autoincrement=False, nullable=False),
        sql.Column("created_at_s", sql.Float(), nullable=False),
        sql.Column("model_digest", sql.LargeBinary(length=32), nullable=False),
        sql.Column("state_digest", sql.LargeBinary(length=32), nullable=False),
        sql.Column("settings", sql.Text(), nullable=False),
        sql.PrimaryKeyConstraint("version"),
    )
    op.create_table(
        "wishes",
        sql.Column("number", sql.Integer(), autoincrement=True, nullable=False),
        sql.Column("target", text(64), nullable=False),
        sql.Column("state", text(16), nullable=False),
        sql.Column("wished_at_s", sql.Float(), nullable=False),
        sql.PrimaryKeyConstraint("number"),
        sqlite_autoincrement=True,
    )
