"""What ``doctor`` finds out about the file that ``CLOUDLUNACY_ACME_FILE`` names, and about what stands in it."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

from reconciler.commands.doctor import AcmeFacts, Fault
from reconciler.errors import Broken
from reconciler.pki.acme.hook import Hook, HookSettings
from reconciler.pki.acme.settings import VARIABLE, AcmeSettings, read_settings

_HINT = f"{VARIABLE} names it; docs/certificates.md shows what it holds."


def acme_facts(path: Path | None) -> AcmeFacts | None:
    """Read the file as ``serve`` does, and look at the programs and files that it names; None where it is not set."""
    if path is None:
        return None
    try:
        settings = read_settings(path)
    except Broken as error:
        return AcmeFacts(str(path), unreadable=Fault(error.message, error.hint or _HINT))
    return AcmeFacts(str(path), faults=tuple(_faults(path, settings)))


def _faults(path: Path, settings: AcmeSettings) -> Iterator[Fault]:
    for directory in settings.directory:
        if directory.ca_file is not None and (why := _why_no_roots(directory.ca_file)):
            message = f"The ca-file of {directory.url} holds no certificates: {directory.ca_file}, {why}."
            yield Fault(message, f"Correct it in {path}; without ca-file the system's roots count.")
    for hook in sorted({one.hook for one in settings.dns if one.hook is not None}):
        try:
            Hook(HookSettings(hook))
        except Broken as error:
            yield Fault(error.message, error.hint or f"Correct it in {path}.")


def _why_no_roots(path: Path) -> str:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(cafile=path)
    except ssl.SSLError:
        return "which is no PEM"
    except OSError as error:
        return error.strerror or "which cannot be read"
    return "" if context.cert_store_stats()["x509"] else "in which there is none"
