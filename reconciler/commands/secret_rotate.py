"""``cloudlunacy secret rotate``: every value of a state repo sealed to the present recipients of its fleet."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from reconciler.commands.output import say, tell
from reconciler.commands.secret_keys import count, opened, openers_of, recipients_of
from reconciler.commands.secret_tree import SecretTree, parse_secret
from reconciler.desired.edits import EditConflict
from reconciler.desired.secret_file import with_values
from reconciler.errors import Rejected
from reconciler.pki.identities import surely_sealed_to
from reconciler.pki.sealing import Opener, seal


def run(options: argparse.Namespace) -> int:
    """Seal everything to the present recipients, or nothing."""
    tree = SecretTree(options.dir)
    recipients, openers = recipients_of(tree.fleet()), openers_of(options)
    _tell_of_strangers(recipients, openers)
    files: dict[str, bytes] = {}
    wrong: list[str] = []
    sealed = left = 0
    for path in tree.paths():
        try:
            content = tree.read(path) or b""
            changes = _resealed(path, content, recipients, openers)
            left += len(parse_secret(path, content).spec.sealed) - len(changes)
            sealed += len(changes)
            if changes:
                files[path] = with_values(path, content, changes)
                parse_secret(path, files[path])
        except (Rejected, EditConflict) as error:
            wrong += [str(error), *(str(problem) for problem in getattr(error, "problems", ()))]
    if wrong:
        for sentence in wrong:
            tell(sentence)
        raise Rejected("Nothing was written, because not all could be.", reason="NotRotated")
    tree.write(files)
    for path in files:
        say(path)
    _tell_rotated(sealed, left, len(files), len(recipients))
    return 0


def _tell_of_strangers(recipients: Sequence[str], openers: Sequence[Opener]) -> None:
    held = {opener.recipient() for opener in openers}
    if held.isdisjoint(recipients):
        tell(f"Note: {' and '.join(sorted(held))} is no recipient of the fleet, and will not open what is sealed now.")


def _resealed(
    path: str, content: bytes, recipients: Sequence[str], openers: Sequence[Opener]
) -> dict[str, str]:  # fmt: skip
    """Return key → armour of the values of one file that have to be sealed again."""
    return {
        key: seal(opened(path, key, openers, armour), recipients)
        for key, armour in parse_secret(path, content).spec.sealed.items()
        if not surely_sealed_to(armour, recipients, openers)
    }


def _tell_rotated(sealed: int, left: int, files: int, recipients: int) -> None:
    rest = f" {count(left, 'value')} left as {'it was' if left == 1 else 'they were'}." if left else ""
    if not sealed:
        tell(f"Nothing to do.{rest}")
        return
    tell(
        f"{count(sealed, 'value')} in {count(files, 'file')} sealed to {count(recipients, 'recipient')}.{rest} "
        "Review and commit them. Git keeps what they were: where a former recipient may have read them, change the "
        "values themselves."
    )
