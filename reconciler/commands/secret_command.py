"""``cloudlunacy secret``: seal, reveal, edit and rotate the values of ``secrets/<team>/<name>.yaml`` in a work tree.

A clear value comes from a file, a pipe or a terminal, and goes to standard output or into a private file for an editor:
never into an argument, a message or a file of the repository.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from reconciler.commands import secret_edit, secret_rotate
from reconciler.commands.output import say, tell
from reconciler.commands.secret_keys import (
    add_identity_options,
    as_rejection,
    count,
    existing,
    opened,
    openers_of,
    recipients_of,
    tell_to_commit,
)
from reconciler.commands.secret_tree import SecretTree, parse_secret
from reconciler.commands.secret_value import STANDARD_INPUT, read_value
from reconciler.desired.finding import did_you_mean
from reconciler.desired.lookup import SecretUnavailable
from reconciler.desired.secret_file import new_file, with_values
from reconciler.errors import Rejected
from reconciler.pki.identities import open_with
from reconciler.pki.sealing import Opener, seal
from schemas.objects import ObjectKey, key_of_path
from schemas.secret import SecretKey
from schemas.text import visible

_KEY = TypeAdapter[str](SecretKey)


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "secret",
        help="seal and open secrets",
        description="Seal values to the recipients of the fleet, so that they may stand in git; and open them again.",
    )
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    _add_seal(actions)
    _add_reveal(actions)
    _add_edit(actions)
    _add_rotate(actions)
    recipient = actions.add_parser(
        "recipient",
        help="print to whom secrets are to be sealed",
        description="Print the recipient of an identity, for spec.recipients in fleet.yaml.",
    )
    add_identity_options(recipient)
    recipient.set_defaults(run=run_recipient)


def _add_seal(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = actions.add_parser(
        "seal",
        help="put a value into a secret",
        description="Seal a value to the recipients of the fleet and write it into secrets/TEAM/NAME.yaml. It is read "
        "from standard input or a file, or asked for at a terminal; it is never an argument, which others could see.",
    )
    _add_secret(parser)
    parser.add_argument("key", type=_key, metavar="KEY", help="name of the value in the secret")
    parser.add_argument("--value-file", type=Path, default=STANDARD_INPUT, metavar="FILE",
                        help="file with the value; - is standard input (default)")  # fmt: skip
    parser.add_argument("--keep-newline", action="store_true", help="keep a line end at the end of the value")
    parser.set_defaults(run=run_seal)


def _add_reveal(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = actions.add_parser(
        "reveal",
        help="print a value in clear",
        description="Print one value in clear, exactly as it was sealed. Without KEY: which values there are, and "
        "whether they can be opened.",
    )
    _add_secret(parser)
    parser.add_argument("key", nargs="?", type=_key, metavar="KEY", help="name of the value in the secret")
    add_identity_options(parser)
    parser.set_defaults(run=run_reveal)


def _add_edit(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = actions.add_parser(
        "edit",
        help="edit the values of a secret",
        description="Open the values of a secret in $EDITOR, in a private file in memory that is removed afterwards. "
        "Only values that changed are sealed again.",
    )
    _add_secret(parser)
    add_identity_options(parser)
    parser.set_defaults(run=secret_edit.run)


def _add_rotate(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = actions.add_parser(
        "rotate",
        help="seal every value again, after recipients changed",
        description="Seal every value of the state repo to the present recipients of the fleet. Values that are known "
        "to be sealed to exactly these are left alone; where one cannot be opened, nothing is written.",
    )
    _add_directory(parser)
    add_identity_options(parser)
    parser.set_defaults(run=secret_rotate.run)


def _add_secret(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("secret", type=_secret, metavar="TEAM/NAME", help="which secret")
    _add_directory(parser)


def _add_directory(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dir", type=Path, default=Path(), metavar="DIR", help="state repo (default: .)")


def _secret(text: str) -> ObjectKey:
    key = key_of_path(f"secrets/{text}.yaml")
    if key is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no secret; write TEAM/NAME, such as shop/database")
    return key


def _key(text: str) -> str:
    try:
        return _KEY.validate_python(text)
    except ValidationError:
        # not repeated: it may be the value, in place of the name
        words = "this is no key; use letters, digits and . _ -, beginning with a letter or digit"
        raise argparse.ArgumentTypeError(words) from None


def run_seal(options: argparse.Namespace) -> int:
    """Seal one value."""
    tree, secret, key = SecretTree(options.dir), options.secret, options.key
    recipients = recipients_of(tree.fleet(), secret.team)
    content = tree.read(secret.path)
    value = read_value(options.value_file, keep_newline=options.keep_newline)
    armour = seal(value, recipients)
    edited = new_file(secret.name, {key: armour})
    if content is not None:
        with as_rejection():
            edited = with_values(secret.path, content, {key: armour})
    parse_secret(secret.path, edited)
    tree.write({secret.path: edited})
    say(f"{secret.path}: {key} is sealed to {count(len(recipients), 'recipient')}.")
    tell_to_commit(options.dir, secret.path, f"Seal {key} of {secret.team}/{secret.name}")
    return 0


def run_reveal(options: argparse.Namespace) -> int:
    """Print one value, or the names of all."""
    secret = options.secret
    sealed = parse_secret(secret.path, existing(SecretTree(options.dir), secret)).spec.sealed
    openers = openers_of(options)
    if options.key is None:
        for key, armour in sealed.items():
            say(f"{key}: {'can be opened' if _open(openers, armour) is not None else 'cannot be opened'}")
        tell(f"To print a value: cloudlunacy secret reveal {secret.team}/{secret.name} KEY …")
        return 0
    if options.key not in sealed:
        hint = did_you_mean(options.key, sealed) or f"It has: {', '.join(sealed)}."
        raise Rejected(f'{secret.path} has no key "{options.key}".', reason="UnknownKey", hint=hint)
    _print(opened(secret.path, options.key, openers, sealed[options.key]))
    return 0


def _print(value: str) -> None:
    if sys.stdout.isatty():
        tell("This is a secret, and your terminal keeps what it shows. Clear it, or use a pipe.")
        say("\n".join(visible(line) for line in value.split("\n")))
        return
    sys.stdout.buffer.write(value.encode())
    sys.stdout.flush()


def run_recipient(options: argparse.Namespace) -> int:
    """Print the public part of each identity."""
    for opener in openers_of(options):
        say(opener.recipient())
    return 0


def _open(openers: Sequence[Opener], armour: str) -> str | None:
    try:
        return open_with(openers, armour)
    except SecretUnavailable:
        return None
