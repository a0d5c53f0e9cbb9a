"""The deployments that the demo adds to the example: small apps at the ports to which the example's routes lead.

The example's own are changed where they could not run here: its container becomes the same app.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from reconciler.commands.demo import apps
from reconciler.commands.demo.folder import Folder
from reconciler.commands.demo.programs import Programs

API_PORT: Final = 8091
_PYTHON: Final = "/usr/bin/python3"
"""In the example."""
_TEXT: Final = """\
# yaml-language-server: $schema=../../.cloudlunacy/schemas/deployment.json
# An app of the demo: it answers with what reached it. The agent gives it its port in the variable PORT.
apiVersion: cloudlunacy/v1
kind: Deployment
metadata:
  name: {name}
spec:
  type: process
  agents: [{agent}]
  command: {command}
  env: {{GREETING: hello}}
  ports:
    - {{name: main, container: {port}, host: {port}}}
  healthCheck:
    {check}
    interval: 5s
  rollout: {{strategy: {strategy}, deadline: 1m}}
  stopGrace: 3s
"""


@dataclass(frozen=True, slots=True)
class App:
    team: str
    name: str
    agent: str
    port: int
    """In the example; another one may stand in for it."""
    tcp: bool = False


APPS: Final = (
    App("shop", "web", "vps-1", 8081),
    App("shop", "admin", "vps-2", 8082),
    App("analytics", "reports", "vps-1", 8083),
    App("analytics", "notebooks", "vps-2", 8084),
    App("analytics", "events-one", "vps-1", 9101, tcp=True),
    App("analytics", "events-two", "vps-2", 9102, tcp=True),
)


def python() -> tuple[str, ...]:
    """Return how agents begin an app: by the interpreter that runs the demo, without what is installed beside it."""
    return (str(Path(sys.executable).resolve()), "-I", "-S", "-u")


def readable(folder: Folder) -> tuple[str, ...]:
    """Return what confined apps have to read besides the system."""
    return (str(folder.apps), sys.base_prefix)


def agent_settings(folder: Folder, programs: Programs) -> str:
    """Return the ``agent.toml`` of each agent: no containers, and programs confined wherever this machine can."""
    lines = [
        'engine = "off"',
        "[processes]",
        f"readable = [{', '.join(json.dumps(path) for path in readable(folder))}]",
        f"unconfined = {'true' if programs.unconfined else 'false'}",
    ]
    if programs.mongod is not None:
        lines.append(f"mongod = {json.dumps(str(programs.mongod))}")
    return "\n".join([*lines, ""])


def left_out(programs: Programs) -> tuple[str, ...]:
    """Return the files of the example that nothing here could run."""
    return () if programs.mongod is not None else ("deployments/shop/orders.yaml", "routes/shop/db.yaml")


def place_program(folder: Folder) -> None:
    """Put the apps' program where every user may read it."""
    folder.apps.mkdir(exist_ok=True)
    folder.apps.chmod(0o755)
    program = _program(folder)
    shutil.copyfile(apps.__file__, program)
    program.chmod(0o644)


def texts(folder: Folder) -> Mapping[str, str]:
    """Return the files that join the example, by their paths."""
    return {f"deployments/{app.team}/{app.name}.yaml": _text(folder, app) for app in APPS}


def run_here(folder: Folder) -> Mapping[str, Any]:
    """Return what changes in the example's own deployments: path → a function that changes the document."""
    return {
        "deployments/shop/api.yaml": lambda document: _as_process(document["spec"], folder),
        "deployments/analytics/collector.yaml": _with_our_python,
    }


def _text(folder: Folder, app: App) -> str:
    command = [*python(), str(_program(folder)), f"{app.agent}:{app.name}", *(["--tcp"] if app.tcp else [])]
    check = f"tcp: {{port: {app.port}}}" if app.tcp else f"http: {{path: /healthz, port: {app.port}}}"
    return _TEXT.format(
        name=app.name,
        agent=app.agent,
        port=app.port,
        command=_flow(command),
        check=check,
        strategy="recreate" if app.tcp else "blue-green",
    )


def _flow(words: list[str]) -> str:
    quoted = (word.replace("\\", "\\\\").replace('"', '\\"') for word in words)
    return "[" + ", ".join(f'"{word}"' for word in quoted) + "]"


def _as_process(spec: Any, folder: Folder) -> None:  # noqa: ANN401 - a document of ruamel's
    """There is no registry with its image, so the same port is answered by an app of the demo."""
    spec["type"] = "process"
    del spec["image"]
    spec["command"] = [*python(), str(_program(folder)), "vps-1:api"]
    spec["ports"][0]["container"] = spec["ports"][0]["host"] = API_PORT
    spec["healthCheck"]["http"]["port"] = API_PORT


def _with_our_python(document: Any) -> None:  # noqa: ANN401 - as above
    command = document["spec"]["command"]
    for index, word in enumerate(command):
        command[index] = word.replace(_PYTHON, python()[0])


def _program(folder: Folder) -> Path:
    return folder.apps / "app.py"
