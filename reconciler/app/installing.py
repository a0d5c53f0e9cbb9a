"""What new agents are installed with: the script of ``templates/install`` and the program that runs here."""

from __future__ import annotations

from reconciler.app.own_wheel import own_wheel
from reconciler.package_data import data_directory
from reconciler.web.install_api import InstallApi


def install_api() -> InstallApi:
    """Return the endpoints; nothing is made before somebody asks."""
    script = data_directory("templates") / "install" / "install.sh"
    return InstallApi(own_wheel, lambda: script.read_text(encoding="utf-8"))
