"""Whatever a machine makes of the OpenAPI document, the service answers as the document says, and never with a 5xx."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from models.use import intended_use
from tests.serving.conftest import ADMIN_KEY, API_KEY, Running, Serve

#: What the document can't know: /explain has no model here, /metrics is no JSON.
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
#: Which routes are asked with which key; staging loads a model each time and is left to its own tests.
ASKED = ((API_KEY, "^/(recommend|similar|feedback|users|health|ready)"), (ADMIN_KEY, "^/admin/(status|switch)"))


def test_schemathesis_finds_nothing(serve: Serve, tmp_path: Path) -> None:
    with serve() as running:
        for key, paths in (
            (API_KEY, "^/(recommend|similar|feedback|users|health|ready)"),
            (ADMIN_KEY, "^/admin/(status|switch)"),
        ):
            done = subprocess.run(
                [
                    sys.executable,
                    "-m",
                    "schemathesis.cli",
                    "run",
                    str(document(running, tmp_path)),
                    "--url",
                    running.url,
                    "--header",
                    f"Authorization: Bearer {key}",
                    "--include-path-regex",
                    paths,
                    "--checks",
                    CHECKS,
                    "--max-examples",
                    "25",
                    "--seed",
                    "1",
                    "--phases",
                    "examples,coverage,fuzzing",
                ],
                cwd=tmp_path,
                capture_output=True,
                text=True,
                timeout=600,
                check=False,
            )
            assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


def document(running: Running, folder: Path) -> Path:
    with running.http() as http:
        found = http.get("/openapi.json").json()
    path = folder / "openapi.json"
    path.write_text(json.dumps(found))
    return path


def test_the_document_has_examples_keys_and_the_form_of_every_refusal(running: Running, tmp_path: Path) -> None:
    found = json.loads(document(running, tmp_path).read_text())
    assert found["info"]["description"] == intended_use().markdown()
    for path in ("/recommend", "/similar", "/explain", "/feedback", "/admin/stage"):
        operation = found["paths"][path]["post"]
        name = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
        assert found["components"]["schemas"][name]["examples"]
        assert operation["security"] == [{"admin" if path.startswith("/admin") else "api": []}]
        for status in ("401", "422", "429"):
            schema = operation["responses"][status]["content"]["application/json"]["schema"]
            assert schema["$ref"].endswith("/Problem")
