"""Brings the fleet up: state repo and keys, machines, control plane, agents, until everything has converged."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from reconciler.commands.client import Client, Target, local_target
from reconciler.commands.demo import deployments, parts
from reconciler.commands.demo.folder import Folder, shown, write_secret
from reconciler.commands.demo.ports import BEHIND, FRONT, Ports, choose_ports, taken
from reconciler.commands.demo.programs import Programs
from reconciler.commands.demo.state_repo import StateRepo, htpasswd
from reconciler.commands.demo.supervisor import Supervisor
from reconciler.commands.evaluate import judge
from reconciler.commands.status_command import look, wait
from reconciler.commands.tree import read_directory
from reconciler.desired.render import Renderer
from reconciler.errors import Broken
from reconciler.pki.keystore import KeyStore
from reconciler.traefik.static import static_configuration
from reconciler.traefik.templates import load_templates
from schemas.api import AgentList
from schemas.status import RevisionStatus

ADMIN = "admin"
"""User of the route that asks for a password."""


@dataclass(frozen=True, slots=True)
class Memory:
    """What outlives one run, for ``--keep``: ports, and the passwords that the screen shows."""

    ports: Ports
    admin_password: str = field(repr=False)
    database_password: str = field(repr=False)

    def save(self, folder: Folder) -> None:
        write_secret(
            folder.memory,
            json.dumps(
                {
                    "front": dict(self.ports.front),
                    "behind": [[usual, port] for usual, port in self.ports.behind.items()],
                    "adminPassword": self.admin_password,
                    "databasePassword": self.database_password,
                }
            ),
        )

    @classmethod
    def load(cls, folder: Folder) -> Memory:
        """Read it.

        Raises:
            Broken: when it is damaged, or one of its ports is taken.
        """
        try:
            said: dict[str, Any] = json.loads(folder.memory.read_text(encoding="utf-8"))
            front = {name: int(said["front"][name]) for name in FRONT}
            behind = {int(usual): int(port) for usual, port in said["behind"]}
            memory = cls(Ports(front, behind), str(said["adminPassword"]), str(said["databasePassword"]))
        except (OSError, ValueError, KeyError, TypeError):
            raise Broken(f"{folder.memory} is damaged.", hint="Start anew, without --keep.") from None
        if set(behind) != set(BEHIND):
            raise Broken(f"{folder.root} is of another version.", hint="Start anew, without --keep.")
        if in_use := taken(memory.ports):
            raise Broken(
                f"port {in_use[0]}, which the kept demo uses, is taken.", hint="Free it, or start without --keep."
            )
        return memory


class Demo:
    """A fleet that is coming up, or up."""

    def __init__(
        self,
        folder: Folder,
        programs: Programs,
        supervisor: Supervisor,
        *,
        usual_ports: bool = True,
        progress: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.folder = folder
        self.programs = programs
        self.supervisor = supervisor
        self.repo = StateRepo(folder, programs.git)
        self._usual_ports = usual_ports
        self._progress = progress
        self._began = time.monotonic()
        self._resumed = False
        """Somebody worked here before, so its newest revision need not be a good one."""
        self.memory: Memory

    @property
    def ports(self) -> Ports:
        return self.memory.ports

    @property
    def target(self) -> Target:
        """How to reach the control plane, once it is up."""
        return local_target(self.folder.data)

    def bring_up(self) -> RevisionStatus:
        """Start everything; return the record of the newest revision, converged.

        Raises:
            Broken, Interrupted
        """
        self._prepare()
        self._write_static()
        self._start(parts.traefik(self.folder, self.ports, self.programs.traefik))
        self._start(parts.control_plane(self.folder, self.ports, self.programs))
        self._enrol()
        self._start_agents()
        status = self.wait_settled(self.repo.head())
        if not self._resumed:
            require_converged(status)
        self._say(f"revision {status.revision[:12]} is {status.state}, generation {status.generation}")
        return status

    def wait_settled(self, revision: str) -> RevisionStatus:
        """Wait as ``cloudlunacy status --wait`` does.

        Raises:
            Broken: when the control plane does not look at it in time.
            Interrupted
        """
        with Client(self.target) as client:

            def look_and_check() -> RevisionStatus | None:
                self.supervisor.check()
                return look(client, revision)

            status = wait(look_and_check, self.supervisor.seconds_left, show_progress=False)
        if status is None:
            raise Broken(f"the control plane never looked at revision {revision[:12]}.")
        return status

    # --- steps --------------------------------------------------------------------------------------------------

    def _prepare(self) -> None:
        if self.folder.memory.exists():
            self.memory = Memory.load(self.folder)
            self._resumed = True
            self._say(f"going on with {shown(self.folder.root)}")
            return
        if self.folder.work.exists():
            raise Broken(f"{self.folder.root} was never finished.", hint="Start anew, without --keep.")
        ports = choose_ports(usual=self._usual_ports)
        memory = self.memory = Memory(ports, secrets.token_urlsafe(9), secrets.token_urlsafe(9))
        if self._usual_ports:
            for notice in ports.notices():
                self._say(notice)
        write_secret(self.folder.webhook_secret, secrets.token_urlsafe(32))
        self.repo.create(
            moved=ports.moved,
            recipient=KeyStore(self.folder.data / "keys").recipient(),
            values={
                "admin.users": htpasswd(ADMIN, memory.admin_password),
                "orders-database.password": memory.database_password,
            },
            webhook=f"{ports.url('control plane')}/webhooks/git",
            ca=self.folder.ca,
            without=deployments.left_out(self.programs),
        )
        memory.save(self.folder)
        self._say(f"state repo: {shown(self.folder.remote)}, clone to edit: {shown(self.folder.work)}")

    def _write_static(self) -> None:
        """Write what ``cloudlunacy render`` recommends, with the demo's addresses."""
        fleet = judge(read_directory(self.folder.work)).settled.state.fleet
        if fleet is None:
            raise Broken(f"{self.folder.work}/fleet.yaml is not valid.", hint="Mend it, or start without --keep.")
        text = static_configuration(
            Renderer(load_templates()),
            fleet,
            self.folder.dynamic.parent,
            addresses={name: self.ports.address(name) for name in FRONT if name not in ("traefik", "control plane")},
            api_address=self.ports.address("traefik"),
        )
        self.folder.static.write_text(text, encoding="utf-8")

    def _start(self, *wanted: parts.Part) -> None:
        self.supervisor.start(*wanted)
        for part in wanted:
            self._say(part.what)

    def _enrol(self) -> None:
        """Let each agent enrol as on a server of its own: with a one-time token, which no argument shows."""
        with Client(self.target) as client:
            known = {one.name for one in self._agents(client).agents if one.enrolled}
            new = [name for name in parts.AGENTS if name not in known or not self.folder.agent(name).exists()]
            tokens = {name: client.post("/enrolment-tokens", {"agent": name, "ttl": "5m"})["token"] for name in new}
        if new:
            ca_sha256 = self.target.trust.fingerprint
            jobs = [parts.enrolment(self.folder, self.ports, name, str(tokens[name]), ca_sha256) for name in new]
            self.supervisor.finish(*jobs)
            self._say(f"{' and '.join(new)} have enrolled, with a commit each")
            self.repo.pull()

    def _start_agents(self) -> None:
        for name in parts.AGENTS:
            settings = deployments.agent_settings(self.folder, self.programs)
            write_secret(self.folder.agent(name) / "agent.toml", settings)  # nobody else may write it either
        if self.programs.unconfined:
            self._say(f"what agents run is not confined: {self.programs.unconfined}")
        if self.programs.mongod is None:
            self._say(f"no MongoDB: {self.programs.no_mongod}")
        with Client(self.target) as client:

            def is_settled(name: str) -> bool:
                found = [one for one in self._agents(client).agents if one.name == name]
                return any(one.connected and one.applied_generation >= one.wanted_generation > 0 for one in found)

            self._start(*(parts.agent(self.folder, name, is_settled) for name in parts.AGENTS))

    @staticmethod
    def _agents(client: Client) -> AgentList:
        return AgentList.model_validate(client.get("/agents", limit=1000))

    def _say(self, text: str) -> None:
        self._progress(f"{time.monotonic() - self._began:5.1f} s  {text}")


def require_converged(status: RevisionStatus) -> None:
    """Raise Broken, with the reason and every problem, when the revision is anything but converged."""
    if status.state != "Converged":
        problems = "".join(f"\n    {problem}" for problem in status.quarantined)
        raise Broken(f"revision {status.revision[:12]} is {status.state}, {status.reason}: {status.message}{problems}")
