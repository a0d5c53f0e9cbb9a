"""Whatever is desired and held: replaced before the end, never dropped while used, and soon at rest."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from reconciler.pki.renewal import (
    Authorities,
    Delay,
    Desired,
    Drop,
    Held,
    Issue,
    Keep,
    Renew,
    Source,
    Wait,
    actions,
)

NOW = datetime(2026, 6, 1, tzinfo=UTC)
NAMES = ("apps", "databases", "shop", "web")
HOSTS = ("a.example.test", "b.example.test", "*.example.test")
FINGERPRINTS = ("one", "two", "three")

spans = st.timedeltas(timedelta(minutes=2), timedelta(days=400))
sources = st.sampled_from((Source(), Source("acme", "https://one.test"), Source("acme", "https://two.test")))
hosts = st.lists(st.sampled_from(HOSTS), min_size=1, unique=True).map(tuple)
certificates = st.frozensets(st.sampled_from(FINGERPRINTS))
desired = st.builds(Desired, hosts, spans, spans, sources)
held = st.builds(
    lambda names, before, lives, source, number, above: Held(
        names, NOW + before, NOW + before + lives, source, f"{number:08x}", above
    ),
    hosts,
    st.timedeltas(timedelta(days=-400), timedelta(days=3)),
    spans,
    sources,
    st.integers(0, 0xFFFFFFFF),
    certificates,
)
named = st.sampled_from(NAMES)
moments = st.timedeltas(timedelta(days=-2), timedelta(days=400)).map(lambda span: NOW + span)
authorities = st.builds(Authorities, certificates, certificates)
all_desired, all_held = st.dictionaries(named, desired), st.dictionaries(named, held)


@given(all_desired, all_held, st.frozensets(named), moments)
def test_nothing_that_is_wanted_or_used_is_dropped(
    desired: dict[str, Desired], held: dict[str, Held], in_use: frozenset[str], now: datetime
) -> None:
    """Each name gets exactly one action, and Drop only where nobody wants it and nothing uses it."""
    found = actions(desired, held, now, in_use=in_use)
    assert [one.name for one in found] == sorted(desired.keys() | held.keys())
    dropped = {one.name for one in found if isinstance(one, Drop)}
    assert dropped == held.keys() - desired.keys() - in_use


@given(desired, held, authorities, st.one_of(st.none(), moments))
def test_it_acts_before_the_end(
    desired: Desired, held: Held, authorities: Authorities, suggested: datetime | None
) -> None:
    """Who looks when it was told to has the renewal before the end, and is told to look a finite number of times."""
    known = {} if suggested is None else {"apps": suggested}
    now = min(NOW, held.not_before)
    for _ in range(24 * 410):
        (found,) = actions({"apps": desired}, {"apps": held}, now, authorities=authorities, suggested=known)
        if isinstance(found, Renew):
            assert now < held.not_after or now == min(NOW, held.not_before)
            return
        assert isinstance(found, (Keep, Wait))
        assert now < found.until < held.not_after
        now = found.until
    raise AssertionError("it never renews")


@given(all_desired, all_held, authorities, moments)
def test_carrying_it_out_ends(
    desired: dict[str, Desired], held: dict[str, Held], authorities: Authorities, now: datetime
) -> None:
    """After the actions were carried out, asking again at the same time gives only Keep and Wait, twice the same."""
    held = dict(held)
    for one in actions(desired, held, now, authorities=authorities):
        if isinstance(one, (Issue, Renew)):
            wanted = desired[one.name]
            above = authorities.signing if wanted.source.issuer == "internal" else frozenset({"outside"})
            ends = now + wanted.lifetime
            held[one.name] = Held(wanted.names, now - timedelta(minutes=1), ends, wanted.source, "0" * 8, above)
        elif isinstance(one, Drop):
            del held[one.name]
    again = actions(desired, held, now, authorities=authorities)
    assert all(isinstance(one, (Keep, Wait)) for one in again)
    assert again == actions(desired, held, now, authorities=authorities)


@given(all_desired, all_held, moments, moments)
def test_a_delay_only_delays(
    desired: dict[str, Desired], held: dict[str, Held], now: datetime, until: datetime
) -> None:
    """What would be done is done or waits until the delay ends; what is kept or dropped is not concerned."""
    free = actions(desired, held, now)
    slow = actions(desired, held, now, delays=dict.fromkeys(NAMES, Delay(until, "AcmeBudget")))
    for one, other in zip(free, slow, strict=True):
        if isinstance(one, (Issue, Renew)) and now < until:
            assert other == Wait(one.name, until, one.reason, "AcmeBudget")
        else:
            assert other == one


@given(desired, held, moments)
def test_other_names_are_a_renewal_at_once(desired: Desired, held: Held, now: datetime) -> None:
    """However fresh the certificate is."""
    wanted = replace(desired, names=("other.example.test",))
    assert actions({"apps": wanted}, {"apps": held}, now) == (Renew("apps", "names-changed"),)
