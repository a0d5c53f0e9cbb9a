"""Certificates that are deleted, or lose names, while routes need them.

Such a certificate keeps its last good version, as a broken one would: otherwise a slip of one file took TLS from the
hosts of many. A file that is gone is judged anew with each revision, until nothing needs it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain

from reconciler.desired.coverage import IN_USE, ends_tls, losses, still_in_use, users_of
from reconciler.desired.finding import Finding
from reconciler.desired.serving import Serving
from reconciler.desired.state import Served, State
from schemas.certificate import Certificate
from schemas.objects import ObjectKey


def kept_though_gone(base: State) -> list[str]:
    """List the paths of certificates whose file is gone and that are in service all the same."""
    return [path for path, found in base.findings.items() if not base.blobs.get(path) and found[0].code == IN_USE]


def still_needed(
    former: Iterable[Served], going_on: Iterable[Served], serving: Serving
) -> Iterator[tuple[Served, Finding]]:
    """Yield each certificate, in its former version, without which hosts would lose TLS, and what is to be said of it.

    ``serving`` holds the certificates as they would be now, and the routes that the revision does not concern;
    ``going_on`` are routes that are judged again although their files are the same.
    """
    others = [one for one in going_on if ends_tls(one.object)]
    for served in former:
        certificate, fleet = served.object, serving.view.fleet
        if not isinstance(certificate, Certificate):
            continue
        claims = [claim for claim in users_of(certificate, serving.claims, fleet) if _ends_tls(serving, claim.owner)]
        claims += chain.from_iterable(one.claims for one in others)
        lost = losses(certificate, claims, serving.claims, fleet)
        if lost:
            yield served, still_in_use(served.key, lost)


def _ends_tls(serving: Serving, key: ObjectKey) -> bool:
    return key in serving.served and ends_tls(serving.served[key].object)
