"""The calendar's tables, for a database without tables of its own (`notifier migrate --calendar`)."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import (
    Boolean,
    Connection,
    DateTime,
    ForeignKey,
    Index,
    MetaData,
    Text,
    UniqueConstraint,
    Uuid,
    inspect,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Calendar(DeclarativeBase):
    """Tables of the application: `notifier uninstall` does not drop them."""

    metadata = MetaData()

    id: Mapped[UUID] = mapped_column(
        Uuid, primary_key=True, server_default=text("gen_random_uuid()"), sort_order=-1
    )
    created_at: Mapped[datetime] = mapped_column(
        DateTime(timezone=True), server_default=text("now()"), sort_order=98
    )
    updated_at: Mapped[datetime] = mapped_column(
        DateTime(timezone=True), server_default=text("now()"), sort_order=99
    )


class Company(Calendar):
    __tablename__ = "companies"

    name: Mapped[str] = mapped_column(Text)
    time_zone: Mapped[str] = mapped_column(Text, server_default="UTC")


class Employee(Calendar):
    __tablename__ = "employees"
    __table_args__ = (UniqueConstraint("company_id", "user_id"),)

    company_id: Mapped[UUID] = mapped_column(ForeignKey("companies.id", ondelete="CASCADE"))
    user_id: Mapped[str | None] = mapped_column(Text)
    name: Mapped[str] = mapped_column(Text)
    email: Mapped[str | None] = mapped_column(Text)
    job_title: Mapped[str | None] = mapped_column(Text)


class Event(Calendar):
    __tablename__ = "events"
    __table_args__ = (Index("events_company_id_starts_at", "company_id", "starts_at"),)

    company_id: Mapped[UUID] = mapped_column(ForeignKey("companies.id", ondelete="CASCADE"))
    title: Mapped[str] = mapped_column(Text)
    description: Mapped[str | None] = mapped_column(Text)
    location: Mapped[str | None] = mapped_column(Text)
    starts_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    ends_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    all_day: Mapped[bool] = mapped_column(Boolean, server_default=text("false"))
    organizer_id: Mapped[UUID | None] = mapped_column(
        ForeignKey("employees.id", ondelete="SET NULL"), index=True
    )


def create(connection: Connection, schema: str) -> list[str]:
    """Creates the tables that the schema lacks; their names."""
    missing = set(Calendar.metadata.tables) - set(inspect(connection).get_table_names(schema))
    connection.execution_options(schema_translate_map={None: schema})
    Calendar.metadata.create_all(connection)
    return sorted(missing)
