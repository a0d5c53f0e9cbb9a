"""The document on disk while the process is killed at any moment."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import textwrap
import time
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from agent.documents import DocumentStore, keys_of
from reconciler.agents.documents import sign_document
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
