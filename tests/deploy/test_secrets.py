"""The repository holds no key: what looks like one was looked at by a person and stands in .secrets.baseline.

Digests are not secrets, and the lock has thousands; both are left out. To accept what is new, after a look:
``detect-secrets scan --baseline .secrets.baseline``.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from detect_secrets.core import baseline
from detect_secrets.core.secrets_collection import SecretsCollection
from detect_secrets.settings import transient_settings

ROOT = Path(__file__).parents[2]
BASELINE = ROOT / ".secrets.baseline"


def looks_like_a_key(files: list[str], root: Path = ROOT) -> set[tuple[str, str]]:
    """File and digest of each find."""
    known = json.loads(BASELINE.read_text(encoding="utf-8"))
    with transient_settings({"plugins_used": known["plugins_used"], "filters_used": known["filters_used"]}):
        found = SecretsCollection(root=str(root))
        for file in files:
            found.scan_file(file)
    return {(file, secret.secret_hash) for file, secret in found}


def test_nothing_that_looks_like_a_key_is_new() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    files = [name for name in listed.split("\0") if (ROOT / name).is_file() and name != BASELINE.name]
    accepted = baseline.load(baseline.load_from_file(str(BASELINE)))
    assert looks_like_a_key(files) <= {(file, secret.secret_hash) for file, secret in accepted}


def test_a_key_is_seen(tmp_path: Path) -> None:
    (tmp_path / "settings.py").write_text(f'aws = "{"AKIA"}{"QYLPMN5HHHFPZAM2"}"\n')
    assert looks_like_a_key(["settings.py"], tmp_path)
