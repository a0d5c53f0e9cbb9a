from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from reconciler.store.blobs import BlobCache
from tests.unit.store.damage import PAGE, overwrite_from, overwrite_page

WEB = ("routes/shop/web.yaml", "a" * 40, b'{"web":1}')
DB = ("routes/shop/db.yaml", "b" * 40, b'{"db":1}')
NEW_WEB = ("routes/shop/web.yaml", "c" * 40, b'{"web":2}')


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache.db"


def tree(cache: BlobCache) -> list[tuple[str, str, bytes]]:
    return sorted(cache.load_tree())


def test_a_saved_tree_comes_back_after_a_restart(path: Path) -> None:
    """What was saved as the tree is loaded by the next process."""
    first = BlobCache(path, "1")
    first.replace([WEB, DB], [])
    first.close()
    second = BlobCache(path, "1")
    assert tree(second) == [DB, WEB]


def test_a_new_cache_is_empty(path: Path) -> None:
    """Without a file there is no tree and nothing is found."""
    cache = BlobCache(path, "1")
    assert (tree(cache), cache.lookup([WEB[:2]])) == ([], {})


def test_a_change_moves_the_tree_and_keeps_the_former_contents_findable(path: Path) -> None:
    """Replacing changes the tree; the former blob of the path, and a removed path, are still looked up."""
    cache = BlobCache(path, "1")
    cache.replace([WEB, DB], [])
    cache.replace([NEW_WEB], [DB[0]])
    assert tree(cache) == [NEW_WEB]
    assert cache.lookup([WEB[:2], DB[:2], NEW_WEB[:2], ("other", "d" * 40)]) == {
        row[:2]: row[2] for row in (WEB, DB, NEW_WEB)
    }


def test_a_revert_brings_a_row_back(path: Path) -> None:
    """A path may go back to a blob it had before."""
    cache = BlobCache(path, "1")
    cache.replace([WEB], [])
    cache.replace([NEW_WEB], [])
    cache.replace([WEB], [])
    assert tree(cache) == [WEB]


def test_stored_rows_are_found_but_no_part_of_the_tree(path: Path) -> None:
    """Storing neither adds to the tree nor takes a row out of it."""
    cache = BlobCache(path, "1")
    cache.replace([WEB], [])
    cache.store([DB, WEB])
    assert tree(cache) == [WEB]
    assert cache.lookup([DB[:2]]) == {DB[:2]: DB[2]}


def test_rows_that_left_the_tree_long_ago_are_dropped(path: Path) -> None:
    """After the given number of saved trees a row that is in none of them is gone; the tree itself stays."""
    cache = BlobCache(path, "1", kept_generations=3)
    cache.replace([WEB, DB], [])
    cache.replace([NEW_WEB], [])
    for number in range(3):
        assert cache.lookup([WEB[:2]]), number
        cache.replace([], [])
    assert cache.lookup([WEB[:2]]) == {}
    assert tree(cache) == [DB, NEW_WEB]


def test_another_fingerprint_empties_the_cache(path: Path) -> None:
    """Documents made by another version of the program are not used."""
    first = BlobCache(path, "1")
    first.replace([WEB], [])
    first.close()
    second = BlobCache(path, "2")
    assert tree(second) == []
    assert second.lookup([WEB[:2]]) == {}
    assert second.replaced == 0


@pytest.mark.parametrize("page", [1, 2, 4])
def test_a_damaged_file_is_replaced_and_counted(path: Path, page: int) -> None:
    """A cache with a broken header, a broken page or plain nonsense starts again empty, and works."""
    first = BlobCache(path, "1")
    first.replace([(f"routes/shop/{n}.yaml", "a" * 40, b"x" * 900) for n in range(100)], [])
    first.close()
    overwrite_from(path, page)
    second = BlobCache(path, "1")
    assert tree(second) == []
    assert second.replaced == 1
    second.replace([WEB], [])
    assert tree(second) == [WEB]


def test_a_changed_row_is_noticed(path: Path) -> None:
    """A document that does not match its checksum is never handed out."""
    first = BlobCache(path, "1")
    first.replace([WEB, DB], [])
    first.close()
    connection = sqlite3.connect(path)
    connection.execute("UPDATE entries SET document = ? WHERE path = ?", (b'{"web":9}', WEB[0]))
    connection.commit()
    connection.close()
    second = BlobCache(path, "1")
    assert tree(second) == []
    assert second.replaced == 1


def test_a_path_that_is_not_utf8_is_left_out(path: Path) -> None:
    """Undecodable paths name no object; they are skipped and disturb nothing."""
    cache = BlobCache(path, "1")
    odd = ("routes/\udcff.yaml", "d" * 40, b"{}")
    cache.replace([odd, WEB], [])
    cache.replace([odd], ["\udcfe"])
    cache.store([odd])
    assert tree(cache) == [WEB]
    assert cache.lookup([odd[:2], WEB[:2]]) == {WEB[:2]: WEB[2]}
    assert cache.failures == 0


def test_a_file_deleted_while_in_use_costs_no_error(path: Path) -> None:
    """The cache goes on without its file."""
    cache = BlobCache(path, "1")
    cache.replace([WEB], [])
    path.unlink()
    cache.replace([NEW_WEB], [])
    assert tree(cache) == [NEW_WEB]


def test_an_unusable_place_is_counted_and_never_raised(tmp_path: Path) -> None:
    """Where no file can be made every call answers as if the cache were empty."""
    (tmp_path / "file").write_text("")
    cache = BlobCache(tmp_path / "file" / "cache.db", "1")
    cache.replace([WEB], [])
    assert tree(cache) == []
    assert cache.failures == 2
    assert "cache.db" in cache.last_failure


def test_many_pairs_are_looked_up_in_one_call(path: Path) -> None:
    """A lookup of more pairs than fit one query finds each of them."""
    rows = [(f"routes/shop/{n}.yaml", f"{n:040x}", str(n).encode()) for n in range(1_000)]
    cache = BlobCache(path, "1")
    cache.replace(rows, [])
    assert cache.lookup([row[:2] for row in rows]) == {row[:2]: row[2] for row in rows}


def test_overwriting_a_page_is_what_it_says(path: Path) -> None:
    """The tool of these tests changes exactly one page."""
    path.write_bytes(bytes(3 * PAGE))
    overwrite_page(path, 2)
    assert path.read_bytes() == bytes(PAGE) + b"\xa5" * PAGE + bytes(PAGE)
