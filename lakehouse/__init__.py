"""Typed, versioned, validated Delta tables: the data side of Millrace."""

from __future__ import annotations

from lakehouse.contracts.table import EventTime, Key, References, Subject, Table
from lakehouse.lake import Lakehouse
from lakehouse.query.connection import connect
from lakehouse.snapshot import Snapshot

__all__ = ["EventTime", "Key", "Lakehouse", "References", "Snapshot", "Subject", "Table", "connect"]
