"""What is an object store as a lake's storage? Keys below a bucket's prefix, through obstore."""

from __future__ import annotations

from collections.abc import Iterator

from lakehouse.errors import MissingPackageError
from lakehouse.storage import StoredFile


class ObjectStorage:
    """Files below an ``s3://bucket/prefix``.

    Endpoint, region and keys come from the ``AWS_*`` environment variables, the same that delta-rs reads.
    """

    def __init__(self, url: str) -> None:
        try:
            from obstore.store import from_url
        except ImportError:
            raise MissingPackageError.for_extra(f"A lake at {url}", "s3") from None
        self.root = url
        self._store = from_url(url)

    def read(self, key: str) -> bytes:
        return bytes(self._store.get(key).bytes())

    def write(self, key: str, content: bytes, *, overwrite: bool = False) -> bool:
        from obstore.exceptions import AlreadyExistsError

        try:
            self._store.put(key, content, mode="overwrite" if overwrite else "create")
        except AlreadyExistsError:
            return False
        return True

    def delete(self, key: str) -> None:
        self._store.delete(key)

    def exists(self, key: str) -> bool:
        try:
            self._store.head(key)
        except FileNotFoundError:
            return False
        return True

    def keys(self, prefix: str) -> Iterator[str]:
        for page in self._store.list(prefix):
            for entry in page:
                yield entry["path"]

    def listing(self, prefix: str) -> Iterator[StoredFile]:
        for page in self._store.list(prefix):
            for entry in page:
                yield StoredFile(entry["path"], int(entry["size"]), entry["last_modified"])

    def tables(self, folder: str) -> list[str]:
        below = self._store.list_with_delimiter(folder or None)["common_prefixes"]
        names = [prefix.rstrip("/").rpartition("/")[2] for prefix in below]
        return sorted(
            name
            for prefix, name in zip(below, names, strict=True)
            if name[:1].islower() and self._store.list_with_delimiter(f"{prefix.rstrip('/')}/_delta_log")["objects"]
        )
