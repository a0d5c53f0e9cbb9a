"""Which values a deployment is given, as a digest: a change of any of them makes another version of it. PURE.

The digest is of the sealed texts, so nothing of a value is in it that git does not show anyway. Values that are sealed
anew, as in a rotation of the fleet's identity, are another version too.
"""

from __future__ import annotations

from collections.abc import Callable

from schemas.deployment import DeploymentSpec
from schemas.secret import Secret
from schemas.session import digest_of

FindSecret = Callable[[str], Secret | None]
"""The secret of the deployment's team with this name."""


def secrets_version(spec: DeploymentSpec, find: FindSecret) -> str | None:
    """Return the version of all values that a deployment names; None where it names none."""
    uses = {use.id: _sealed(find(use.secret), use.key) for use in spec.secret_uses()}
    return digest_of(uses) if uses else None


def _sealed(secret: Secret | None, key: str) -> str | None:
    text = None if secret is None else secret.spec.sealed.get(key)
    return None if text is None else text.strip()
