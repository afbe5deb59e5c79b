"""The Dockerfile copies what is there, installs by hash, runs as nobody in particular, and names no registry.

It was never built: no Docker was at hand.
"""

from __future__ import annotations

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "deploy" / "docker" / "Dockerfile").read_text(encoding="utf-8")
LINES = [line for line in TEXT.replace("\\\n", " ").splitlines() if line and not line.startswith("#")]


def stages() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in LINES:
        if line.startswith("FROM "):
            found[line.split(" AS ")[1]] = current = []
        current.append(line)
    return found


def test_each_base_is_a_public_name_without_a_host_or_a_stage_before() -> None:
    seen: list[str] = []
    for name, lines in stages().items():
        base = lines[0].split()[1]
        assert base == "python:3.11-slim" or base in seen
        seen.append(name)
        for source in re.findall(r"--from=(\S+)", "\n".join(lines)):
            assert source in seen


def test_what_is_copied_from_the_checkout_is_there_and_all_packages_are() -> None:
    copied = [
        word for line in LINES if line.startswith("COPY ") and "--from" not in line for word in line.split()[1:-1]
    ]
    assert all((ROOT / name).exists() for name in copied)
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert packages <= set(copied)
    assert {"requirements.lock", "pyproject.toml"} <= set(copied)


def test_everything_is_installed_by_hash_and_nothing_else_is() -> None:
    commands = [part for line in LINES if line.startswith("RUN ") for part in line.split("&&")]
    installs = [part for part in commands if "pip install" in part or "pip sync" in part]
    assert len(installs) == 3
    assert all("--require-hashes" in one or ("--no-deps" in one and one.rstrip().endswith(".")) for one in installs)
    assert "apt-get" not in TEXT and "curl" not in TEXT


def test_modules_that_are_run_exist() -> None:
    for module in re.findall(r"-m ((?:lakehouse|models)[\w.]+)", TEXT):
        assert (ROOT / f"{module.replace('.', '/')}.py").is_file()


def test_the_images_run_as_the_user_that_the_pods_name_and_serve_on_their_port() -> None:
    found = stages()
    assert all("USER 10001:10001" in found[target] for target in ("tasks", "serving"))
    slot = yaml.safe_load((ROOT / "deploy" / "kubernetes" / "base" / "slot" / "statefulset.yaml").read_text())
    spec = slot["spec"]["template"]["spec"]
    assert spec["securityContext"]["runAsUser"] == 10001
    assert 'ENTRYPOINT ["millrace"]' in found["serving"]
    (container,) = spec["containers"]
    assert f"EXPOSE {container['ports'][0]['containerPort']}" in found["serving"]
    assert container["args"][0] == "serve"


def test_no_secret_is_baked_in() -> None:
    assert not re.search(r"(?i)(ENV|ARG)\s.*(key|secret|password|token)", TEXT)
