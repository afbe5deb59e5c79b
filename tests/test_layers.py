from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
HEAVY = "pyspark torch feast pandas vllm mlflow transformers matplotlib pydeequ"


def test_imports_go_down_the_layers_only() -> None:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--config", str(ROOT / "pyproject.toml")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("lakehouse", f"{HEAVY} flytekit duckdb"),
        ("lakehouse.gate.publish", f"{HEAVY} flytekit"),
        ("lakehouse.tables", f"{HEAVY} flytekit"),
        ("models", f"{HEAVY} flytekit"),
        # Flytekit itself loads every installed plug-in, and the one for Spark loads pyspark.
        ("workflows.nightly", HEAVY.replace("pyspark ", "")),
        ("cli.main", f"{HEAVY} flytekit"),
    ],
)
def test_a_module_loads_without_what_only_its_functions_need(module: str, absent: str) -> None:
    script = f"import sys, {module}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    # Flytekit puts empty stand-ins into sys.modules; what is really loaded has submodules.
    loaded = {name.partition(".")[0] for name in done.stdout.split() if "." in name}
    assert loaded & set(absent.split()) == set()


@pytest.mark.parametrize(
    ("package", "foreign"),
    [("lakehouse", ["flytekit", "feast", "torch"]), ("models", ["flytekit", "pyspark", "feast", "pydeequ"])],
)
def test_a_package_does_not_name_the_libraries_of_those_above_it(package: str, foreign: list[str]) -> None:
    found = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path in (ROOT / package).rglob("*.py")
        if path != ROOT / "lakehouse" / "flyte.py"
        for line in path.read_text().splitlines()
        if line.strip().startswith(tuple(f"{word} {name}" for word in ("import", "from") for name in foreign))
    ]
    assert found == []
