"""What the actions on secrets share: whom to seal to, who opens, and the sentences around it."""

from __future__ import annotations

import argparse
import os
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from reconciler.commands.output import tell
from reconciler.commands.secret_tree import SecretTree
from reconciler.desired.edits import EditConflict
from reconciler.desired.finding import did_you_mean
from reconciler.desired.lookup import SecretUnavailable
from reconciler.errors import Rejected
from reconciler.pki.identities import identities_of_data, identities_of_file, open_with
from reconciler.pki.sealing import Opener
from schemas.fleet import Fleet
from schemas.objects import ObjectKey


def add_identity_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--identity`` and ``--data``, of which one is needed."""
    group = parser.add_mutually_exclusive_group(required=True)
    group.add_argument("--identity", type=Path, action="append", metavar="FILE",
                       help="file with an age identity; may be given more than once")  # fmt: skip
    group.add_argument("--data", type=Path, metavar="DIR", help="data directory of serve, for the identity there")


def recipients_of(fleet: Fleet, team: str = "") -> Sequence[str]:
    """Return whom to seal to. With ``team``: the team that the secret belongs to must be in the fleet.

    Raises:
        Rejected: when there is no recipient, or no such team.
    """
    if not fleet.spec.recipients:
        raise Rejected(
            "The fleet has no recipients, so nobody could open what is sealed.",
            reason="NoRecipients",
            hint="Print the one of your control plane on its machine with: cloudlunacy secret recipient --data DIR "
            "(serve says it at its start, too), and write it under spec.recipients in fleet.yaml.",
        )
    teams = [one.name for one in fleet.spec.teams]
    if team and team not in teams:
        hint = did_you_mean(team, teams) or "Add the team to fleet.yaml first."
        raise Rejected(f'The fleet has no team "{team}".', reason="UnknownTeam", hint=hint)
    return fleet.spec.recipients


def openers_of(options: argparse.Namespace) -> tuple[Opener, ...]:
    """Return the identities that the options name.

    Raises:
        Broken: when one cannot be used.
    """
    if options.data is not None:
        return identities_of_data(options.data, os.environ)
    return tuple(opener for path in options.identity for opener in identities_of_file(path))


def existing(tree: SecretTree, secret: ObjectKey) -> bytes:
    """Return the file of a secret.

    Raises:
        Rejected: when there is none.
    """
    content = tree.read(secret.path)
    if content is None:
        name = f"{secret.team}/{secret.name}"
        others = [path.removeprefix("secrets/").removesuffix(".yaml") for path in tree.paths()]
        hint = did_you_mean(name, others) or f"Make it: cloudlunacy secret seal {name} KEY"
        raise Rejected(f"There is no {secret.path}.", reason="NoSecret", hint=hint)
    return content


def opened(path: str, key: str, openers: Sequence[Opener], armour: str) -> str:
    """Return a value in clear.

    Raises:
        Rejected: when no identity opens it.
    """
    try:
        return open_with(openers, armour)
    except SecretUnavailable as error:
        raise Rejected(f"{path}, {key}: {error}.", reason="SecretUnavailable") from None


def tell_to_commit(directory: Path, path: str, subject: str) -> None:
    """Say how what was written gets into git."""
    git = "git" if directory == Path() else f"git -C {shlex.quote(str(directory))}"
    tell(f"Commit it: {git} add {path} && {git} commit -m {shlex.quote(subject)}")


@contextmanager
def as_rejection() -> Iterator[None]:
    """Let an edit that cannot be made leave as what a person has to mend."""
    try:
        yield
    except EditConflict as error:
        raise Rejected(str(error), reason="NotEditable") from None


def count(number: int, what: str) -> str:
    """Write a number of things."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
