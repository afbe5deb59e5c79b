"""Who was erased? Salted digests, by column, that the gate asks before it lets a row in."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass

from lakehouse.contracts.table import Contract
from lakehouse.lake import Lakehouse
from lakehouse.ledger import Erasure
from lakehouse.privacy.subjects import names_of_column

_SALT = "_salt"


@dataclass(frozen=True)
class Tombstones:
    """The erased values of one column, known only by their digests.

    The digests keep names out of the ledger; they are no secret: who can read the lake's salt and tries every number
    finds which of them were erased.

    Attributes:
        salt: the lake's own, mixed into each digest.
        digests: ``sha256(salt + text of the value)`` in hexadecimal.
    """

    salt: str
    digests: frozenset[str]

    def __contains__(self, value: object) -> bool:
        return value is not None and digest_of(self.salt, value) in self.digests

    def condition(self, column: str) -> str:
        """A condition in Spark SQL: whether a row's value is erased; false where it is null."""
        name = "`" + column.replace("`", "``") + "`"
        listed = ", ".join(f"'{digest}'" for digest in sorted(self.digests))
        return f"coalesce(sha2(concat('{self.salt}', trim(cast({name} as string))), 256) in ({listed}), false)"


def erased_values(lake: Lakehouse, contract: Contract) -> dict[str, Tombstones]:
    """What the gate must ask for a table, by column; empty where nobody was erased.

    A row with an erased value is refused, and its content is not kept.
    """
    rows = list(lake.ledger.read(Erasure))
    if not rows:
        return {}
    salt = salt_of(lake)
    found = {}
    for column in contract.names:
        names = names_of_column(contract, column)
        digests = frozenset(row.digest for row in rows if names & set(row.columns))
        if digests:
            found[column] = Tombstones(salt, digests)
    return found


def digest_of(salt: str, value: object) -> str:
    """What stands for a value: the same whether it came as a number or as text."""
    return hashlib.sha256(f"{salt}{str(value).strip()}".encode()).hexdigest()


def salt_of(lake: Lakehouse) -> str:
    """The lake's salt, made when the first person is erased; of two processes that make it, the first one's stays."""
    if not lake.storage.exists(_SALT):
        lake.storage.write(_SALT, secrets.token_hex(16).encode())
    return lake.storage.read(_SALT).decode()
