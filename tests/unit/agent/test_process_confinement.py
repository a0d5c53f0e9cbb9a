"""What a program is given and shown, as arguments of bubblewrap."""

from __future__ import annotations

from typing import Any, Final

import pytest

from agent.deployments.actions import Directory
from agent.deployments.driver import DriverError
from agent.deployments.given import NOTHING, Given
from agent.deployments.process_confinement import (
    DEFAULT_PIDS,
    SYSTEM,
    Means,
    Place,
    confined,
    environment,
    group_limits,
    ids,
    limits,
    places,
    user_of,
)
from agent.deployments.process_entry import STAGE
from agent.deployments.workload import Key, Workload
from schemas.deployment import DeploymentSpec
from schemas.mounts import RESERVED

BINDS: Final = ("--bind", "--ro-bind", "--ro-bind-try")
PLACE: Final = Place("/srv/agent", "/srv/agent/processes/shop/web", "/srv/agent/processes/shop/web/a")
MEANS: Final = Means("/usr/bin/bwrap", root=True, links={"/bin": "usr/bin"})


def process(**spec: Any) -> Workload:
    found = {"type": "process", "agents": ["vps-1"], "command": ["/bin/web"], **spec}
    return Workload(Key("shop", "web"), DeploymentSpec.model_validate(found))


def words(one: Workload, means: Means = MEANS, **more: Any) -> list[str]:
    """Return its words, with what is staged in its place."""
    found = confined(one, PLACE, means, **more)
    named = {f"{STAGE}/{number}": source for number, source in enumerate(found.sources)}
    return [named.get(word, word) if found.words[index - 1] in BINDS else word
            for index, word in enumerate(found.words)]  # fmt: skip


def said(one: Workload, ports: dict[int, int], given: Given = NOTHING) -> dict[str, str]:
    return environment(one.spec, ports, given, "id", places(one.spec, PLACE, confined=True))


def test_a_program_learns_its_ports_from_its_environment() -> None:
    """PORT is the first one, PORT_<NAME> each named one, as they are on this agent now."""
    ports = [{"name": "http-admin", "container": 8081, "host": 8081}, {"container": 9000, "host": 9000}]
    found = said(process(ports=ports), {8081: 20001, 9000: 9000})
    assert (found["PORT"], found["PORT_HTTP_ADMIN"], found["PORT_9000"]) == ("20001", "20001", "9000")


def test_the_environment_is_the_document_and_a_few_words() -> None:
    """Nothing of the agent's own environment comes along, and secrets are in nobody's arguments."""
    secrets = [{"env": "KEY", "secret": "payment", "key": "api"}]
    one = process(env={"A": "b"}, volumes=[{"name": "up-loads", "path": "/srv/up"}], secrets=secrets)
    found = said(one, {}, Given({"payment/api": "hush"}))
    assert set(found) == {
        "A", "KEY", "PATH", "HOME", "TMPDIR", "LANG", "CLOUDLUNACY_INSTANCE", "VOLUME_UP_LOADS",
    }  # fmt: skip
    assert found["VOLUME_UP_LOADS"] == "/srv/up"
    assert found["KEY"] == "hush"
    assert "hush" not in " ".join(words(one))


def test_everything_that_can_be_taken_is_taken() -> None:
    """Namespaces, capabilities and privileges are given up, and only known places are shown."""
    found = " ".join(words(process()))
    for part in ("--unshare-pid", "--unshare-ipc", "--unshare-uts", "--cap-drop ALL", "--die-with-parent"):
        assert part in found
    assert "--cap-add" not in found
    assert found.endswith(" --remount-ro / --chdir /tmp --")
    assert " / / " not in found
    assert "/home" not in found
    assert "--symlink usr/bin /bin" in found


@pytest.mark.parametrize("root", [True, False])
def test_no_privileged_program_runs_where_a_tenant_decides(root: bool) -> None:
    """Everybody confines with a user namespace, and only the program's own command stands behind what confines it."""
    found = words(process(), MEANS._replace(root=root))
    assert "--unshare-user" in found
    assert found[:3] == ["/usr/bin/bwrap", "--args", "@env"]
    assert found[-1] == "--"


def test_root_stages_all_that_is_bound() -> None:
    """Nothing is bound by a path that the program's user might not reach, and what is hidden goes along."""
    one = process(volumes=[{"name": "a", "path": "/a"}])
    found = confined(one, PLACE, MEANS, readable=["/srv"], hidden=["/srv/other"])
    bound = [found.words[index + 1] for index, word in enumerate(found.words) if word in BINDS]
    assert bound == [f"{STAGE}/{number}" for number in range(len(found.sources))]
    assert {"/srv", "/usr", "/srv/agent/processes/shop/web/volumes/a"} <= set(found.sources)
    assert found.hidden == ["/srv/agent", "/srv/other"]
    assert confined(one, PLACE, MEANS._replace(root=False))[1:] == ([], [])


def test_the_agents_directory_is_hidden_wherever_it_lies() -> None:
    """Where a directory that is shown holds the agent's, an empty one is laid over it, and after it."""
    means = MEANS._replace(root=False)
    found = " ".join(words(process(), means, readable=["/srv"], hidden=["/srv/other"]))
    assert found.index("--ro-bind-try /srv /srv") < found.index("--tmpfs /srv/agent")
    assert "--tmpfs /srv/other" in found
    assert "--tmpfs" not in " ".join(words(process(), means))


def test_volumes_are_at_their_paths() -> None:
    """A volume is the deployment's own directory; one that is read-only cannot be written."""
    volumes = [{"name": "a", "path": "/var/lib/a"}, {"name": "b", "path": "/b", "readOnly": True}]
    found = " ".join(words(process(volumes=volumes)))
    assert "--bind /srv/agent/processes/shop/web/volumes/a /var/lib/a" in found
    assert "--ro-bind /srv/agent/processes/shop/web/volumes/b /b" in found
    assert found.index("--perms 0755 --dir /var ") < found.index("--perms 0755 --dir /var/lib ")


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("/var/../../etc", "leads upwards"),
        ("/usr/bin", "above or below /usr"),
        ("//usr//bin/.", "above or below /usr"),
        ("/lib64", "above or below /lib64"),
        ("/nix", "above or below /nix/store"),
        ("/.", "above or below"),
        ("/tmp/x", "above or below /tmp"),
        ("/srv", "/srv/python is shown there"),
    ],
)
def test_a_volume_lies_nowhere_over_the_system(path: str, why: str) -> None:
    """Whatever decides which program runs is not the deployment's, and a path with .. is not given to bubblewrap."""
    with pytest.raises(DriverError, match=why):
        words(process(volumes=[{"name": "a", "path": path}]), readable=["/srv/python"])


@pytest.mark.parametrize("path", ["/etc/ld.so.preload", "/data/key", "/lib/x86_64-linux-gnu/libc.so.6"])
def test_a_file_of_a_secret_lies_neither_over_the_system_nor_in_a_volume(path: str) -> None:
    """The same for files; in a volume the program could lead the way to them elsewhere by a link."""
    files = [{"path": path, "secret": "payment", "key": "api"}]
    with pytest.raises(DriverError, match="can have nothing at"):
        words(process(secretFiles=files, volumes=[{"name": "data", "path": "/data"}]))


def test_everything_that_is_shown_of_the_system_is_kept_free() -> None:
    """What is reserved holds all that confinement shows."""
    assert {*SYSTEM, "/etc", "/proc", "/dev", "/tmp"} <= set(RESERVED)


def test_deployments_have_users_of_their_own() -> None:
    """Another team, name or agent is another user, and none is one that anybody else gives away."""
    found = {user_of(agent, Key(team, name)) for agent in "ab" for team in "cd" for name in "ef"}
    assert len(found) == 8
    assert all(1_879_048_192 < user < 2_147_483_648 for user in found)


def test_a_user_that_is_named_is_taken() -> None:
    """A number counts for user and group; a group may be another; without either the deployment has its own."""
    own = user_of("vps-1", Key("shop", "web"))
    found = [ids("vps-1", process(**more)) for more in ({}, {"user": "1000"}, {"user": "1000:50"})]
    assert found == [(own, own), (1000, 1000), (1000, 50)]


def test_files_of_secrets_and_of_the_agent_have_their_places() -> None:
    """A secret's file is made in memory from a descriptor, a directory of the agent is shown as it says."""
    one = process(secretFiles=[{"path": "/run/key", "secret": "payment", "key": "api"}])
    found = " ".join(words(one, directories=[Directory("/srv/agent/x", "/run/x"), Directory("/y", "/run/y", False)]))
    assert "--perms 0444 --file @0 /run/key" in found
    assert "--ro-bind /srv/agent/x /run/x --bind /y /run/y" in found


def test_limits_are_for_all_its_processes_where_there_are_groups() -> None:
    """With cgroup v2 memory, CPUs and processes are limited together; without it memory and processes one by one."""
    spec = process(resources={"memory": "64Mi", "cpus": 0.5, "pids": 20}).spec
    assert group_limits(spec) == {
        "pids.max": "20", "memory.max": "67108864", "memory.swap.max": "0", "cpu.max": "50000 100000",
    }  # fmt: skip
    assert limits(spec, MEANS._replace(cgroup="/sys/fs/cgroup/x")) == {"RLIMIT_CORE": 0}
    assert limits(spec, MEANS) == {"RLIMIT_CORE": 0, "RLIMIT_DATA": 67108864, "RLIMIT_NPROC": 20}
    assert limits(process().spec, MEANS)["RLIMIT_NPROC"] == DEFAULT_PIDS
    assert "RLIMIT_NPROC" not in limits(spec, Means())
