"""Typed, versioned, validated Delta tables: the data side of Millrace."""

from __future__ import annotations

from lakehouse.connection import connect
from lakehouse.lake import Lakehouse
from lakehouse.snapshot import Snapshot
from lakehouse.table import EventTime, Key, References, Subject, Table

__all__ = ["EventTime", "Key", "Lakehouse", "References", "Snapshot", "Subject", "Table", "connect"]
