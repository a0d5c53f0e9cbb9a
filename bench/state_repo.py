"""State repositories of any size, the same each time: teams, agents, deployments and routes as people write them."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

TEAM_SIZE: Final = 400
"""Objects of a team, of which one in five is a deployment and the others are routes."""
AGENTS_SHARE: Final = 20
"""One object in so many is an agent."""
DOMAIN: Final = "cloudlunacy.test"

Files = dict[str, str]


def tree(objects: int, *, routes_only: bool = False) -> Files:
    """Return path → text of a state repo with exactly this many objects.

    ``routes_only``: as few other objects as possible, so that ``objects`` counts routes.
    """
    agents = 10 if routes_only else max(10, objects // AGENTS_SHARE)
    left = objects if routes_only else objects - agents - 1
    teams = [f"team-{number:03d}" for number in range(-(-left // TEAM_SIZE))]
    files = {"fleet.yaml": fleet(teams)}
    files |= {f"agents/vps-{number}.yaml": agent(number) for number in range(agents)}
    for number in range(left):
        team, index = teams[number // TEAM_SIZE], number % TEAM_SIZE
        if index % 5 == 4 and not routes_only:
            files[f"deployments/{team}/app-{index}.yaml"] = deployment(team, index, number, agents)
        else:
            files[route_path(number)] = route(number, agents=agents)
    return files


def route_path(number: int) -> str:
    return f"routes/team-{number // TEAM_SIZE:03d}/web-{number % TEAM_SIZE}.yaml"


def route(number: int, *, agents: int, average: int = 100) -> str:
    """Return a route's file; another ``average`` is the change of a commit."""
    team, index = f"team-{number // TEAM_SIZE:03d}", number % TEAM_SIZE
    return f"""\
# What {team} serves at web-{index}.
apiVersion: cloudlunacy/v1
kind: Route
metadata:
  name: web-{index}
  labels: {{tier: front, owner: {team}}}
spec:
  type: http
  hostnames: [web-{index}.{team}.{DOMAIN}]
  paths:
    - prefix: /
  backends:
    - {{agent: vps-{number % agents}, port: {2000 + index}, weight: 3}}
    - {{agent: vps-{(number + 1) % agents}, port: {2000 + index}, weight: 1}}
  healthCheck: {{path: /healthz, interval: 30s}}
  tls: {{mode: none}}
  middlewares:
    - headers:
        request: {{X-Team: {team}}}
        response: {{X-Frame-Options: DENY}}
    - rateLimit: {{average: {average}, burst: 200}}
"""


def fleet(teams: Iterable[str]) -> str:
    """Return the fleet's file: each team owns what is below its own name."""
    lines = "".join(
        f'    - name: {team}\n      hostnames: ["*.{team}.{DOMAIN}"]\n      agentSelector: {{pool: shared}}\n'
        for team in teams
    )
    return f"""\
apiVersion: cloudlunacy/v1
kind: Fleet
metadata: {{name: bench}}
spec:
  domain: {DOMAIN}
  registration: {{mode: commit, agentsPerHour: 100000}}
  teams:
{lines}"""


def agent(number: int) -> str:
    """Return an agent's file, its ``spec`` last."""
    return f"""\
apiVersion: cloudlunacy/v1
kind: Agent
metadata:
  name: vps-{number}
  labels: {{pool: shared, region: {"ams" if number % 2 else "fra"}}}
spec:
  address: 10.{number // 62500}.{number // 250 % 250}.{number % 250 + 1}
  capabilities: [container, process, mongodb]
"""


def deployment(team: str, index: int, number: int, agents: int) -> str:
    """Return a deployment's file; ``number`` says on which of the agents it runs."""
    return f"""\
# Runs what {team} calls app-{index}.
apiVersion: cloudlunacy/v1
kind: Deployment
metadata:
  name: app-{index}
spec:
  type: container
  agents: [vps-{number % agents}]
  image: {team}/app-{index}:1.4.2
  ports:
    - {{container: 8080, host: {10000 + number}}}
  env: {{GREETING: hello, LOG_LEVEL: info}}
  resources: {{memory: 128Mi, cpus: 0.5}}
  healthCheck:
    http: {{path: /, port: 8080}}
    interval: 5s
"""


class BareRepo:
    """The remote: a bare repository on the same disk, written by ``git fast-import``."""

    def __init__(self, path: Path, files: Mapping[str, str]) -> None:
        self.path = path
        self._commits = 0
        git("init", "--quiet", "--bare", "--initial-branch=main", path)
        self.push(files)
        git("-C", path, "repack", "-a", "-d", "--quiet")

    def push(self, files: Mapping[str, str]) -> str:
        """Commit ``files`` on top of the branch; return the revision."""
        self._commits += 1
        stream = b"".join(self._stream(files))
        git("-C", self.path, "fast-import", "--quiet", stdin=stream)
        return self.head()

    def revisions(self, number: int) -> list[str]:
        """Return the newest commits, newest first."""
        return git("-C", self.path, "rev-list", "-n", str(number), "refs/heads/main").split("\n")

    def head(self) -> str:
        return git("-C", self.path, "rev-parse", "refs/heads/main")

    def _stream(self, files: Mapping[str, str]) -> Iterator[bytes]:
        who = f"Bench <bench@example.test> {1_750_000_000 + self._commits} +0000"
        yield f"commit refs/heads/main\ncommitter {who}\ndata 6\nChange".encode()
        if self._commits > 1:
            yield b"\nfrom refs/heads/main^0"
        for path, text in files.items():
            content = text.encode()
            yield b"\nM 100644 inline %b\ndata %d\n%b" % (path.encode(), len(content), content)
        yield b"\n"


def git(*arguments: str | Path, stdin: bytes | None = None) -> str:
    """Run git as anybody would; return what it prints."""
    finished = subprocess.run(["git", *arguments], input=stdin, capture_output=True, check=True)
    return finished.stdout.decode().strip()
