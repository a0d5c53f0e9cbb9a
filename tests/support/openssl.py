"""openssl as an outside judge of certificates and lists of revocations."""

from __future__ import annotations

import datetime as dt
import subprocess
from pathlib import Path
from typing import NamedTuple

from tests.support import parts


class Verdict(NamedTuple):
    """What openssl says; ``text`` is for a person."""

    good: bool
    text: str


def verify(
    folder: Path,
    chain: str,
    roots: str,
    *,
    at: dt.datetime,
    purpose: str = "",
    hostname: str = "",
    address: str = "",
    crl: bytes = b"",
) -> Verdict:
    """Judge the first certificate of ``chain`` (PEM) by ``roots``; the rest of the chain is trusted by nobody."""
    leaf, untrusted, trusted = folder / "leaf.pem", folder / "untrusted.pem", folder / "roots.pem"
    first, end, rest = chain.partition("-----END CERTIFICATE-----\n")
    leaf.write_text(first + end)
    untrusted.write_text(rest)
    trusted.write_text(roots)
    words = ["-x509_strict", "-attime", str(int(at.timestamp())), "-no-CApath", "-no-CAstore", "-CAfile", str(trusted)]
    words += ["-untrusted", str(untrusted)] if rest.strip() else []
    words += ["-purpose", purpose] if purpose else []
    words += ["-verify_hostname", hostname] if hostname else []
    words += ["-verify_ip", address] if address else []
    if crl:
        (folder / "list.pem").write_text(run("crl", "-inform", "DER", content=crl).text)
        words += ["-crl_check", "-CRLfile", str(folder / "list.pem")]
    return run("verify", *words, str(leaf))


def run(*words: str, content: bytes = b"") -> Verdict:
    """Run openssl with ``content`` on its standard input."""
    program = str(parts.require("openssl"))
    done = subprocess.run([program, *words], input=content, capture_output=True, timeout=30, check=False)
    return Verdict(done.returncode == 0, (done.stdout + done.stderr).decode(errors="replace"))
