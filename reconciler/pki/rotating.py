"""What belongs to each phase of a rotation, done to the keys on disk. Calls block, and may be repeated."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any

from reconciler.pki.authority.authority import Authority
from reconciler.pki.authority.folder import AuthorityKind
from reconciler.pki.authority.names import Permitted
from reconciler.pki.keystore import KeyStore, Purpose
from reconciler.pki.rotation import OF_THE_AUTHORITY, Rotation
from schemas.trust import Trust


class RotatedKeys:
    """The keys of tokens and documents, the authority, and the age identity."""

    def __init__(self, keys: KeyStore, authority: Authority) -> None:
        self._keys = keys
        self._authority = authority

    def work(self, rotation: Rotation, permitted: Permitted, now: dt.datetime) -> str:
        """Do what belongs to the phase; return what a person has to do first, "" where there is nothing.

        ``permitted``: what a next intermediate has to be able to sign.

        Raises:
            Broken: when files cannot be used.
        """
        match rotation.subject:
            case "root" | "intermediate":
                return self._authority_work(rotation.subject, rotation, permitted, now)
            case "age":
                self._identity_work(rotation)
            case "access" | "desired" | "operator":
                self._purpose_work(rotation.subject, rotation)
        return ""

    def give_up(self, rotation: Rotation) -> None:
        """Forget the next root or intermediate. Other next keys are known for long, and stay."""
        if rotation.subject in OF_THE_AUTHORITY:
            self._authority.drop_next()

    def trust(self, replace_within: dt.timedelta) -> Mapping[str, Any]:
        """Return what agents are to believe by now, as the member of their item says it."""
        trust = Trust(
            bundle=self._authority.bundle().pem,
            jwks=self._keys.jwks("desired"),
            retired=tuple(sorted(self._authority.authorities().tainted)),
            replace_within=replace_within.total_seconds(),
        )
        return trust.model_dump(mode="json", by_alias=True)

    def _authority_work(self, kind: AuthorityKind, rotation: Rotation, permitted: Permitted, now: dt.datetime) -> str:
        match rotation.phase:
            case "prepare":
                waits = self._authority.prepare_next(kind, permitted, now)
                return "" if waits is None else f"{waits.message} {waits.hint}"
            case "activate":
                self._authority.promote_next(kind)
                if rotation.tainted:
                    self._authority.revoke_former(now)
            case "remove":
                self._authority.drop_former(kind)
            case "distribute" | "wait":
                pass
        return ""

    def _purpose_work(self, purpose: Purpose, rotation: Rotation) -> None:
        match rotation.phase:
            case "prepare":
                self._keys.prepare_next(purpose, fresh=rotation.tainted)
            case "activate":
                self._keys.promote_next(purpose)
            case "remove":
                self._keys.drop_former(purpose)
            case "distribute" | "wait":
                pass

    def _identity_work(self, rotation: Rotation) -> None:
        match rotation.phase:
            case "prepare":
                self._keys.next_recipient()
            case "activate":
                self._keys.promote_next_identity()
            case "remove":
                self._keys.drop_former_identity()
            case "distribute" | "wait":
                pass
