"""What lies on the agent's disk while the process is killed at any moment."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import textwrap
import time
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from cryptography import x509

from agent.certificate_files import CertificateFiles
from agent.documents import DocumentStore, keys_of
from reconciler.agents.documents import sign_document
from tests.support.agent_certificates import issuer, pair
from tests.support.agent_hub import TestSigner, wanted
from tests.support.waiting import wait_for

ROUNDS = 12
PROGRAM = textwrap.dedent(
    """
    import itertools, sys
    from pathlib import Path
    from agent.documents import Applied, DocumentStore
    directory, documents = Path(sys.argv[1]), Path(sys.argv[2]).read_text().split()
    store = DocumentStore(directory)
    for number in itertools.count():
        store.save(documents[number % len(documents)])
    """
)

SWAP = textwrap.dedent(
    """
    import json, os, signal, sys
    from pathlib import Path
    from agent.certificate_files import CertificateFiles

    data, pairs = sys.argv[1], json.loads(Path(sys.argv[2]).read_text())
    files, steps = CertificateFiles(Path(data), "vps-1"), 0

    def install(pair):
        return files.install(*(pair[part].encode() for part in ("key", "chain", "bundle")), received_at=pair["at"])

    def die_at(number):
        def hook(event, arguments):
            global steps
            touches = event in ("open", "os.mkdir", "os.symlink", "os.rename", "os.remove", "os.rmdir")
            if touches and data in " ".join(map(str, arguments)):
                steps += 1
                if steps == number:
                    os.kill(os.getpid(), signal.SIGKILL)
        sys.addaudithook(hook)

    print(json.dumps({"step": 0, "serial": install(pairs[0]).serial}), flush=True)
    for number, pair in enumerate(pairs[1:], 1):
        child = os.fork()
        if child == 0:
            die_at(number)
            install(pair)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        held = files.load()
        killed = os.WIFSIGNALED(status)
        print(json.dumps({"step": number, "killed": killed, "serial": held and held.serial}), flush=True)
        if not killed:
            break
    """
)
STEPS = 60
"""More than one swap has."""


def was_written(path: Path, stamp: int) -> bool:
    return path.exists() and path.stat().st_mtime_ns != stamp


def test_a_killed_agent_starts_with_a_whole_document(tmp_path: Path) -> None:
    """Whenever the process is killed while it replaces its document, the old or the new one is there, whole."""
    signer, chance = TestSigner(), random.Random(20260501)
    texts = [f"{number}{'x' * 300_000}" for number in range(1, 9)]
    now = datetime.now(UTC)
    documents = [sign_document("vps-1", wanted(n, text), signer, now) for n, text in enumerate(texts, 1)]
    (tmp_path / "documents").write_text("\n".join(documents))
    data = tmp_path / "data"
    data.mkdir()
    store, keys = DocumentStore(data), keys_of(signer.jwks)
    seen: set[int] = set()
    for _ in range(ROUNDS):
        stamp = store.path.stat().st_mtime_ns if store.path.exists() else 0
        with subprocess.Popen([sys.executable, "-c", PROGRAM, str(data), str(tmp_path / "documents")]) as process:
            wait_for(partial(was_written, store.path, stamp))
            time.sleep(chance.uniform(0, 0.02))  # the moment of death, not a wait for anything
            process.send_signal(signal.SIGKILL)
        found = store.load("vps-1", keys)
        assert found.damage is None
        assert found.document is not None
        seen.add(found.document.generation)
    assert len(seen) > 1, "the kills came too early to mean anything"


def test_an_agent_killed_at_any_step_of_a_swap_has_a_pair(tmp_path: Path) -> None:
    """Killed before each thing that it does to the disk, it has the former pair or the new one, and tidies up later."""
    now = datetime.now(UTC).timestamp()
    one = issuer(tmp_path / "authority", now=now)
    made = [pair(one, "vps-1", now) for _ in range(STEPS)]
    described = [
        {"key": fresh.key.decode(), "chain": issued.certificate, "bundle": issued.bundle, "at": now}
        for fresh, issued in made
    ]
    (tmp_path / "pairs").write_text(json.dumps(described))
    data = tmp_path / "data"
    data.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", SWAP, str(data), str(tmp_path / "pairs")], stdout=subprocess.PIPE, check=True, timeout=60
    )
    seen = [json.loads(line) for line in done.stdout.splitlines()]
    serials = [x509.load_pem_x509_certificate(issued.certificate.encode()).serial_number for _, issued in made]
    present = serials[0]
    for step in seen[1:]:
        assert step["serial"] in (present, serials[step["step"]]), step
        present = step["serial"]
    taken = [step for step in seen[1:] if step["serial"] == serials[step["step"]]]
    assert len(seen) > 15, "the swap did less than was thought"
    assert 1 < len(taken) < len(seen) - 5, "no kill came before the swap, or none after it"
    assert not seen[-1]["killed"], "the last one was not let go on"
    assert CertificateFiles(data, "vps-1").load() is not None
    assert len([path for path in data.iterdir() if path.is_dir() and not path.is_symlink()]) == 2
    assert [path.name for path in data.iterdir() if path.is_symlink()] == ["certificate"]
