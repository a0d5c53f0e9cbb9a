"""``cloudlunacy secret edit``: the values of one secret in a person's editor."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence

from reconciler.commands.output import say, tell
from reconciler.commands.private_editing import edit, editor_command, private_file
from reconciler.commands.secret_keys import as_rejection, existing, opened, openers_of, recipients_of, tell_to_commit
from reconciler.commands.secret_tree import SecretTree, parse_secret
from reconciler.desired.edits import EditConflict
from reconciler.desired.secret_file import with_values
from reconciler.desired.secret_text import from_text, to_text
from reconciler.errors import Rejected
from reconciler.pki.sealing import seal
from schemas.objects import ObjectKey


def run(options: argparse.Namespace) -> int:
    """Let a person edit the values, and seal those that changed."""
    tree, secret = SecretTree(options.dir), options.secret
    recipients = recipients_of(tree.fleet(), secret.team)
    content = existing(tree, secret)
    openers = openers_of(options)
    sealed = parse_secret(secret.path, content).spec.sealed
    before = {key: opened(secret.path, key, openers, armour) for key, armour in sealed.items()}
    changes = _changes(before, _edited(secret, before), recipients)
    if tree.read(secret.path) != content:
        hint = "Edit it again."
        raise Rejected(f"{secret.path} was changed by somebody else meanwhile.", reason="Changed", hint=hint)
    with as_rejection():
        edited = with_values(secret.path, content, changes)
    parse_secret(secret.path, edited)
    tree.write({secret.path: edited})
    for key, armour in changes.items():
        say(f"{secret.path}: {key} is {'taken out' if armour is None else 'sealed'}.")
    tell_to_commit(options.dir, secret.path, f"Edit {secret.team}/{secret.name}")
    return 0


def _changes(before: Mapping[str, str], after: Mapping[str, str], recipients: Sequence[str]) -> dict[str, str | None]:
    """Return key → armour of what changed, None for a key that is gone."""
    changed = {key: value for key, value in after.items() if before.get(key) != value}
    empty = next((key for key, value in changed.items() if not value), None)
    if empty is not None:
        hint = "Delete its line to take the key out."
        raise Rejected(f'The value of "{empty}" is empty; nothing was changed.', reason="Empty", hint=hint)
    gone: dict[str, str | None] = dict.fromkeys(key for key in before if key not in after)
    if not changed and not gone:
        raise Rejected("No value was changed, so nothing is written.", reason="Unchanged")
    return gone | {key: seal(value, recipients) for key, value in changed.items()}


def _edited(secret: ObjectKey, values: Mapping[str, str]) -> dict[str, str]:
    command = editor_command(os.environ)
    with private_file(f"{secret.name}.yaml", to_text(secret.path, values), os.environ) as file:
        while True:
            try:
                return from_text(edit(file, command))
            except EditConflict as error:
                if not _wants_another_try(str(error)):
                    raise Rejected(f"{error} Nothing was changed.", reason="NotReadable") from None


def _wants_another_try(mistake: str) -> bool:
    if not sys.stdin.isatty():
        return False
    tell(mistake)
    sys.stderr.write("Edit again? [Y/n] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("", "y", "yes")
