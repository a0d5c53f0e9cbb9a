"""The running server against its own description: schemathesis asks what the OpenAPI document promises, and what not.

Left out: the two streams, which never end (their tests are ``tests/unit/web/test_stream.py`` and ``test_hub.py``).
Checks that need a second state of the server (``use_after_free``, ``ensure_resource_availability``) have nothing to
work on: writes go to git first. ``positive_data_acceptance`` is off: a name that is well-formed is not thereby known.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from openapi_spec_validator import validate

from tests.support.fleet import Installation, installation, start_files

SCOPES: Final = ("read", "plan", "approve", "enrol", "operate", "write", "exec")
CHECKS: Final = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "missing_required_header",
    "unsupported_method",
    "ignored_auth",
)
ENDLESS: Final = ("/api/v1/stream", "/api/v1/agents/stream")
EXAMPLES: Final = "15"
"""For each endpoint, always the same ones: a budget of time would let the machine decide what is tried."""
CONFIG: Final = """
[checks.negative_data_rejection]
# what schemathesis takes for a refusal, and that a body can be too long
expected-statuses = [400, 401, 403, 404, 405, 406, 409, 413, 415, 422, 428, 429, "5xx"]
"""


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with installation(tmp_path_factory.mktemp("api") / "one", start_files("web"), traefik=False) as one:
        one.status_wait(one.repo.tip() or "")
        yield one


def test_the_description_is_valid(plane: Installation) -> None:
    """OpenAPI 3.1, with a summary, a group and a name of its own for each operation."""
    document = plane.client.get("/openapi.json").json()
    validate(document)
    operations = [one for methods in document["paths"].values() for one in methods.values()]
    assert all(one["summary"] and one["tags"] for one in operations)
    assert len({one["operationId"] for one in operations}) == len(operations)


def test_the_server_does_what_its_description_says(plane: Installation, tmp_path: Path) -> None:
    """Whatever is sent to it: no answer that is not described, and nothing is taken that is not."""
    token = plane.post("/tokens", {"kind": "ci", "scopes": list(SCOPES), "expires": "1h"}).json()["token"]
    left_out = [word for path in ENDLESS for word in ("--exclude-path", path)]
    (tmp_path / "schemathesis.toml").write_text(CONFIG)
    done = subprocess.run(
        [
            Path(sys.executable).with_name("schemathesis"), "run", f"{plane.url}/openapi.json",
            "--tls-verify", plane.ca, "--header", f"Authorization: Bearer {token}",
            "--checks", ",".join(CHECKS), "--phases", "fuzzing", "--max-examples", EXAMPLES,
            "--generation-deterministic", "--request-timeout", "30",
            "--continue-on-failure", "--no-color", *left_out,
        ],
        cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-2000:]
