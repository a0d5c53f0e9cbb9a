"""A real Traefik on free loopback ports, small backends, and a whole fake of what a compile step may ask."""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx

from reconciler.desired.lookup import SecretUnavailable
from reconciler.desired.overlay import NO_OVERLAY, Overlay
from reconciler.desired.render import Renderer
from reconciler.desired.routing import catch_all, compile_route, tls_entry_point
from reconciler.desired.traefik_model import Certificate, TraefikObject, marker_name
from reconciler.traefik.default_certificate import new_default_certificate
from reconciler.traefik.publish import FrontFile, Named
from reconciler.traefik.static import entry_point_names, static_configuration
from reconciler.traefik.templates import load_templates
from schemas.agent import Agent
from schemas.deployment import Deployment
from schemas.fleet import Fleet
from schemas.objects import ObjectKey
from schemas.route import Route
from tests.support.orphans import tied
from tests.support.parts import require
from tests.support.ports import free_port
from tests.support.waiting import wait_for

DOMAIN = "cloudlunacy.test"
DEFAULT_CERTIFICATE: Certificate = new_default_certificate()


def fleet(**spec: Any) -> Fleet:
    return Fleet.model_validate(_document("Fleet", "example", {"domain": DOMAIN, **spec}))


def agent(name: str = "vps-1", address: str = "127.0.0.1", **spec: Any) -> Agent:
    return Agent.model_validate(_document("Agent", name, {"address": address, **spec}))


def route(name: str = "web", **spec: Any) -> Route:
    return Route.model_validate(_document("Route", name, {"type": "http", **spec}))


def deployment(name: str = "web", **spec: Any) -> Deployment:
    return Deployment.model_validate(_document("Deployment", name, {"type": "container", "image": "web:1", **spec}))


def key(name: str = "web", team: str = "shop") -> ObjectKey:
    return ObjectKey("Route", team, name)


def _document(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "cloudlunacy/v1", "kind": kind, "metadata": {"name": name}, "spec": spec}


@dataclass
class FakeLookup:
    """Everything in memory; implements :class:`reconciler.desired.lookup.Lookup`."""

    fleet: Fleet = field(default_factory=fleet)
    agents: dict[str, Agent] = field(default_factory=dict)
    deployments: dict[tuple[str, str], Deployment] = field(default_factory=dict)
    secrets: dict[tuple[str, str, str], str] = field(default_factory=dict)

    def agent(self, name: str) -> Agent | None:
        return self.agents.get(name)

    def deployment(self, team: str, name: str) -> Deployment | None:
        return self.deployments.get((team, name))

    def agents_of(self, team: str, deployment: Deployment) -> tuple[Agent, ...]:
        return tuple(self.agents[name] for name in sorted(deployment.spec.agents) if name in self.agents)

    def open_secret(self, team: str, name: str, key: str) -> str:
        try:
            return self.secrets[team, name, key]
        except KeyError:
            raise SecretUnavailable(f'the secret "{name}" has no key "{key}"') from None


def lookup(*agents: Agent, **more: Any) -> FakeLookup:
    known = agents or (agent(),)
    return FakeLookup(agents={each.metadata.name: each for each in known}, **more)


class Backend:
    """An HTTP server that answers with JSON of what it was asked. ``status`` and ``answer_headers`` can be changed."""

    def __init__(self, name: str, tls: ssl.SSLContext | None = None, port: int = 0, host: str = "127.0.0.1") -> None:
        self.name = name
        self.status = 200
        self.healthy = True
        self.answer_headers: dict[str, str] = {}
        self.body = ""
        self.requests: list[str] = []
        backend = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                backend.requests.append(self.path)
                said = {"backend": backend.name, "path": self.path, "headers": dict(self.headers)}
                body = (backend.body or json.dumps(said)).encode()
                status = (200 if backend.healthy else 500) if self.path == "/health" else backend.status
                self.send_response(status)
                for name, value in backend.answer_headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Type", "text/plain")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                with suppress(OSError):
                    self.wfile.write(body)

            do_GET = do_POST = do_HEAD = answer  # noqa: N815 - http.server's names

            def log_message(self, *_: object) -> None:
                return

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: object, client_address: object) -> None:
                return  # a connection that Traefik dropped

        self._server = Server((host, port), Handler)
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@contextmanager
def backends(*names: str, tls: Sequence[ssl.SSLContext] = ()) -> Iterator[tuple[Backend, ...]]:
    """Run one backend for each name; with ``tls``, one context for each."""
    started = tuple(Backend(name, context) for name, context in zip(names, tls or (None,) * len(names), strict=True))
    try:
        yield started
    finally:
        for backend in started:
            backend.stop()


def traefik_binary() -> Path:
    """The real program; skips the test where it is not installed."""
    return require("traefik")


class Front:
    """A running Traefik with our static configuration, and the file that it watches."""

    def __init__(self, folder: Path, fleet: Fleet, *, environment: dict[str, str] | None = None) -> None:
        self.fleet = fleet
        self.renderer = Renderer(load_templates())
        self.directory = folder / "dynamic"
        self.directory.mkdir(parents=True)
        self.ports = {name: free_port() for name in (*entry_point_names(fleet), "traefik")}
        self.api_url = f"http://127.0.0.1:{self.ports['traefik']}"
        self.static = folder / "static.yml"
        self.static.write_text(
            static_configuration(
                self.renderer,
                fleet,
                self.directory,
                addresses={name: f"127.0.0.1:{port}" for name, port in self.ports.items() if name != "traefik"},
                api_address=f"127.0.0.1:{self.ports['traefik']}",
            )
        )
        self.file = FrontFile(self.directory / "cloudlunacy.yml")
        self.generation = 0
        self.overlay: Overlay = NO_OVERLAY
        self.client = httpx.Client(trust_env=False, verify=False, timeout=10)
        self._environment = environment or {}
        self._log = folder / "traefik.log"
        self.start()

    def start(self) -> None:
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                tied([traefik_binary(), f"--configfile={self.static}"]),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environment,
                start_new_session=True,
            )
        wait_for(self._answers, 60, what=f"Traefik's API\n{self.log()[-2000:]}")

    def stop(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def close(self) -> None:
        self.stop()
        self.client.close()

    def log(self) -> str:
        return self._log.read_text() if self._log.exists() else ""

    def _answers(self) -> bool:
        assert self.process.poll() is None, self.log()[-2000:]
        with suppress(httpx.HTTPError):
            return self.client.get(f"{self.api_url}/ping").status_code == 200
        return False

    def api(self, path: str) -> Any:
        return self.client.get(f"{self.api_url}/api/{path}").json()

    def document(self, groups: Iterable[Iterable[TraefikObject]], *, tls_entry_points: Iterable[str] = ()) -> str:
        ours = catch_all(self.fleet, tls_entry_points=tuple(tls_entry_points), default_certificate=DEFAULT_CERTIFICATE)
        self.generation += 1
        fragments = [self.renderer.fragments(group) for group in (ours, *groups)]
        return self.renderer.document(fragments, generation=self.generation, revision="0" * 40, overlay=self.overlay)

    def load(self, *groups: Iterable[TraefikObject], tls_entry_points: Iterable[str] = ()) -> None:
        """Publish these objects and wait until Traefik has them."""
        self.file.publish(self.document(groups, tls_entry_points=tls_entry_points))
        wait_for(self.has_loaded, 30, what=f"generation {self.generation} in Traefik\n{self.log()[-2000:]}")

    @property
    def published(self) -> Named:
        """What the newest document says of itself."""
        return Named(self.generation, "0" * 40)

    def has_loaded(self) -> bool:
        url = f"{self.api_url}/api/http/services/{marker_name(*self.published)}@file"
        return self.client.get(url).status_code == 200

    def serve(self, look: FakeLookup, *routes: Route, team: str = "shop") -> None:
        """Compile routes of one team, publish them and check that Traefik disabled none of their objects."""
        compiled = [compile_route(key(each.metadata.name, team), each, look) for each in routes]
        points = {point for each in routes if (point := tls_entry_point(each))}
        self.load(*compiled, tls_entry_points=points)
        assert self.disabled() == {}

    def disabled(self) -> dict[str, list[str]]:
        found = {}
        for section in (
            "http/routers",
            "http/services",
            "http/middlewares",
            "tcp/routers",
            "tcp/services",
            "tcp/middlewares",
        ):
            for item in self.api(f"{section}?status=disabled"):
                found[f"{section}/{item['name']}"] = item.get("error", [])
        return found

    def get(self, host: str, path: str = "/", *, method: str = "GET", tls: bool = False, **more: Any) -> httpx.Response:
        """Ask the front for ``host``. With ``tls`` at the entry point https, the name in SNI too."""
        points = self.fleet.spec.entry_points
        scheme, point = ("https", points.https) if tls else ("http", points.http)
        headers = {"Host": host, **more.pop("headers", {})}
        request = self.client.build_request(
            method,
            f"{scheme}://127.0.0.1:{self.ports[point]}",
            headers=headers,
            **more,
            extensions={"sni_hostname": host} if tls else {},
        )
        request.url = request.url.copy_with(raw_path=path.encode())
        try:
            return self.client.send(request)
        finally:
            self.client.cookies.clear()

    def connect(self, point: str, server_name: str | None = None) -> socket.socket:
        """Open a connection to a TCP entry point; with ``server_name`` as TLS, unchecked."""
        plain = socket.create_connection(("127.0.0.1", self.ports[point]), timeout=5)
        if server_name is None:
            return plain
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        try:
            return context.wrap_socket(plain, server_hostname=server_name)
        except BaseException:
            plain.close()
            raise


@contextmanager
def front(folder: Path, **more: Any) -> Iterator[Front]:
    """Run a Traefik below ``folder``; takes the arguments of :class:`Front`."""
    running = Front(folder, more.pop("fleet", None) or fleet(), **more)
    try:
        yield running
    finally:
        running.close()
