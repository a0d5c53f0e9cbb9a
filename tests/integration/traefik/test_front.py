"""A front's life on the real Traefik: publication, read-back, restore, and what breaks it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest

from reconciler.__main__ import main
from reconciler.desired.routing import compile_route
from reconciler.desired.traefik_model import TraefikObject
from reconciler.errors import Broken, Transient
from reconciler.traefik.api import ObjectFailure, TraefikAPI
from reconciler.traefik.publish import Named
from reconciler.traefik.read_back import ReadBack, read_back
from tests.support.traefik import Front, backends, front, key, lookup, route
from tests.support.waiting import wait_for

T = TypeVar("T")
HOST = "web.app.cloudlunacy.test"
REVISION = "a1" * 20


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Front]:
    with front(tmp_path) as started:
        yield started


def asked(running: Front, question: Callable[[TraefikAPI], Coroutine[Any, Any, T]]) -> T:
    async def scenario() -> T:
        api = TraefikAPI(running.api_url)
        try:
            return await question(api)
        finally:
            await api.close()

    return asyncio.run(scenario())


def objects(name: str = "web", port: int = 1) -> tuple[TraefikObject, ...]:
    plain = route(name, tls={"mode": "none"}, backends=[{"agent": "vps-1", "port": port}])
    return compile_route(key(name), plain, lookup())


def publish(running: Front, *groups: tuple[TraefikObject, ...]) -> int:
    running.file.publish(running.document(groups))
    return running.generation


def test_traefik_starts_from_the_recommended_static_configuration(own: Front) -> None:
    """It answers ping, knows the fleet's entry points, asks nobody for updates, and its version is accepted."""
    names = {point["name"] for point in own.api("entrypoints")}
    assert names == {"web", "websecure", "mongodb", "traefik"}
    assert asked(own, lambda api: api.version()) >= (3, 7, 3)
    metrics = httpx.get(f"{own.api_url}/metrics", trust_env=False, verify=False)
    assert "traefik_config_last_reload_success" in metrics.text
    assert '"level":"error"' not in own.log()


def test_read_back_finds_the_generation_and_no_failures(own: Front) -> None:
    """Published, loaded, nothing disabled."""
    generation = publish(own, objects())
    assert asked(own, lambda api: read_back(api, own.published, 10)) == ReadBack(loaded=True)
    assert asked(own, lambda api: api.generation()) == generation


def test_read_back_names_each_disabled_object(own: Front) -> None:
    """The rest of the generation is served; what is disabled is named with Traefik's own reason."""
    broken = [
        TraefikObject(
            "http.routers",
            f"shop_bad-{number}",
            {"entryPoints": ["web"], "rule": "Host(`bad.test`)", "priority": 5000, "service": "nobody"},
        )
        for number in range(150)
    ]
    with backends("one") as (one,):
        publish(own, objects(port=one.port), tuple(broken))
        found = asked(own, lambda api: read_back(api, own.published, 10))
        assert found.loaded
        assert len(found.failures) == 150
        assert ObjectFailure("http.routers", "shop_bad-0", 'the service "nobody@file" does not exist') in found.failures
        assert own.get(HOST).json()["backend"] == "one"


def test_a_broken_file_freezes_traefik_and_the_former_one_frees_it(own: Front) -> None:
    """A file that Traefik cannot read changes nothing that is served; read-back says so; the former file comes back."""
    with backends("one", "two") as (one, two):
        generation = publish(own, objects(port=one.port))
        assert asked(own, lambda api: read_back(api, own.published, 10)).loaded
        first = own.file.path.read_text()
        good = own.document([objects(port=two.port)])
        own.file.publish(good + "http: {}\n")
        answer = asked(own, lambda api: read_back(api, own.published, 0.5))
        assert (answer.loaded, answer.reachable) == (False, True)
        assert f"still runs generation {generation}" in answer.reason
        assert own.get(HOST).json()["backend"] == "one"
        own.file.publish(first)
        own.generation = generation
        own.load(objects("other", two.port), objects(port=one.port))
        assert own.get("other.app.cloudlunacy.test").json()["backend"] == "two"


def test_the_same_number_from_another_life_is_not_this_one(own: Front) -> None:
    """A frozen Traefik that runs generation 1 of other text is not believed to have loaded the new generation 1."""
    publish(own, objects())
    assert asked(own, lambda api: read_back(api, own.published, 10)).loaded
    (own.directory / "foreign.yml").write_text("http: {}\n")  # no file is loaded any more
    answer = asked(own, lambda api: read_back(api, Named(own.generation, REVISION), 0.5))
    assert (answer.loaded, answer.reachable) == (False, True)
    assert "runs a generation 1 that is not this one" in answer.reason


def test_what_render_wrote_is_no_publication(own: Front, tmp_path: Path) -> None:
    """The file of the command, with which a Traefik is started, has no generation that a control plane publishes."""
    repo = tmp_path / "fleet"
    assert main(["init", str(repo)]) == 0
    assert main(["render", str(repo), "--out", str(tmp_path / "out")]) == 0
    own.file.publish((tmp_path / "out/dynamic/cloudlunacy.yml").read_text())
    wait_for(lambda: asked(own, lambda api: api.generation()) == 0)
    (own.directory / "foreign.yml").write_text("http: {}\n")
    assert not asked(own, lambda api: read_back(api, Named(1, REVISION), 0.5)).loaded


def test_the_routes_come_back_after_a_restart(own: Front) -> None:
    """The file is all that Traefik needs; nobody has to publish again."""
    with backends("one") as (one,):
        own.load(objects(port=one.port))
        own.stop()
        own.start()
        wait_for(own.has_loaded)
        assert own.get(HOST).json()["backend"] == "one"


def test_a_file_edited_by_hand_is_noticed_and_put_right(own: Front) -> None:
    """Changed or deleted: drifted says which, publishing again mends it."""
    with backends("one") as (one,):
        own.load(objects(port=one.port))
        text = own.file.path.read_text()
        own.file.path.write_text("http:\n")
        assert own.file.drifted() == "changed"
        own.file.publish(text)
        own.file.path.unlink()
        assert own.file.drifted() == "missing"
        own.load(objects(port=one.port))
        assert own.file.drifted() is None
        assert own.get(HOST).json()["backend"] == "one"


def test_one_publication_is_one_reload(own: Front) -> None:
    """No temporary file appears in the watched directory, which Traefik would load as well."""
    own.load(objects())

    def reloads() -> float:
        text = httpx.get(f"{own.api_url}/metrics", trust_env=False, verify=False).text
        (line,) = [line for line in text.splitlines() if line.startswith("traefik_config_reloads_total")]
        return float(line.split()[-1])

    before = reloads()
    for port in (2, 3, 4):
        own.load(objects(port=port))
    assert reloads() - before == 3
    assert [path.name for path in own.directory.iterdir()] == ["cloudlunacy.yml"]


def test_thousands_of_routes_are_read_back(own: Front) -> None:
    """The questions do not grow with the fleet: one marker, one overview."""
    publish(own, *(objects(f"app-{number}") for number in range(2000)))
    assert asked(own, lambda api: read_back(api, own.published, 30)) == ReadBack(loaded=True)


def test_an_api_that_is_away_is_the_reason(own: Front) -> None:
    """Read-back raises nothing when Traefik is killed; the other questions raise Transient."""
    own.stop()
    answer = asked(own, lambda api: read_back(api, Named(1, REVISION), 0.2))
    assert (answer.loaded, answer.reachable) == (False, False)
    assert "is away" in answer.reason
    with pytest.raises(Transient):
        asked(own, lambda api: api.generation())


def test_a_foreign_generation_is_none(own: Front) -> None:
    """A Traefik that has loaded nothing of ours has no generation."""
    assert asked(own, lambda api: api.generation()) is None


def test_an_api_address_is_checked() -> None:
    """Something that is no http address is the operator's mistake."""
    with pytest.raises(Broken):
        TraefikAPI("file:///etc/passwd")


def test_no_string_reaches_the_environment_or_another_route(tmp_path: Path) -> None:
    """Template actions, back-ticks, quotes and separators stay literal on the wire, and the canary stays inside."""
    canary = "canary-4711"
    payloads = [
        '{{ env "CANARY" }}',
        '{{env "CANARY"}}',
        "{{7*7}}",
        "{{ .Env.CANARY }}",
        '{{- printf "%s" (env "CANARY") -}}',
        "`) || Host(`victim.test",
        '"} , "x": {"y": "z',
        "' \" \\ # & * ! | > %",
    ]
    headers = {f"X-Payload-{number}": payload for number, payload in enumerate(payloads)}
    with front(tmp_path, environment={"CANARY": canary}) as own, backends("one") as (one,):
        injected = route(
            tls={"mode": "none"},
            backends=[{"agent": "vps-1", "port": one.port}],
            middlewares=[{"headers": {"request": headers}}],
            healthCheck={"path": "/health", "interval": "50ms", "timeout": "40ms", "headers": headers},
        )
        own.load(compile_route(key(), injected, lookup()))
        assert own.disabled() == {}
        seen = own.get(HOST).json()["headers"]
        assert {name: seen[name] for name in headers} == headers
        assert own.get("victim.test").status_code == 404
        raw = httpx.get(f"{own.api_url}/api/rawdata", trust_env=False, verify=False).text
        assert canary not in raw
        assert canary not in own.log()
