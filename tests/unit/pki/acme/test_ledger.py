from __future__ import annotations

import asyncio
import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest

from reconciler.errors import Broken
from reconciler.pki.acme.ledger import LedgerFile
from reconciler.pki.acme.schedule import History, Ledger

URL = "https://acme.example.test/dir"
KNOWN = Ledger(URL, {"a.test": History(orders=(datetime(2026, 3, 1, tzinfo=UTC),), order_url="https://acme/1")})


def test_a_ledger_survives_a_restart(tmp_path: Path) -> None:
    """What was saved is loaded, from a private file; another directory begins with nothing."""
    path = tmp_path / "ledger.json"
    asyncio.run(LedgerFile(path, URL).save(KNOWN))
    assert LedgerFile(path, URL).load() == KNOWN
    assert LedgerFile(path, "https://other.test/dir").load() == Ledger("https://other.test/dir")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_no_file_is_an_empty_ledger(tmp_path: Path) -> None:
    """The first start knows nothing."""
    assert LedgerFile(tmp_path / "ledger.json", URL).load() == Ledger(URL)


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b'{"directory": 1}', b"\xff" * 100])
def test_a_damaged_file_is_put_aside(tmp_path: Path, text: bytes) -> None:
    """The control plane starts, and what was there stays to be looked at."""
    path = tmp_path / "ledger.json"
    path.write_bytes(text)
    assert LedgerFile(path, URL).load() == Ledger(URL)
    (aside,) = tmp_path.iterdir()
    assert aside.name.startswith("ledger.json.damaged-")
    assert aside.read_bytes() == text


def test_what_cannot_be_read_or_written_is_told(tmp_path: Path) -> None:
    """A folder in the file's place, or none around it: Broken, with the path."""
    (tmp_path / "folder").mkdir()
    with pytest.raises(Broken, match="folder cannot be read"):
        LedgerFile(tmp_path / "folder", URL).load()
    with pytest.raises(Broken, match=r"ledger\.json cannot be written"):
        asyncio.run(LedgerFile(tmp_path / "none" / "ledger.json", URL).save(KNOWN))


def test_of_saves_at_once_the_last_one_stays(tmp_path: Path) -> None:
    """Orders at the same time do not write over each other with what is older."""
    file = LedgerFile(tmp_path / "ledger.json", URL)

    async def scenario() -> None:
        ledgers = [Ledger(URL, {f"{n}.test": History(failures=n)}) for n in range(1, 20)]
        await asyncio.gather(*(file.save(each) for each in ledgers))
        assert file.load() == ledgers[-1]

    asyncio.run(scenario())
