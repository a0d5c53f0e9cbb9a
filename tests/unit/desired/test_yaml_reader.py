"""What a file may hold, and that no file can do more harm than be refused."""

from __future__ import annotations

import random
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from reconciler.desired.yaml_reader import MAX_BYTES, Unreadable, read_mapping

ROOT: Final = Path(__file__).parents[3]
MEMORY: Final = 1 << 30
"""Bytes of address space for a process that reads hostile files."""
SECONDS: Final = 60


def refusal(content: bytes) -> Unreadable:
    with pytest.raises(Unreadable) as caught:
        read_mapping(content)
    return caught.value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("country: no", {"country": "no"}),
        ("a: yes", {"a": "yes"}),
        ("a: on", {"a": "on"}),
        ("a: true", {"a": True}),
        ("a: ~", {"a": None}),
        ("a: 2020-01-01", {"a": "2020-01-01"}),
        ("a: 12:30:45", {"a": "12:30:45"}),
        ("a: 010", {"a": 10}),
        ("a: 0o10", {"a": 8}),
        ("a: 0x1F", {"a": 31}),
        ("a: 1e3", {"a": 1000.0}),
        ("a: 18446744073709551616", {"a": 2**64}),
        ("a: .inf", {"a": float("inf")}),
        ("a: <<", {"a": "<<"}),
        ("<<: {b: 1}", {"<<": {"b": 1}}),
        ("--- {a: 1}", {"a": 1}),
        ("a: 50%", {"a": "50%"}),
        ("a: x ! y & z * w", {"a": "x ! y & z * w"}),
        ('a: "*.app.test"\nb: R&D', {"a": "*.app.test", "b": "R&D"}),
        ("\ufeffa: é", {"a": "é"}),
        ("a: 1\r\nb: 2\r\n", {"a": 1, "b": 2}),
    ],
)
def test_values_are_those_of_yaml_1_2(text: str, value: dict[str, Any]) -> None:
    """No word becomes a boolean, no date a date, and a merge key is a key like any other."""
    assert read_mapping(text.encode()) == value


@pytest.mark.parametrize(
    ("content", "code", "position"),
    [
        (b"", "empty-file", (1, 1)),
        (b"# nothing\n\n# here\n", "empty-file", (1, 1)),
        (b"a", "not-a-mapping", (1, 1)),
        (b"- a", "not-one-document", (1, 1)),
        (b"a: 1\n---\nb: 2", "not-one-document", (1, 1)),
        (b"---\n" * 16_000, "not-one-document", (1, 1)),
        (b"a: 1\nb: \xff", "invalid-utf-8", (2, 4)),
        (b"\xff\xfea\x00:\x00", "invalid-utf-8", (1, 1)),
        (b"a: \xed\xa0\x80", "invalid-utf-8", (1, 4)),
        (b"a: b\x00", "control-character", (1, 5)),
        (b"a: \x1b[31m", "control-character", (1, 4)),
        ("a: 1\nb: x\x85y".encode(), "control-character", (2, 5)),
        ("a: \u202e".encode(), "control-character", (1, 4)),
        ("a: \u2028".encode(), "control-character", (1, 4)),
        (b"a: [1, 2", "yaml-syntax", (1, 4)),
        (b"a:\n\tb: 1", "yaml-syntax", (2, 2)),
        (b'a: "\\ud800"', "yaml-syntax", (1, 4)),
        (b"a: *nobody", "yaml-syntax", (1, 4)),
        (b"a: &x 1\nb: *x", "unsupported-yaml", (2, 4)),
        (b"a: &x {b: *x}", "unsupported-yaml", (1, 11)),
        (b"a: &x [*x]", "unsupported-yaml", (1, 8)),
        (b"a: &x {b: 1}\nc:\n  <<: *x", "unsupported-yaml", (3, 7)),
        (b"a: !foo b", "unsupported-yaml", (1, 4)),
        (b"a: !!python/object:os.system x", "unsupported-yaml", (1, 4)),
        (b"a: !!set {x, y}", "unsupported-yaml", (1, 4)),
        (b"a: !<tag:yaml.org,2002:set> {x}", "unsupported-yaml", (1, 4)),
        (b"a: &x !foo b", "unsupported-yaml", (1, 7)),
        (b"a: [1, !foo b]", "unsupported-yaml", (1, 8)),
        (b"--- !foo\na: 1", "unsupported-yaml", (1, 5)),
        (b"%YAML 1.1\n---\na: no", "unsupported-yaml", (1, 1)),
        (b"a: 1\na: 2", "duplicate-key", (1, 1)),
        (b'"a": 1\n"\\x61": 2', "duplicate-key", (1, 1)),
        (b"a: {b: 1, b: 2}", "duplicate-key", (1, 1)),
        (b"a:\n- b: 1\n  b: 2", "duplicate-key", (1, 1)),
        (b"? a\n: 1\n? a\n: 2", "duplicate-key", (1, 1)),
        (b"- " * 16 + b"a", "too-deep", (1, 1)),
        (b"a:\n  " + b"? " * 16, "too-deep", (2, 3)),
        (b"a: " + b"- \t?  :\t" * 6, "too-deep", (1, 2)),
        (b"a: " + b"[" * 300 + b"]" * 300, "too-deep", (1, 259)),
        (b"a:\n" + b"\n".join(b" " * depth + b"b:" for depth in range(1, 120)), "too-deep", (101, 1)),
        (b"a: " + b"x" * MAX_BYTES, "file-too-large", (1, 1)),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "lfs-pointer", (1, 1)),
    ],
)
def test_what_is_refused_has_a_code_and_a_place(content: bytes, code: str, position: tuple[int, int]) -> None:
    """Each kind of unreadable file is told apart, and points at the line where that is known."""
    refused = refusal(content)
    assert (refused.code, refused.position) == (code, position)


def test_a_line_of_64_kib_is_read() -> None:
    """The limit is the file's size, not a line's."""
    value = "x" * (MAX_BYTES - 3)
    assert read_mapping(b"a: " + value.encode()) == {"a": value}


def test_marks_in_a_row_are_no_depth() -> None:
    """A line of dashes, as people draw them in comments, nests nothing."""
    assert read_mapping(b"# " + b"- " * 15 + b"\n# " + b"-" * 40 + b"\na: b # " + b"?" * 20 + b"\n") == {"a": "b"}


def test_every_refusal_is_a_sentence_without_the_parsers_drawing() -> None:
    """The message is one line."""
    for content in (b"a: [", b"a: \x00", b"a: 1\na: 2", b"a: b: c", b"'"):
        refused = refusal(content)
        assert "\n" not in refused.message
        assert refused.message[0].isalpha()


def _limited() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _read_elsewhere(maker: Callable[[], list[bytes]], tmp_path: Path) -> None:
    """Read each file in a process with little memory and time, so that a crash fails the test and does not end it."""
    for number, content in enumerate(maker()):
        Path(tmp_path, f"{number:04}").write_bytes(content[:MAX_BYTES])
    program = """
import pathlib, sys, time
from reconciler.desired.parse import parse_file
from reconciler.desired.locate import positions
for file in sorted(pathlib.Path(sys.argv[1]).iterdir()):
    content, start = file.read_bytes(), time.process_time()
    print(file.name, content[:60], end=" ", flush=True)
    parsed = parse_file("routes/shop/web.yaml", "", content)
    assert parsed.findings and len(positions(content, parsed.findings)) == len(parsed.findings)
    took = time.process_time() - start
    assert took < 3, took
    print(parsed.findings[0].code, flush=True)
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        preexec_fn=_limited,
        timeout=2 * SECONDS,
        check=False,
    )
    assert done.returncode == 0, f"{done.returncode}: {done.stdout[-200:]} {done.stderr[-500:]}"


def _nastiest() -> list[bytes]:
    many = MAX_BYTES
    bomb = b"a0: &a0 x\n" + b"".join(b"a%d: &a%d [*a%d, *a%d]\n" % (n, n, n - 1, n - 1) for n in range(1, 60))
    units = [
        b"- ",
        b"-\t",
        b"? ",
        b": ",
        b"- ? ",
        b"[",
        b"{",
        b"[{",
        b"[? ",
        b"{a: ",
        b"{? ",
        b"&a ",
        b"&a - ",
        b"!a ",
        b"*a ",
    ]
    units += [
        b"a: ",
        b"- a: ",
        b"|\n",
        b">\n ",
        b"'",
        b'"',
        b"\n",
        b"\r",
        b"#\n",
        b"--- ",
        b"---\n",
        b"...\n",
        b",",
        b"<<: ",
        b"\\",
    ]
    flat = b"".join(b"k%d: {a: [1, 2, 3]}\n" % number for number in range(3000))
    steps = b"a:\n" + b"\n".join(b" " * depth + b"- " * 15 for depth in range(1, 99))
    return [
        bomb,
        *(head + unit * (many // len(unit)) for unit in units for head in (b"", b"a:\n  ", b"a: 1\na: 2\nb: ")),
        *(b"a: " + b"[" * depth + b"]" * depth for depth in (200, 250, 254, 255, 256, 30_000)),
        *(b"a:\n " + b"- " * depth + b"[" * 250 + b"]" * 250 for depth in (1, 14, 15)),
        steps,
        steps + b"[" * 250 + b"]" * 250,
        flat,
        flat + b"k0: 1\n",
        b"a: 1\na: 2\n" + b"".join(b"k%d: " % number + b"[" * 250 + b"]" * 250 + b"\n" for number in range(100)),
        b"".join(b"x%d: 1\n" % number for number in range(7000)),
        b"apiVersion: cloudlunacy/v1\nkind: Route\nmetadata: {name: web}\nspec: {"
        + b", ".join(b"x%d: 1" % number for number in range(5000))
        + b"}",
        b"apiVersion: cloudlunacy/v1\nkind: " + b"9" * 60_000,
        b"apiVersion: cloudlunacy/v1\nkind: Route\nmetadata: {name: " + b"9" * 60_000 + b"}\nspec: {}",
        b"apiVersion: cloudlunacy/v1\nkind: Route\nmetadata: {name: web}\nspec: {" + b"y" * 60_000 + b": 1}",
        b"apiVersion: cloudlunacy/v1\nkind: Route\nmetadata: {name: web, labels: {1: a, null: b, [a]: c}}\nspec: {}",
        b"apiVersion: cloudlunacy/v1\nkind: Route\nmetadata: {name: web}\nspec: {paths: .nan}\n1: 2",
    ]


def test_the_nastiest_files_are_refused_in_bounded_time_and_memory(tmp_path: Path) -> None:
    """Depth in every style, bombs, endless tokens and floods of wrong fields neither crash nor stall the parser."""
    _read_elsewhere(_nastiest, tmp_path)


def _mutants(seed: int) -> list[bytes]:
    """Random heaps of what gives YAML its structure."""
    generator = random.Random(seed)
    tokens = [
        "- ",
        "? ",
        ": ",
        "\n",
        " ",
        "  ",
        "[",
        "{",
        "]",
        "}",
        ",",
        "&a ",
        "*a",
        "!t ",
        "a",
        "a: ",
        "'",
        '"',
        "|\n",
    ]
    tokens += [">\n", "# ", "---\n", "<<: ", "\t", "\r\n", "\r", "&a - ", "\\", "\n ", "\n   ", "é", "%", "@", "1e9"]
    files = []
    for _ in range(400):
        units = ["".join(generator.choices(tokens, k=generator.randint(1, 4))) for _ in range(3)]
        files.append("".join(generator.choices(units, k=generator.choice([5, 50, 3000]))).encode())
    return files


@pytest.mark.parametrize("seed", [1, 2])
def test_random_structure_never_ends_the_parser(seed: int, tmp_path: Path) -> None:
    """Repeated heaps of structural characters are refused, whatever they are."""
    _read_elsewhere(lambda: _mutants(seed), tmp_path)
