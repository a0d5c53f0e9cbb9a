"""The text of the agent's systemd unit. PURE.

Why it is not shut in further (docs/adr): what the agent runs as programs are its children and live in what the unit
gives. bubblewrap has to make namespaces and mount a /proc of its own, which the kernel refuses where parts of /proc are
covered; so nothing that covers them (ProtectKernelTunables, ProtectKernelLogs, ProtectProc) and no RestrictNamespaces.
It names the host inside of its namespace, which ProtectHostname forbids everywhere (systemd.exec(5)).
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Final

from agent.installing.layout import USER

CAPABILITIES: Final = (
    *("CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP", "SETFCAP"),
    *("NET_ADMIN", "NET_BIND_SERVICE", "NET_RAW", "SYS_ADMIN", "SYS_CHROOT", "SYS_PTRACE", "SYS_RESOURCE", "MKNOD"),
)
"""What files of users, firewall rules, bubblewrap and programs need; no modules, no clock, no raw disk, no reboot."""

_HEAD: Final = """\
# Written by cloudlunacy agent install, which writes it anew. Changes of yours belong into
# {unit}.d/local.conf
[Unit]
Description=CloudLunacy agent
After=network.target nss-lookup.target
# What keeps containers off the server stands before the engine starts them.
Before=docker.service podman-restart.service
StartLimitIntervalSec=0

[Service]
Type=notify
ExecStart={program} agent run --data {data}
# It ends with 1 for what a person has to mend, and comes back by itself once that is done.
Restart=always
RestartSec=5
WatchdogSec=180
TimeoutStopSec=30
# Programs that it runs outlive it: an upgrade interrupts nothing.
KillMode=process
UMask=0077
LimitCORE=0
LimitNOFILE=65536
TasksMax=infinity
Delegate=yes
"""
_ROOT: Final = """\
# root, because whoever may use the engine's socket is root already, and rules, users and namespaces need it.
CapabilityBoundingSet={capabilities}
NoNewPrivileges=yes
ProtectSystem=yes
ProtectHome=read-only
ProtectKernelModules=yes
LockPersonality=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
SystemCallArchitectures=native
"""
_USER: Final = """\
# Nothing that it does needs root: it runs neither containers nor programs.
User={user}
Group={user}
CapabilityBoundingSet=
AmbientCapabilities=
NoNewPrivileges=yes
ProtectSystem=strict
ReadWritePaths={data}
ProtectHome=yes
PrivateTmp=yes
PrivateDevices=yes
ProtectClock=yes
ProtectHostname=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectProc=invisible
LockPersonality=yes
MemoryDenyWriteExecute=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RestrictNamespaces=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
"""
_FOOT: Final = """
[Install]
WantedBy=multi-user.target
"""


def unit_text(program: PurePosixPath, data: PurePosixPath, *, root: bool, path: PurePosixPath) -> str:
    """Return the unit. ``root``: for an agent that runs something; ``path``: where it is going to lie."""
    # only in command lines $ begins a variable
    head = _HEAD.format(program=_word(program).replace("$", "$$"), data=_word(data).replace("$", "$$"), unit=path)
    if root:
        return head + _ROOT.format(capabilities=" ".join(f"CAP_{one}" for one in CAPABILITIES)) + _FOOT
    return head + _USER.format(user=USER, data=_word(data)) + _FOOT


def _word(path: PurePosixPath) -> str:
    """Quote a path for a unit (systemd.syntax(7)); ``%`` would begin a specifier."""
    text = str(path).replace("%", "%%").replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"' if any(character in text for character in " \"'\\;") else text
