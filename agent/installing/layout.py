"""Where everything of an installed agent lies. ``root`` is ``/``, or the directory of a machine that is prepared."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Final, NamedTuple

UNIT: Final = "cloudlunacy-agent.service"
USER: Final = "cloudlunacy-agent"
OPT: Final = PurePosixPath("/opt/cloudlunacy")
DATA: Final = PurePosixPath("/var/lib/cloudlunacy-agent")
UNITS: Final = PurePosixPath("/etc/systemd/system")
PROGRAM: Final = OPT / "current/bin/cloudlunacy"
COMMAND: Final = PurePosixPath("/usr/local/bin/cloudlunacy")


class Layout(NamedTuple):
    root: Path
    data: PurePosixPath = DATA

    def at(self, path: PurePosixPath) -> Path:
        """Return where a path of the machine lies now."""
        return self.root / path.relative_to("/")

    @property
    def data_dir(self) -> Path:
        return self.at(self.data)

    @property
    def unit(self) -> Path:
        return self.at(UNITS / UNIT)

    @property
    def opt(self) -> Path:
        return self.at(OPT)

    @property
    def versions(self) -> Path:
        return self.opt / "versions"

    @property
    def current(self) -> Path:
        """Symbolic link to the release that runs."""
        return self.opt / "current"

    @property
    def previous(self) -> Path:
        """Symbolic link to the one before it."""
        return self.opt / "previous"

    @property
    def command(self) -> Path:
        """Symbolic link for people."""
        return self.at(COMMAND)

    @property
    def has_systemd(self) -> bool:
        """Whether systemd is in charge (sd_booted(3)); of a prepared machine, whether it will be."""
        mark = PurePosixPath("/run/systemd/system" if self.root == Path("/") else "/etc/systemd")
        return self.at(mark).is_dir()
