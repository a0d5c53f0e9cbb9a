"""How an agent comes by certificates for its services, and keeps them good."""

from __future__ import annotations

import stat

from cryptography import x509

from agent.certificate_files import authority_id
from agent.service_files import KEY
from schemas.session import Item
from tests.support.service_world import DAY, ID, NAMES, World, files, grant, item, leaf, pair_in


def test_a_certificate_is_asked_for_and_put_into_place(world: World) -> None:
    """Progressing until it is there; then key, chain, both, and the roots, for the agent's user alone."""
    wanted = item()
    first = world.apply(wanted)[ID]
    assert (first.state, first.reason) == ("Progressing", "Waiting")
    world.connect()
    world.step()
    assert [(ask.id, ask.digest) for ask in world.asked] == [(ID, wanted.digest)]
    world.answer(wanted)
    assert world.changes == 1
    result = world.apply(wanted)[ID]
    directory = files(world).resolve()
    assert (result.state, result.reason) == ("Applied", "Issued")
    assert all(name in result.message for name in NAMES)
    assert pair_in(directory)
    found = world.service.held("shop", "orders")
    assert found is not None
    assert (found.directory, world.service.held("shop", "other")) == (directory, None)
    assert (directory / "ca.crt").read_text() == world.issuer._authority.bundle().pem
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()} == {0o600}


def test_nothing_is_asked_without_a_connection(world: World) -> None:
    """The request waits, and the same key is asked for again in the next connection when this one broke."""
    world.apply(item())
    world.step()
    world.connect()
    (first,) = world.asked
    world.service.disconnected()
    world.step(100)
    world.connect()
    assert world.asked == [first, first]


def test_it_is_renewed_at_half_its_life_with_a_new_key(world: World) -> None:
    """Until then nothing is asked, and the former one serves until the next is there."""
    wanted = item()
    world.issue(wanted)
    former = files(world).resolve()
    key = (former / KEY).read_bytes()
    assert world.step(DAY * 0.49) > 0
    assert not world.asked
    world.step(DAY * 0.02)
    assert files(world).resolve() == former
    world.answer(wanted)
    assert files(world).resolve() != former
    assert (files(world) / KEY).read_bytes() != key
    assert pair_in(files(world))
    assert pair_in(former), "whoever is reading the former one finds it whole"


def test_a_restart_goes_on_from_disk(world: World) -> None:
    """Without a connection it is applied at once, and nothing is asked."""
    wanted = item()
    held = world.issue(wanted)
    world.restart()
    assert world.apply(wanted)[ID] == held
    world.step()
    world.connect()
    assert not world.asked


def test_a_refusal_is_said_and_tried_again_later(world: World) -> None:
    """As long as the control plane asks for at least, and each time longer; what is in place goes on."""
    wanted = item()
    world.apply(wanted)
    world.connect()
    world.step()
    world.answer(wanted, reason="TooManyCertificates", message="Wait.", retry_seconds=60)
    result = world.apply(wanted)[ID]
    assert (result.state, result.reason, result.message) == ("Failed", "TooManyCertificates", "Wait.")
    world.step(60)
    assert not world.asked
    world.step(6)
    assert world.asked
    world.answer(wanted)
    world.step(DAY * 0.5)
    world.answer(wanted, reason="Unavailable", message="The disk is full.", retry_seconds=60)
    result = world.apply(wanted)[ID]
    assert (result.state, result.reason) == ("Applied", "Issued")
    assert "The disk is full." in result.message
    world.step(DAY)
    assert world.apply(wanted)[ID].state == "Failed", "it has ended"


def test_another_document_is_asked_for_at_once(world: World) -> None:
    """A refusal of the former is no reason to wait, and an answer for it counts for nothing."""
    old, new = item(), item(dnsNames=[*NAMES, "a.app.cloudlunacy.test"])
    world.apply(old)
    world.connect()
    world.step()
    world.apply(new)
    world.answer(old)
    assert not files(world).exists()
    assert [ask.digest for ask in world.asked] == [new.digest]
    world.answer(new, reason="Unavailable", retry_seconds=3600)
    newest = item(dnsNames=[NAMES[1]])
    world.apply(newest)
    world.step()
    world.answer(newest)
    assert world.apply(newest)[ID].state == "Applied"


def test_the_former_serves_until_one_with_other_names_is_there(world: World) -> None:
    """The item is not applied meanwhile."""
    world.issue(item())
    former = files(world).resolve()
    wanted = item(dnsNames=[*NAMES, "a.app.cloudlunacy.test"])
    assert world.apply(wanted)[ID].state == "Progressing"
    world.step()
    assert files(world).resolve() == former
    world.answer(wanted)
    assert world.apply(wanted)[ID].state == "Applied"


def test_another_type_of_key_is_another_certificate(world: World) -> None:
    """For a program that cannot read P-256."""
    world.issue(item())
    wanted = item(keyType="rsa-2048")
    world.apply(wanted)
    world.step()
    world.answer(wanted)
    assert world.apply(wanted)[ID].state == "Applied"
    assert pair_in(files(world))


def test_what_is_not_what_was_asked_for_is_refused(world: World) -> None:
    """A certificate for another key, for other names, or none at all is never put into place."""
    wanted, strange = item(), item(dnsNames=["bank.cloudlunacy.test"])
    world.apply(wanted)
    world.connect()
    for number in range(3):
        world.step(1000.0 * number)
        (ask,) = world.asked
        if number == 0:
            world.answer(strange)
        elif number == 1:
            world.answer(wanted, certificate="no pem", bundle="no pem")
        else:
            other = World(world.data.with_name("other"), world.issuer)
            other.data.mkdir()
            other.apply(wanted)
            other.connect()
            other.step()
            world.asked[0] = ask._replace(csr=other.asked[0].csr)
            world.answer(wanted)
        assert world.apply(wanted)[ID].reason == "NotInstalled"
        assert not files(world).exists()


def test_what_is_not_wanted_any_more_goes(world: World) -> None:
    """Also when that happened while the agent was away."""
    world.issue(item())
    world.restart()
    assert not world.apply()
    assert [path.name for path in (world.data / "services" / "shop").iterdir()] == []


def test_a_damaged_file_is_a_missing_certificate(world: World) -> None:
    """Another is asked for."""
    wanted = item()
    world.issue(wanted)
    (files(world) / KEY).write_text("no key")
    assert world.apply(wanted)[ID].state == "Progressing"
    world.step()
    world.answer(wanted)
    assert world.apply(wanted)[ID].state == "Applied"


def test_objects_are_recorded_as_before(world: World) -> None:
    """A Certificate object that names the agent is no service."""
    spec = {"dnsNames": ["a.app.cloudlunacy.test"], "issuer": "internal"}
    other = Item(id="Certificate/apps", kind="Certificate", digest=item().digest, spec=spec)
    assert world.apply(other)["Certificate/apps"].reason == "Recorded"


def test_an_item_of_a_later_version_fails_alone(world: World) -> None:
    """The other services are not held up by it."""
    strange = Item(id="Certificate/shop/new", kind="Certificate", digest=item().digest, spec={"quantum": True})
    assert world.apply(strange, item())["Certificate/shop/new"].reason == "InvalidItem"
    world.connect()
    world.step()
    assert [ask.id for ask in world.asked] == [ID]


def test_the_key_is_in_no_request_and_in_no_words(world: World) -> None:
    """Only its public part leaves, and what is said of a key shows nothing of it."""
    wanted = item()
    world.apply(wanted)
    world.connect()
    world.step()
    (ask,) = world.asked
    (service,) = world.service._services.values()
    assert service.fresh is not None
    secret = b"".join(service.fresh.pem.splitlines()[1:-1]).decode()[:40]
    assert "PRIVATE" not in ask.csr
    assert secret not in repr(service)
    assert secret not in ask.csr
    world.answer(wanted)
    assert "PRIVATE" not in repr(world.apply(wanted))


# --- when the authority changes ---------------------------------------------------------------------------------------


def test_a_service_follows_the_roots_of_its_agent(world: World) -> None:
    """Roots that the agent was told of later come into place with the same certificate, and whoever is told is told."""
    wanted = item(reload={"command": "reload"})
    grant(world, f"[services.commands]\nreload = ['/bin/sh', '-c', 'echo >> {world.data}/told']")
    world.issue(wanted)
    serial = leaf(files(world)).serial_number
    bundle = world.data / "certificate" / "bundle.pem"
    bundle.parent.mkdir()
    bundle.write_bytes((files(world) / "ca.crt").read_bytes())
    world.step(1)
    former = files(world).resolve()
    assert world.apply(wanted)[ID].state == "Applied"
    assert files(world).resolve() == former, "the same roots are no reason"
    bundle.write_bytes(bundle.read_bytes() * 2)
    world.step(1)
    assert (files(world) / "ca.crt").read_bytes() == bundle.read_bytes()
    assert leaf(files(world)).serial_number == serial
    assert pair_in(files(world))
    assert (world.data / "told").read_text() == "\n\n"
    assert not world.asked


def test_a_retired_authority_is_left_in_time(world: World) -> None:
    """Within the time that was given, once; who is under another stays."""
    wanted = item()
    world.issue(wanted)
    world.service.leave(frozenset({"0" * 64}), 100.0)
    world.step(1)
    world.step(100)
    assert not world.asked
    above = x509.load_pem_x509_certificates((files(world) / "tls.crt").read_bytes())[1]
    world.service.leave(frozenset({authority_id(above)}), 100.0)
    world.step(1)
    assert not world.asked
    world.step(51)
    world.answer(wanted)
    world.step(100)
    assert not world.asked, "the next is under it as well, and asking again would not end"


def test_many_services_share_the_agent(world: World) -> None:
    """Each gets its own, whatever becomes of the others, and an idle look asks for nothing."""
    items = [item(f"Certificate/shop/s{number}") for number in range(20)]
    world.apply(*items)
    world.connect()
    world.step()
    assert len({ask.csr for ask in world.asked}) == 20
    for number, one in enumerate(items):
        world.answer(one, **({"reason": "Unavailable", "retrySeconds": 60} if number == 7 else {}))
    states = [result.state for result in world.apply(*items).values()]
    assert states == ["Applied"] * 7 + ["Failed"] + ["Applied"] * 12
    assert world.service.metrics() == {
        "service_certificates": 20.0,
        "service_certificates_failed": 1.0,
        "service_certificates_seconds_left": DAY,
    }
    world.step(30)
    assert not world.asked
