"""What containers may reach of this machine: nothing. Engines separate networks from each other, not from the machine.

The rules go by the names that all interfaces of deployments begin with, and by the range of their addresses where an
engine names interfaces itself (a container without capabilities cannot send from another one). So they may be there
before any such interface is, and are the same for every agent of a machine. They stand in the table ``mangle``, before
anything that ``ufw``, ``firewalld`` or the engine itself decides, and let replies pass: a published port is answered,
and so is what a container asks of the world. The addresses at which clouds give credentials to machines
(169.254.0.0/16) count as the machine's.
"""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

from agent.deployments.container_config import BRIDGE_PREFIX, SUBNETS
from agent.deployments.driver import DriverError

CHAIN: Final = "CLOUDLUNACY"
_SECONDS: Final = 20.0


def rules(*, ipv6: bool) -> str:
    """Return the chain in the words of ``iptables-restore``."""
    # Podman separates no networks by itself
    others = ("169.254.0.0/16", SUBNETS)
    here = "" if ipv6 else "".join(f"-A {CHAIN} -d {network} -j DROP\n" for network in others)
    return (
        "*mangle\n"
        f":{CHAIN} - [0:0]\n"
        f"-A {CHAIN} -m conntrack --ctstate ESTABLISHED,RELATED -j RETURN\n"
        f"-A {CHAIN} -m addrtype --dst-type LOCAL -j DROP\n"
        f"{here}"
        "COMMIT\n"
    )


class Firewall(Protocol):
    async def ensure(self) -> None:
        """Have the rules in place. Raises DriverError where that is impossible."""
        ...


class NoFirewall:
    """For machines whose own rules keep containers away."""

    async def ensure(self) -> None:
        pass


class IpTables:
    """Rules by the ``iptables`` program, which the engine uses as well. Needs root, or CAP_NET_ADMIN."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()

    async def ensure(self) -> None:
        async with self._turn:
            await self._ensure("iptables", ipv6=False)
            try:
                await self._ensure("ip6tables", ipv6=True)
            except DriverError:
                return  # a machine without IPv6; networks of deployments have none

    async def _ensure(self, program: str, *, ipv6: bool) -> None:
        """Write the chain anew, in one step, for somebody may have emptied it; then the jumps that are not there."""
        said = await _run(f"{program}-restore", "--wait", "--noflush", stdin=rules(ipv6=ipv6))
        by_name, by_address = ("-i", f"{BRIDGE_PREFIX}+"), ("-s", SUBNETS, "!", "-i", "lo")
        for match in (by_name,) if ipv6 else (by_name, by_address):
            jump = ("PREROUTING", *match, "-j", CHAIN)
            if said is None and await _run(program, "--wait", "-t", "mangle", "-C", *jump) is not None:
                said = await _run(program, "--wait", "-t", "mangle", "-A", *jump)
        if said is not None:
            text = f"Containers cannot be kept away from this machine, so none is started: {program} said {said}"
            raise DriverError("NotIsolated", text, retryable=True)


async def _run(program: str, *arguments: str, stdin: str = "") -> str | None:
    """Run a program; return what it complains of, None where it is content."""
    try:
        process = await asyncio.create_subprocess_exec(
            program,
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
    except OSError as error:
        return f"{error.strerror}."
    try:
        async with asyncio.timeout(_SECONDS):
            _, complaint = await process.communicate(stdin.encode())
    except TimeoutError:
        process.kill()
        await process.wait()
        return "nothing for too long."
    return None if process.returncode == 0 else " ".join(complaint.decode(errors="replace").split())[:200]
