"""``make bench``: measure every row, print the table, write it as JSON. ``ROWS=commit,idle`` picks rows.

Each row runs in a process of its own, in a directory of its own, and measures both of its sides in turns.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from bench.table import as_table, with_table

README: Final = Path(__file__).parent / "README.md"
RESULTS: Final = README.parent / "results"
ROWS: Final[dict[str, str]] = {
    "commit": "bench.commit:measure_commit",
    "rerender": "bench.commit:measure_rerender",
    "idle": "bench.commit:measure_idle",
    "starts": "bench.starts:measure_starts",
    "served": "bench.served:measure_served",
    "enrolments": "bench.enrolments:measure_enrolments",
    "one": "bench.fleet:measure_one",
    "fanout": "bench.fleet:measure_fan_out",
    "memory": "bench.fleet:measure_memory_per_agent",
    "pages": "bench.pages:measure_pages",
    "history": "bench.history:measure_history",
    "deployments": "bench.deployments:measure_deployments",
}
SECONDS: Final = 600
"""Most that one row may take."""


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("rows", nargs="*", help=f"of {', '.join(ROWS)} (default: all)", metavar="ROW")
    parser.add_argument("--out", type=Path, default=RESULTS / "latest.json", help="default: %(default)s")
    parser.add_argument(
        "--record", action="store_true", help="also put the table into bench/README.md and keep the JSON under its date"
    )
    parser.add_argument("--measure", metavar="ROW", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.measure:
        return _measure(options.measure)
    names = [name for part in options.rows for name in part.split(",")] or list(ROWS)
    unknown = [name for name in names if name not in ROWS]
    if unknown:
        parser.error(f"no such row: {', '.join(unknown)}; there are {', '.join(ROWS)}")
    results: list[dict[str, Any]] = []
    failed = False
    for name in names:
        began = time.monotonic()
        print(f"measuring {name} …", file=sys.stderr, end=" ", flush=True)
        rows = _in_a_process(name)
        print(f"{time.monotonic() - began:.0f} s", file=sys.stderr)
        failed |= rows is None
        results += rows or []
    print(as_table(results))
    machine = _machine()
    text = json.dumps({"machine": machine, "rows": results}, indent=2) + "\n"
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(text, encoding="utf-8")
    if options.record:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{machine['date']}.json").write_text(text, encoding="utf-8")
        README.write_text(with_table(README.read_text(encoding="utf-8"), machine, results), encoding="utf-8")
    return int(failed)


def _in_a_process(name: str) -> list[dict[str, Any]] | None:
    """Run one row; None when it failed, which it says on stderr."""
    command = [sys.executable, "-m", "bench", "--measure", name]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as process:
        try:
            said, _ = process.communicate(timeout=SECONDS)
        except subprocess.TimeoutExpired:
            print(f"it took more than {SECONDS} s;", file=sys.stderr, end=" ")
            return None
        finally:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)  # a Traefik or a control plane that a failure left behind
    if process.returncode != 0:
        return None
    rows: list[dict[str, Any]] = json.loads(said)
    return rows


def _measure(name: str) -> int:
    module, _, function = ROWS[name].partition(":")
    # git must find nothing of the user's: a signing key or a hook would be measured too
    os.environ |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    os.environ |= {f"GIT_{who}_{what}": value for who in ("AUTHOR", "COMMITTER") for what, value in _WHO.items()}
    with tempfile.TemporaryDirectory(prefix="cloudlunacy-bench-") as folder:
        rows = getattr(importlib.import_module(module), function)(Path(folder))
    print(json.dumps([{**asdict(row), "hit": row.hit} for row in rows]))
    return 0


_WHO: Final = {"NAME": "Bench", "EMAIL": "bench@example.test"}


def _machine() -> dict[str, Any]:
    """Describe the machine in general words."""
    git = subprocess.run(["git", "--version"], capture_output=True, text=True, check=True).stdout.split()[2]
    return {
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "git": git,
        "load": round(os.getloadavg()[0], 2),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
