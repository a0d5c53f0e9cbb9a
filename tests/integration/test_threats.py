"""Attacks by whoever may push to the state repo, on the real git, ``serve`` and Traefik (docs/threats.md)."""

from __future__ import annotations

import copy
import json
import re
import ssl
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from reconciler.pki.sealing import seal
from tests.support import documents
from tests.support.attacked import ENVIRONMENT_CANARY, VICTIM, Attacked, attacked
from tests.support.documents import DOMAIN
from tests.support.fleet import run_cli
from tests.support.git_repos import git
from tests.support.parts import require
from tests.support.waiting import wait_for

SPRIG: Final = (
    '{{ env "THREAT_CANARY" }}',
    "{{- env `THREAT_CANARY` -}}",
    '"\n{{ env "THREAT_CANARY" }}',
    '\\u007b\\u007b env "THREAT_CANARY" \\u007d\\u007d',
)
JINJA: Final = ("{{7*7}}", "{% for x in [1] %}49{% endfor %}", "{{ cycler.__init__.__globals__.os.environ }}")
RULE: Final = (
    f"x`) || Host(`{VICTIM}",
    f"x`) || HostRegexp(`.*`) || Host(`{VICTIM}",
    "/`) || PathPrefix(`/",
    f"{VICTIM}`) && !Host(`x",
    f"{VICTIM},x.app.{DOMAIN}",
    f"{VICTIM}.",
    VICTIM.upper(),
)
Files = dict[str, bytes | str | None]


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attacked]:
    """One installation; every test leaves the victim's route in service."""
    with attacked(tmp_path_factory.mktemp("threats")) as running:
        yield running


@pytest.fixture(autouse=True)
def victim_is_served(plane: Attacked) -> Iterator[None]:
    """Whatever a test did, the victim's route is the victim's before and after it."""
    assert plane.answerer() == "victim"
    yield
    assert plane.answerer() == "victim"


def full_route(name: str, port: int) -> dict[str, Any]:
    """A route of the rival team that uses every field of type http that holds text."""
    to = {"agent": "vps-2", "port": port}
    middlewares: list[dict[str, Any]] = [
        {"headers": {"request": {"X-One": "1"}, "response": {"X-Two": "2"}}},
        {"rateLimit": {"average": 1000, "burst": 1000, "period": "1s", "byHeader": "X-Who"}},
        {"basicAuth": {"secret": {"name": "login", "key": "users"}, "realm": "shop"}},
        {"ipAllowList": {"ranges": ["127.0.0.0/8"]}},
        {"compress": {"minResponseBody": "1Ki", "excludedContentTypes": ["text/event-stream"]}},
        {"redirect": {"scheme": "https", "host": f"else.rival.{DOMAIN}"}},
        {"retry": {"attempts": 2, "initialInterval": "100ms"}},
        {"circuitBreaker": {"medianLatency": "1s", "checkPeriod": "100ms", "fallbackDuration": "10s"}},
        {"forwardAuth": {"address": {**to, "path": "/auth"}, "responseHeaders": ["X-User"]}},
        {"stripPrefix": {"prefixes": ["/a"]}},
        {"addPrefix": {"prefix": "/b"}},
        {"maintenance": {"page": {**to, "path": "/page"}}},
    ]
    spec = {
        "type": "http",
        "hostnames": [f"{name}.rival.{DOMAIN}"],
        "paths": [{"prefix": "/a"}, {"exact": "/b"}],
        "headers": [{"name": "X-Match", "value": "1"}],
        "methods": ["GET"],
        "backends": [to],
        "healthCheck": {"path": "/health", "interval": "5s", "timeout": "1s", "headers": {"X-Check": "1"}},
        "sticky": {"name": "cookie", "sameSite": "lax"},
        "transport": {"scheme": "http", "serverName": "a.b", "dialTimeout": "5s", "idleConnectionTimeout": "9s"},
        "tls": {"mode": "none"},
        "middlewares": middlewares,
    }
    return {"apiVersion": "cloudlunacy/v1", "kind": "Route", "metadata": {"name": name}, "spec": spec}


def texts(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of each text; one that ends in ``None`` is the key before it."""
    if isinstance(value, str):
        yield path
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from texts(item, (*path, index))
    elif isinstance(value, dict):
        for key, item in value.items():
            yield (*path, key, None)
            yield from texts(item, (*path, key))


def replaced(document: dict[str, Any], path: tuple[Any, ...], payload: str) -> dict[str, Any]:
    changed = copy.deepcopy(document)
    at: Any = changed
    is_key = path[-1] is None
    steps = path[:-1] if is_key else path
    for step in steps[:-1]:
        at = at[step]
    if is_key:
        at[payload] = at.pop(steps[-1])
    else:
        at[steps[-1]] = payload
    return changed


def poisoned(port: int, payloads: tuple[str, ...]) -> tuple[Files, dict[str, str]]:
    """Return for each text two routes, each with another payload in its place, and the payload of each path."""
    files: Files = {}
    meant: dict[str, str] = {}
    fields = list(texts(full_route("x", port)["spec"], ("spec",)))
    assert len(fields) > 80
    for number, path in enumerate(fields):
        for which in range(2):
            payload = payloads[(number + which * 3) % len(payloads)]
            name = f"p{number}-{which}"
            place = f"routes/rival/{name}.yaml"
            files[place] = json.dumps(replaced(full_route(name, port), path, payload)).encode()
            meant[place] = payload
    return files, meant


def test_no_text_of_a_tenant_is_run_as_a_template(plane: Attacked) -> None:
    """A Sprig or Jinja action in any text or key of a route shows nobody Traefik's environment, and is not computed."""
    files, meant = poisoned(plane.rival.port, SPRIG + JINJA)
    login = documents.document(
        "Secret", "login", {"sealed": {"users": seal('a:{{ env "THREAT_CANARY" }}', [plane.recipient])}}
    )
    good = documents.route(
        "literal",
        f"literal.rival.{DOMAIN}",
        backends=[{"agent": "vps-2", "port": plane.rival.port}],
        middlewares=[{"headers": {"request": {f"X-{n}": text for n, text in enumerate((SPRIG[0], SPRIG[1], *JINJA))}}}],
    )
    kept_out = plane.quarantined({**files, "secrets/rival/login.yaml": login, "routes/rival/literal.yaml": good})

    raw = json.dumps(plane.front.api("rawdata"))
    everything = raw + plane.front.log() + plane.one.log() + json.dumps(plane.one.ask("/status"))
    assert ENVIRONMENT_CANARY not in everything
    assert len(kept_out) > len(files) * 0.9
    assert not kept_out & {"routes/rival/literal.yaml"}
    seen = plane.front.get(f"literal.rival.{DOMAIN}").json()["headers"]
    assert [seen[f"X-{n}"] for n in range(5)] == [SPRIG[0], SPRIG[1], *JINJA]
    assert plane.quarantined(dict.fromkeys([*meant, "secrets/rival/login.yaml", "routes/rival/literal.yaml"])) == set()


def test_the_canary_would_be_seen(plane: Attacked, tmp_path: Path) -> None:
    """The same action in a file that was not rendered by us does print Traefik's environment: the test can fail."""
    text = plane.one.published.read_text()
    router = '  routers:\n    x: {rule: "Host(`x.test`)", service: s, middlewares: [m]}\n'
    middle = "  middlewares:\n    m: {headers: {customRequestHeaders: {X: '{{ env \"THREAT_CANARY\" }}'}}}\n"
    service = "  services:\n    s: {loadBalancer: {servers: [{url: 'http://127.0.0.1:1'}]}}\n"
    other = plane.front.directory / "by-hand.yml"
    other.write_text(f"http:\n{router}{middle}{service}")
    try:
        wait_for(lambda: ENVIRONMENT_CANARY in json.dumps(plane.front.api("rawdata")), what="the canary")
    finally:
        other.unlink()
    wait_for(lambda: ENVIRONMENT_CANARY not in json.dumps(plane.front.api("rawdata")), what="its end")
    assert plane.one.published.read_text() == text


def test_a_rule_says_what_its_route_says_and_nothing_more(plane: Attacked) -> None:
    """Back-ticks, operators, commas, dots and capitals in any text let no rule match another host."""
    files, meant = poisoned(plane.rival.port, RULE)
    kept_out = plane.quarantined(files)
    for router in plane.front.api("http/routers?per_page=10000"):
        if router["name"].startswith("rival_"):
            hosts = re.findall(r"(?:Host|HostRegexp|HostSNI)\(`([^`]*)`\)", router["rule"])
            assert hosts
            assert {host.endswith(f".rival.{DOMAIN}") for host in hosts} == {True}, router
            assert router["rule"].count("Host") == len(hosts)
    for path in ("/", "/a", "/b", "/a/b"):
        for method in ("GET", "POST"):
            assert plane.answerer(path=path, method=method, headers={"X-Match": "1"}) == "victim"
    assert len(kept_out) > len(files) * 0.85
    assert plane.quarantined(dict.fromkeys(meant)) == set()


STOLEN: Final[dict[str, dict[str, Any]]] = {
    "same": {"hostnames": [VICTIM]},
    "wildcard": {"hostnames": [f"*.app.{DOMAIN}"]},
    "longer": {"hostnames": [VICTIM], "paths": [{"prefix": "/a/very/long/path/indeed"}]},
    "exact": {"hostnames": [VICTIM], "paths": [{"exact": "/a"}]},
    "conditions": {"hostnames": [VICTIM], "headers": [{"name": "X-A", "value": "1"}], "methods": ["GET"]},
    "tls": {"hostnames": [VICTIM], "tls": {"mode": "terminate"}},
    "beside": {"hostnames": [f"own2.rival.{DOMAIN}", VICTIM]},
    "default": {"hostnames": []},
    "priority": {"hostnames": [VICTIM], "priority": 1_000_000},
    "not-owned": {"hostnames": ["shop.example.test"]},
    "raw": {"type": "tcp", "hostnames": [VICTIM], "entryPoint": "websecure", "tls": {"mode": "passthrough"}},
}


def test_no_team_takes_a_request_of_another(plane: Attacked) -> None:
    """The same host, wildcards, longer rules, conditions, TLS and priorities: each is refused, no request moves."""
    to = [{"agent": "vps-2", "port": plane.rival.port}]
    files: Files = {
        f"routes/rival/{name if name != 'default' else 'victim'}.yaml": documents.document(
            "Route",
            name if name != "default" else "victim",
            {"type": "http", "backends": to, "tls": {"mode": "none"}, **spec},
        )
        for name, spec in STOLEN.items()
    }
    assert plane.quarantined(files) == set(files)
    for path in ("/", "/a", "/a/very/long/path/indeed", "/a/very/long/path/indeed/x"):
        assert plane.answerer(path=path, headers={"X-A": "1"}) == "victim"
    assert plane.answerer(tls=True) == "404"
    assert plane.answerer(f"other.app.{DOMAIN}") == "404"
    assert plane.quarantined(dict.fromkeys(files)) == set()


def test_no_certificate_takes_the_place_of_a_victims(plane: Attacked) -> None:
    """A second certificate for a name and one for a foreign name stay out, and TLS shows what it showed before."""

    def shown() -> bytes | None:
        with plane.front.connect("websecure", VICTIM) as connection:
            assert isinstance(connection, ssl.SSLSocket)
            return connection.getpeercert(binary_form=True)

    before = shown()
    thieves: Files = {
        "certificates/a-thief.yaml": documents.certificate("a-thief", VICTIM),
        "certificates/foreign.yaml": documents.certificate("foreign", "www.example.com"),
    }
    assert plane.quarantined(thieves) == set(thieves)
    assert shown() == before
    assert plane.quarantined(dict.fromkeys(thieves)) == set()


CORPUS: Final[dict[str, bytes]] = {
    "depth": b"[" * 30_000,
    "depth-maps": b"{a: " * 15_000,
    "alias": b"a: &a [x,x,x,x,x,x,x,x,x]\n"
    + b"".join(b"%c: &%c [%s]\n" % (c, c, b",".join([b"*%c" % (c - 1)] * 9)) for c in range(ord("b"), ord("z"))),
    "size": b"# " + b"x" * 12_000_000,
    "tag": b"!!python/object/apply:os.system ['touch /tmp/owned']",
    "twice": documents.route("twice")[:-1] + b', "kind": "Agent"}',
    "documents": b"---\n{}\n" * 9_000,
    "encoding": b"\xff\xfe\xfa" + documents.route("encoding"),
    "nul": documents.route("nul") + b"\0",
    "number": b"a: 1" + b"0" * 60_000,
    "key": b"? [[[a]]]\n: b\n" * 100,
    "merge": b"a: &a {<<: *a}\n",
    "empty": b"",
}


def test_no_file_ends_the_parser_or_fills_the_memory(plane: Attacked) -> None:
    """Bombs of every kind are quarantined beside a good change that goes live; memory stays where it was."""
    before = peak_memory(plane)
    files: Files = {f"routes/shop/{name}.yaml": content for name, content in CORPUS.items()}
    good = documents.route("fine", backends=[{"agent": "vps-1", "port": plane.victim.port}])
    assert plane.quarantined({**files, "routes/shop/fine.yaml": good}) == set(files)
    assert plane.answerer(f"fine.app.{DOMAIN}") == "victim"
    assert peak_memory(plane) - before < 150 * 1024
    assert not Path("/tmp/owned").exists()
    assert plane.quarantined(dict.fromkeys([*files, "routes/shop/fine.yaml"])) == set()


def peak_memory(plane: Attacked) -> int:
    """Return the most that serve ever held, in KiB."""
    assert plane.one.process is not None
    said = Path(f"/proc/{plane.one.process.pid}/status").read_text()
    return int(re.findall(r"VmHWM:\s+(\d+)", said)[0])


def test_what_is_no_plain_file_is_not_followed(plane: Attacked, tmp_path: Path) -> None:
    """Links, submodules, LFS pointers, modes, cases and strange names are problems; nothing outside is read."""
    outside = tmp_path / "outside.yaml"
    outside.write_bytes(documents.route("link", backends=[{"agent": "vps-1", "port": plane.victim.port}]))
    commit = plane.one.repo.tip() or ""
    lfs = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 1\n"
    good = documents.route("exec", backends=[{"agent": "vps-1", "port": plane.victim.port}])
    files: Files = {
        "routes/shop/link.yaml": str(outside),
        "routes/shop/etc.yaml": "../../../../../../../../etc/passwd",
        "routes/shop/module.yaml": commit,
        "routes/shop/lfs.yaml": lfs,
        "routes/shop/exec.yaml": good,
        "routes/shop/Victim.yaml": good,
        "Routes/shop/victim.yaml": good,
        "routes/shop/CON.yaml": good,
        "routes/shop/\x1b[31mred.yaml": good,
        "routes/shop/a\nb.yaml": good,
    }
    modes = {"routes/shop/link.yaml": "120000", "routes/shop/etc.yaml": "120000", "routes/shop/exec.yaml": "100755"}
    kept_out = plane.quarantined(files, modes={**modes, "routes/shop/module.yaml": "160000"})
    assert kept_out == set(files)
    assert plane.answerer(f"link.app.{DOMAIN}") == "404"
    told = plane.one.cli("status", plane.one.repo.tip() or "")
    assert not [line for line in told.stdout.splitlines() if not line.isprintable()]
    assert "\x1b" not in told.stdout + plane.one.log()
    assert plane.quarantined(dict.fromkeys(files)) == set()


def test_a_tree_that_climbs_writes_nothing(plane: Attacked) -> None:
    """A tree with ``..``, ``.git`` and empty names, which git itself would not make, leaves all files as they are."""
    repo, folder = plane.one.repo, plane.one.folder
    good, tip = repo.tip() or "", repo.tip() or ""
    blob = git("-C", repo.path, "hash-object", "-w", "--stdin", stdin=documents.route("up"))
    inner = raw_tree(repo.path, [("100644", "evil.yaml", blob)])
    entries = [("40000", "..", inner), ("40000", ".git", inner), ("40000", "routes", inner)]
    former = {path.name for path in folder.iterdir()} | {path.name for path in folder.parent.iterdir()}
    climbing = git("-C", repo.path, "commit-tree", raw_tree(repo.path, entries), "-p", tip, "-m", "Climb")
    repo.set_tip(climbing)
    found = plane.one.status_wait(climbing, "Held", "Failed", "Converged")
    assert (found["state"], plane.answerer()) in (("Held", "victim"), ("Failed", "victim"))
    assert {path.name for path in folder.iterdir()} | {path.name for path in folder.parent.iterdir()} == former
    repo.set_tip(good)
    wait_for(lambda: plane.one.ask("/revisions/newest")["revision"] == good, what="the good tip")


def raw_tree(path: Path, entries: list[tuple[str, str, str]]) -> str:
    """Write a tree object as it is, unchecked."""
    content = b"".join(f"{mode} {name}\0".encode() + bytes.fromhex(blob) for mode, name, blob in entries)
    arguments = ("hash-object", "-t", "tree", "-w", "--literally", "--stdin")
    done = subprocess.run([require("git"), "-C", path, *arguments], input=content, capture_output=True, check=True)
    return done.stdout.decode().strip()


def test_a_mass_deletion_waits_for_a_person(plane: Attacked) -> None:
    """31 % and 100 % are held and move nothing; the branch that comes back is in service at once."""
    to = [{"agent": "vps-1", "port": plane.victim.port}]
    names = [f"m{number}" for number in range(12)]
    assert (
        plane.quarantined({f"routes/shop/{name}.yaml": documents.route(name, backends=to) for name in names}) == set()
    )
    objects = len(plane.one.ask("/objects", limit=1000)["objects"])
    good = plane.one.repo.tip() or ""
    many = {f"routes/shop/{name}.yaml": None for name in names[: objects * 31 // 100 + 1]}
    every = {path: None for path in plane.one.repo.files() if path.endswith(".yaml")}
    for deleted in (many, every):
        revision = plane.one.repo.commit(deleted, message="Delete", parent=good)
        found = plane.one.status_wait(revision)
        assert found["state"] in ("Held", "Failed"), found
        assert {plane.answerer(f"{name}.app.{DOMAIN}") for name in names} == {"victim"}
    plane.one.repo.set_tip(good)
    few = 2  # within the guard, down to the objects that are always there
    for begin in range(0, len(names), few):
        assert plane.quarantined({f"routes/shop/{name}.yaml": None for name in names[begin : begin + few]}) == set()


@pytest.mark.parametrize(
    "arguments",
    [
        ("--repo", "--upload-pack=touch {mark};false"),
        ("--repo", "ext::sh -c 'touch {mark}'"),
        ("--repo", "ssh://-oProxyCommand=touch {mark}/x"),
        ("--repo", "http://192.0.2.1/state.git"),
        ("--repo", "https://user@host/x?a=$(touch {mark})"),
    ],
)
def test_no_setting_becomes_a_command(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """A repository or a branch that git would take for an option or a command ends serve with a sentence."""
    mark = tmp_path / "mark"
    given = [part.format(mark=mark, here=tmp_path) for part in arguments]
    joined = f"{given[0]}={given[1]}"
    done = run_cli("serve", joined, "--data", tmp_path / "data", "--listen", "127.0.0.1:0", timeout=20)
    assert done.returncode in (1, 2)
    assert "Traceback" not in done.stderr
    assert not mark.exists()


def test_nothing_under_data_is_open_to_others(plane: Attacked) -> None:
    """Others can read no file of the control plane, even where the data directory was made for all to enter."""
    everything = [path for path in plane.one.data.rglob("*") if not path.is_symlink()]
    open_ones = [str(path) for path in everything if path.stat().st_mode & (stat.S_IRWXO | stat.S_IRWXG)]
    assert open_ones == []
    assert plane.one.published.stat().st_mode & 0o7 == 0
