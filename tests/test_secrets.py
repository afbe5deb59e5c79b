"""The repository holds no key, token or password: every tracked file is looked at, and what is none is named here."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from detect_secrets import SecretsCollection
from detect_secrets.core.plugins.util import get_mapping_from_secret_type_to_class
from detect_secrets.settings import transient_settings

ROOT = Path(__file__).parents[1]

#: Digests stand everywhere here, and look like keys to this one.
LEFT_OUT = "HexHighEntropyString"
#: Hashes of packages, made by a tool.
NOT_LOOKED_AT = ("requirements.lock",)

#: What looks like a secret and is none, by file.
NONE = {
    ".github/workflows/release.yml": "the name of a secret of the forge",
    "deploy/kubernetes/base/monitoring/prometheus.yaml": "the name of a secret of the cluster",
    "deploy/kubernetes/base/slot/statefulset.yaml": "the name of a secret of the cluster",
    "docs/how-to-serving.md": "makes a key by openssl",
    "features/errors.py": "the form of a URL, in a message",
    "models/llm/golden/attacks.json": "a hostile title",
    "models/llm/golden/champions.json": "a digest",
    "tests/features/conftest.py": "of a server that a test starts",
    "tests/features/test_online.py": "made-up URLs that are taken apart",
    "tests/lakehouse/test_s3.py": "of a server that a test starts",
    "tests/serving/test_security.py": "a key that is too short",
    "tests/test_secrets.py": "planted below",
}


def found_in(paths: list[str]) -> Iterator[tuple[str, int, str]]:
    """(file, line, kind) of whatever looks like a secret."""
    names = [plugin.__name__ for plugin in get_mapping_from_secret_type_to_class().values()]
    secrets = SecretsCollection(root=str(ROOT))
    with transient_settings({"plugins_used": [{"name": name} for name in names if name != LEFT_OUT]}):
        for path in paths:
            secrets.scan_file(path)
    for path, secret in secrets:
        yield path, secret.line_number, secret.type


def test_no_tracked_file_holds_a_secret() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    paths = [path for path in listed.split("\0") if path and path not in NOT_LOOKED_AT and (ROOT / path).is_file()]
    found = list(found_in(paths))
    assert [f"{path}:{line}: {kind}" for path, line, kind in found if path not in NONE] == []
    stale = set(NONE) - {path for path, _, _ in found} - ({"tests/test_secrets.py"} - set(paths))
    assert stale == set(), "these hold nothing that looks like a secret any more"


@pytest.mark.parametrize(
    "text",
    [
        'api_key = "8Dk2x9QpLm47TzRv"',
        "url = 'postgresql://me:letmein42@db.example.org/features'",
        "-----BEGIN RSA PRIVATE KEY-----",
        "AKIAIOSFODNN7QXMPLQ2",
    ],
)
def test_a_planted_secret_is_found(text: str, tmp_path: Path) -> None:
    planted = tmp_path / "settings.py"
    planted.write_text(f"{text}\n", encoding="utf-8")
    assert [line for _, line, _ in found_in([str(planted)])] == [1]
