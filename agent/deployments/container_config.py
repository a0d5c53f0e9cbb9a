"""What the container engine is asked for, as values of its API (version 1.41). PURE.

The names are the engine's own. What stands here is what isolates: read it together with docs/threats.md.
"""

from __future__ import annotations

import hashlib
import ipaddress
import math
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from agent.deployments.actions import Directory
from agent.deployments.workload import LABEL_VOLUME, Key, Slot, Workload, engine_name, instance_labels, owner_labels
from schemas.deployment import Tmpfs
from schemas.names import seconds, size_in_bytes

BRIDGE_PREFIX: Final = "cl-"
"""Of the network interfaces of all deployments, on this machine; what the firewall's rules go by."""
SUBNETS: Final = "10.213.0.0/16"
"""Where the networks of deployments are cut from. An engine's own pools end after about thirty networks."""
_SUBNET_PREFIX: Final = 28
_DEFAULT_PIDS: Final = 1024
_TMP: Final = Tmpfs(path="/tmp")  # noqa: S108  the container's own
_LONGEST_INTERFACE: Final = 15


def container_name(agent: str, key: Key, slot: Slot) -> str:
    return engine_name(agent, *key, slot)


def network_name(agent: str, key: Key) -> str:
    return engine_name(agent, *key)


def volume_name(agent: str, key: Key, volume: str) -> str:
    return engine_name(agent, *key, volume)


def bridge_name(agent: str, key: Key) -> str:
    """Return the name of a deployment's interface, which has 15 characters at most."""
    digest = hashlib.sha256(network_name(agent, key).encode()).hexdigest()
    return f"{BRIDGE_PREFIX}{digest}"[:_LONGEST_INTERFACE]


def network_configs(agent: str, key: Key, subnets: str = SUBNETS) -> Iterator[dict[str, Any]]:
    """Yield ways to ask for the network of a deployment, each with another subnet, for the first that is free."""
    whole = ipaddress.ip_network(subnets)
    size = 2 ** (32 - _SUBNET_PREFIX)
    count = whole.num_addresses // size
    name = network_name(agent, key)
    begin = zlib.crc32(name.encode())
    for step in range(count):
        subnet = ipaddress.ip_network((int(whole.network_address) + (begin + step) % count * size, _SUBNET_PREFIX))
        yield {
            "Name": name,
            "CheckDuplicate": True,
            "Driver": "bridge",
            "IPAM": {"Config": [{"Subnet": str(subnet)}]},
            "Labels": owner_labels(agent, key),
            "Options": {"com.docker.network.bridge.name": bridge_name(agent, key)},
        }


def volume_configs(agent: str, workload: Workload) -> list[dict[str, Any]]:
    """Return what to ask for each volume of a workload."""
    labels = owner_labels(agent, workload.key)
    return [
        {"Name": volume_name(agent, workload.key, volume.name), "Labels": {**labels, LABEL_VOLUME: volume.name}}
        for volume in workload.spec.volumes
        if volume.shared is None
    ]


def container_config(
    agent: str,
    workload: Workload,
    slot: Slot,
    ports: Mapping[int, int],
    *,
    publish_on: tuple[str, ...],
    environment: Mapping[str, str],
    files: Mapping[str, Path],
    directories: Iterable[Directory] = (),
) -> dict[str, Any]:
    """Return what to ask for an instance. ``files``: those of secrets, by their paths in the container."""
    spec = workload.spec
    config: dict[str, Any] = {
        "Image": spec.image,
        "Hostname": workload.key.name,
        "Env": [f"{name}={value}" for name, value in environment.items()],
        "Labels": instance_labels(agent, workload, slot),
        "ExposedPorts": {f"{port}/tcp": {} for port in ports},
        "StopTimeout": math.ceil(seconds(spec.stop_grace)),
        "HostConfig": _host_config(agent, workload, ports, publish_on),
    }
    # each by itself: no directory of the machine is shown, but what the agent made for it or the owner shares
    config["HostConfig"]["Mounts"] += [
        {"Type": "bind", "Source": str(source), "Target": path, "ReadOnly": True} for path, source in files.items()
    ]
    config["HostConfig"]["Mounts"] += [
        {"Type": "bind", "Source": one.source, "Target": one.target, "ReadOnly": one.read_only} for one in directories
    ]
    if spec.user is not None:
        config["User"] = spec.user if ":" in spec.user else f"{spec.user}:{spec.user}"
    if spec.command:
        config["Cmd"] = list(spec.command)
    return config


def _host_config(
    agent: str, workload: Workload, ports: Mapping[int, int], publish_on: tuple[str, ...]
) -> dict[str, Any]:
    resources = workload.spec.resources
    config: dict[str, Any] = {
        "NetworkMode": network_name(agent, workload.key),
        "PortBindings": {
            f"{port}/tcp": [{"HostIp": address, "HostPort": str(host)} for address in publish_on]
            for port, host in ports.items()
        },
        "Mounts": [
            {
                "Type": "volume",
                "Source": volume_name(agent, workload.key, volume.name),
                "Target": volume.path,
                "ReadOnly": volume.read_only,
            }
            for volume in workload.spec.volumes
            if volume.shared is None
        ],
        "Tmpfs": {
            one.path: f"rw,nosuid,nodev,noexec,size={size_in_bytes(one.size)},mode=1777"
            for one in (_TMP, *workload.spec.tmpfs)
        },
        "ReadonlyRootfs": True,
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges"],
        "IpcMode": "private",
        "Sysctls": {"net.ipv6.conf.all.disable_ipv6": "1"},  # as Docker has it; its networks are IPv4
        "PidsLimit": resources.pids or _DEFAULT_PIDS,
        "RestartPolicy": {"Name": "no"},
        "LogConfig": {"Type": "json-file", "Config": {"max-size": "10m", "max-file": "3"}},
    }
    if resources.memory is not None:
        # as much with swap as without: a limit that swaps is felt by everybody else on the machine
        config["Memory"] = config["MemorySwap"] = size_in_bytes(resources.memory)
    if resources.cpus is not None:
        config["NanoCpus"] = int(resources.cpus * 1e9)
    return config
