"""What ``cloudlunacy agent status`` says, from the disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent import status
from agent.certificate_files import CertificateFiles
from agent.credentials import AgentFile
from agent.documents import Applied, DocumentStore
from agent.keys import Unusable
from schemas.jwk import JwkSet
from tests.support.agent_certificates import issuer, pair
from tests.support.service_world import NAMES, World, item
from tests.support.tokens import NOW


def test_each_state_is_told(tmp_path: Path) -> None:
    """Before the first certificate, with a good one, and after its end; the generation as far as there is one."""
    AgentFile(name="vps-1", server="https://a.test", issuer="https://a.test", jwks=JwkSet(keys=())).save(tmp_path)
    fresh = status.lines(tmp_path, NOW)
    one, issued = pair(issuer(tmp_path / "keys", now=NOW), "vps-1", NOW)
    CertificateFiles(tmp_path, "vps-1").install(
        one.key, issued.certificate.encode(), issued.bundle.encode(), received_at=NOW
    )
    DocumentStore(tmp_path).mark_applied(Applied(7, "sha256:" + "0" * 64))
    before = sorted(tmp_path.iterdir())
    good, ended = status.lines(tmp_path, NOW), status.lines(tmp_path, NOW + 86_401)

    assert fresh == [
        "agent          vps-1",
        "control plane  https://a.test",
        "certificate    none yet; cloudlunacy agent run asks for it",
        "applied        nothing yet",
    ]
    renewed = "renewed between 2027-01-15 17:36:00 UTC and 2027-01-15 22:24:00 UTC"
    assert good[2:] == [f"certificate    until 2027-01-16 08:00:00 UTC; {renewed}", "applied        generation 7"]
    assert "ended at 2027-01-16 08:00:00 UTC. To get another: cloudlunacy token create" in ended[2]
    assert sorted(tmp_path.iterdir()) == before


def test_services_are_told_of(world: World) -> None:
    """Each with its names, its end and its fingerprint."""
    data = world.data
    AgentFile(name="vps-1", server="https://a.test", issuer="https://a.test", jwks=JwkSet(keys=())).save(data)
    world.issue(item())
    line = status.lines(data, NOW)[-1]
    assert line.startswith(f"shop/orders    {', '.join(NAMES)}; until 2027-01-16 08:00:00 UTC; SHA-256 ")


def test_a_machine_that_is_not_enrolled_says_so(tmp_path: Path) -> None:
    """There is nothing to tell of."""
    with pytest.raises(Unusable, match="Enrol this machine first"):
        status.lines(tmp_path, NOW)
