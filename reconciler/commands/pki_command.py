"""``cloudlunacy pki``: the authority of a fleet: make it, look at it, and sign for it where its root's key is.

A root key may be made for another place, or be somebody's own. Then an intermediate that may sign more takes three
steps: ``request`` here, ``sign`` there, ``install`` here; ``serve`` goes on meanwhile and needs no restart.
"""

from __future__ import annotations

import argparse
import datetime as dt
import os
import sys
from pathlib import Path
from typing import Final

from cryptography import x509

from reconciler.commands import pki_report, pki_reseal, pki_rotate
from reconciler.commands.output import say, say_json, tell
from reconciler.errors import Broken
from reconciler.pki import rotation_file
from reconciler.pki.authority import founding, intermediates
from reconciler.pki.authority.authority import Authority
from reconciler.pki.authority.names import LOOPBACK, Names, Permitted, permitted_for
from reconciler.pki.authority.pairs import pem, read_certificate, read_key, same_key
from reconciler.pki.authority.profiles import Issuer, PrivateKey
from reconciler.pki.authority.requests import MAX_AUTHORITY_REQUEST
from reconciler.pki.private_files import write_new
from reconciler.pki.server_certificate import read_leaf
from reconciler.pki.vault import KEY_FILE, PASSPHRASE_FILE, Vault

_STANDARD: Final = Path("-")
_MAX_FILE: Final = MAX_AUTHORITY_REQUEST


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "pki",
        help="make and look at the authority",
        description="The certificate authority of the fleet. serve makes one by itself at its first start; make it "
        "before when the root's key shall lie elsewhere.",
        epilog=f"Keys are sealed with the key in the file that {KEY_FILE} names, or the passphrase in the file that "
        f"{PASSPHRASE_FILE} names.",
    )
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    _add_init(actions)
    _add_status(actions)
    _add_request(actions)
    _add_sign(actions)
    _add_install(actions)
    pki_rotate.add_parser(actions)
    pki_reseal.add_parser(actions)


def _add_init(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = actions.add_parser(
        "init",
        help="make the authority",
        description="Make the authority of a fleet and print the SHA-256 of its root. With --root-key-out the root's "
        "key is written to that file and kept nowhere else; with --root-cert the root is your own, and its key signs "
        "once, unless --keep-root-key.",
    )
    _add_data(parser)
    _add_names(parser)
    way = parser.add_mutually_exclusive_group()
    way.add_argument("--root-key-out", type=Path, metavar="FILE", help="write the root's key there, and only there")
    way.add_argument("--root-cert", type=Path, metavar="FILE", help="certificate of your own root (PEM)")
    parser.add_argument("--root-key", type=Path, metavar="FILE", help="its key; without it the root signs elsewhere")
    parser.add_argument("--keep-root-key", action="store_true", help="keep that key, so that the authority can grow")
    _add_passphrase(parser)
    parser.set_defaults(run=run_init)


def _add_status(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = actions.add_parser(
        "status",
        help="show roots, intermediates, rotations and what waits",
        description="Show roots and intermediates with their SHA-256, how many certificates there are, which keys are "
        "being rotated and since when the others sign, and what waits for a person.",
    )
    _add_data(parser)
    parser.add_argument("--format", choices=("text", "json"), default="text")
    parser.set_defaults(run=run_status)


def _add_request(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = actions.add_parser(
        "request",
        help="ask an offline root for an intermediate",
        description="Print a signing request for an intermediate that may sign what it may by now, and what waits.",
    )
    _add_data(parser)
    _add_names(parser)
    _add_out(parser)
    parser.set_defaults(run=run_request)


def _add_sign(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = actions.add_parser(
        "sign",
        help="sign a request with the root's key",
        description="Print the intermediate that a request asks for; what it may sign is said on standard error. This "
        "needs no data directory: it runs where the root's key is.",
    )
    parser.add_argument("--root-cert", type=Path, required=True, metavar="FILE", help="certificate of the root (PEM)")
    parser.add_argument("--root-key", type=Path, required=True, metavar="FILE", help="key of the root (PEM)")
    _add_passphrase(parser)
    parser.add_argument("--request", type=Path, default=_STANDARD, metavar="FILE", help="- is standard input (default)")
    _add_out(parser)
    parser.set_defaults(run=run_sign)


def _add_install(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = actions.add_parser(
        "install",
        help="put an intermediate into service",
        description="Put the intermediate that the root signed into service. serve takes it up without a restart.",
    )
    _add_data(parser)
    parser.add_argument("certificate", type=Path, metavar="FILE", help="what sign printed; - is standard input")
    parser.set_defaults(run=run_install)


def run_init(options: argparse.Namespace) -> int:
    """Print the fingerprint of the root and nothing else on stdout."""
    if options.root_key is not None and options.root_cert is None:
        raise Broken("--root-key needs --root-cert.", hint="To write a new root's key to a file, use --root-key-out.")
    if options.keep_root_key and options.root_key is None:
        raise Broken("--keep-root-key needs --root-key.", hint="A root that is made here is kept anyway.")
    os.umask(0o077)  # as serve: the data directory that is made here is nobody else's
    permitted, now = permitted_for(listen=LOOPBACK) | _names(options), _now()
    keys, vault = _keys(options)
    if options.root_key_out is not None:
        passphrase = _passphrase(options)
        founding.found_offline(
            keys, vault, permitted, key_out=options.root_key_out.absolute(), passphrase=passphrase, now=now
        )
        tell(f"The root's key is in {options.root_key_out} and nowhere else. Take it to a safe place.")
    elif options.root_cert is not None:
        certificate, key = _certificate(options.root_cert), None
        if options.root_key is not None:
            key = _root_key(options, certificate)
        kept = options.keep_root_key
        founding.bring(keys, vault, permitted, certificate=certificate, key=key, keep_key=kept, now=now)
    else:
        founding.found(keys, vault, permitted, now=now, first=True)
    authority = Authority(keys, vault)
    say(authority.bundle().fingerprints[0])
    _tell_what_waits(authority)
    return 0


def run_status(options: argparse.Namespace) -> int:
    """Show the authority; this needs no key."""
    keys, vault = _keys(options)
    said = pki_report.report(Authority(keys, vault), rotation_file.load(keys), read_leaf(keys), _now())
    if options.format == "json":
        say_json(said)
    else:
        say(pki_report.as_text(said))
    return 0


def run_request(options: argparse.Namespace) -> int:
    """Print a request."""
    _write(options.out, Authority(*_keys(options)).request(_names(options)))
    tell("Next, where the root's key is: cloudlunacy pki sign --root-cert FILE --root-key FILE --request FILE")
    return 0


def run_sign(options: argparse.Namespace) -> int:
    """Print a certificate, and say what it is good for."""
    root = _certificate(options.root_cert)
    issuer = Issuer(root, _root_key(options, root))
    certificate, permitted = intermediates.sign_request(issuer, _read(options.request), now=_now())
    _write(options.out, pem(certificate))
    tell(f"It may sign until {certificate.not_valid_after_utc:%Y-%m-%d}: {_said(permitted)}")
    tell("Next, on the machine of the control plane: cloudlunacy pki install --data DIR FILE")
    return 0


def run_install(options: argparse.Namespace) -> int:
    """Say what the authority may sign now."""
    authority = Authority(*_keys(options))
    permitted = authority.install(_read(options.certificate), _now())
    tell(f"The authority may sign now: {_said(permitted)}")
    _tell_what_waits(authority)
    return 0


def _add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="data directory of serve")


def _add_names(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--domain", type=_domain, metavar="NAME", help="base domain of the fleet")
    parser.add_argument("--name", action="append", default=[], type=_host, metavar="HOST",
                        help="further name or address that may be signed; may be given more than once")  # fmt: skip


def _add_passphrase(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--root-passphrase-file", type=Path, metavar="FILE", help="file with the passphrase of the root's key"
    )


def _add_out(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, default=_STANDARD, metavar="FILE", help="- is standard output (default)")


def _keys(options: argparse.Namespace) -> tuple[Path, Vault]:
    keys = options.data.absolute() / "keys"
    if options.run is run_init or keys.is_dir():
        return keys, Vault.of_environment(keys, os.environ)
    return keys, Vault()  # there is nothing to unlock, and nothing is made


def _names(options: argparse.Namespace) -> Permitted:
    return permitted_for(listen=options.name, domain=options.domain or "")


def _host(text: str) -> str:
    try:
        Names.of([text])
    except ValueError:
        raise argparse.ArgumentTypeError(f'"{text}" is neither a host name nor an address') from None
    return text


def _domain(text: str) -> str:
    try:
        Names(dns=(text,))
    except ValueError:
        text = "*"
    if "*" in text:
        raise argparse.ArgumentTypeError("the domain is a host name in lower case, such as fleet.example.com")
    return text


def _passphrase(options: argparse.Namespace) -> bytes | None:
    if options.root_passphrase_file is None:
        return None
    passphrase = _read(options.root_passphrase_file).removesuffix(b"\n").removesuffix(b"\r")
    if not passphrase:
        raise Broken(f"{options.root_passphrase_file} is empty.", hint="It should hold a passphrase.")
    return passphrase


def _root_key(options: argparse.Namespace, certificate: x509.Certificate) -> PrivateKey:
    key = read_key(_read(options.root_key), _passphrase(options))
    if key is None:
        raise Broken(
            f"{options.root_key} holds no key that can be read: P-256, P-384 or RSA with 2048 bits, as PEM.",
            hint="Is it encrypted? Then --root-passphrase-file has to name the right passphrase.",
        )
    if not same_key(key.public_key(), certificate.public_key()):
        raise Broken(f"{options.root_key} is not the key of {options.root_cert}.", hint="Give the two that fit.")
    return key


def _certificate(path: Path) -> x509.Certificate:
    certificate = read_certificate(_read(path))
    if certificate is None:
        raise Broken(f"{path} holds no certificate.", hint="It should be PEM: -----BEGIN CERTIFICATE-----")
    return certificate


def _read(path: Path) -> bytes:
    if path == _STANDARD:
        return sys.stdin.buffer.read(_MAX_FILE)
    with path.open("rb") as file:
        return file.read(_MAX_FILE)


def _write(path: Path, content: bytes) -> None:
    if path == _STANDARD:
        say(content.decode("ascii"))
        return
    try:
        write_new(path, content)
    except FileExistsError:
        raise Broken(f"{path} exists already.", hint="Name another file with --out.") from None


def _tell_what_waits(authority: Authority) -> None:
    outstanding = authority.outstanding()
    if outstanding is not None:
        tell(f"{outstanding.message} {outstanding.hint}")


def _said(permitted: Permitted) -> str:
    return ", ".join(permitted.texts()) or "nothing"


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)
