"""Keeps snapshots in a SQLite database; the variable SNAPSHOT_DATABASE says where."""

import os
import sqlite3
from contextlib import closing

from torchkeep.runtime.plugins import SnapshotStore


class SqliteSnapshots(SnapshotStore):
    def __init__(self) -> None:
        self._path = os.environ.get("SNAPSHOT_DATABASE", "snapshots.db")
        with closing(sqlite3.connect(self._path)) as database, database:
            database.execute("CREATE TABLE IF NOT EXISTS snapshots (name TEXT PRIMARY KEY, text)")

    def save(self, name: str, text: str) -> None:
        with closing(sqlite3.connect(self._path)) as database, database:
            database.execute("INSERT INTO snapshots VALUES (?, ?)", (name, text))

    def last(self) -> tuple[str, str] | None:
        with closing(sqlite3.connect(self._path)) as database:
            rows = database.execute("SELECT name, text FROM snapshots ORDER BY name DESC LIMIT 1")
            row: tuple[str, str] | None = rows.fetchone()
            return row
