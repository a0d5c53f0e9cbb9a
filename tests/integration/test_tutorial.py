"""docs/tutorial.md, word for word; only the ports are others, because those of the page may be taken."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

from tests.support.orphans import tied
from tests.support.parts import require
from tests.support.ports import free_port

PAGE: Final = Path(__file__).parents[2] / "docs" / "tutorial.md"
PORTS: Final = ("8000", "8443", "27018", "8080", "7300", "9000")


def script() -> str:
    """The page's commands with other ports, each block begun with its number; ``plan`` exits 2 where it should."""
    blocks = re.findall(r"^```bash\n(.*?)^```", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    ports = {old: str(free_port()) for old in PORTS}
    text = "".join(f'echo "=== {number}"\n{block}' for number, block in enumerate(blocks, 1))
    text = re.sub(r"\b(?:" + "|".join(PORTS) + r")\b", lambda found: ports[found[0]], text)
    text = re.sub(r"^cloudlunacy plan .*$", r"\g<0> || [ $? = 2 ]", text, flags=re.MULTILINE)
    # the state repo that init writes names 8080, and so does the rendered file: both before anything is changed in them
    route, api = ports["8080"], "8080"
    text = text.replace(f"s/port: {route}/", f"s/port: {api}/")
    return text.replace(
        "traefik --configfile",
        f"sed -i 's/127.0.0.1:8080/127.0.0.1:{route}/' rendered/traefik.yml\ntraefik --configfile",
    )


def test_the_tutorial_works_as_it_is_written(tmp_path: Path) -> None:
    """Its blocks run one after the other: the route answers, also through the mistake, and the last commit is live."""
    traefik = require("traefik")
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    program = bin_folder / "cloudlunacy"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m reconciler "$@"\n')
    program.chmod(0o755)
    (tmp_path / "work").mkdir()
    environment = os.environ | {
        "PATH": f"{bin_folder}:{traefik.parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(PAGE.parents[1]),
    }
    ending = "trap 'kill -KILL $(jobs -p); wait' EXIT\n"
    done = subprocess.run(
        tied(["bash", "-euo", "pipefail", "-c", f"{ending}{script()}"]),
        cwd=tmp_path / "work",
        env=environment,
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )
    logs = "".join(path.read_text()[-2000:] for path in sorted(tmp_path.glob("work/*.log")))
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{logs}"
    _, *parts = re.split(r"^=== \d\n", done.stdout, flags=re.MULTILINE)
    assert len(parts) == 6
    assert "Converged" in parts[2]
    assert "vps-1" in parts[3]
    assert parts[4].endswith("hello from vps-1\n")
    assert "unknown-agent" in parts[5]
    assert "hello from vps-1" in parts[5]
    assert parts[5].count("Converged") == 2
