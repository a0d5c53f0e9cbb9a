"""What makes a document good, and what the disk keeps of it."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from agent.documents import Applied, DocumentStore, Refusal, keys_of, verify
from reconciler.agents.documents import sign_document
from schemas.jwk import JwkSet, SigningJwk, encode
from schemas.session import DESIRED_TYPE, digest_of
from tests.support.agent_hub import TestSigner, wanted

NOW = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)
SIGNER = TestSigner()
KEYS = keys_of(SIGNER.jwks)


def good(generation: int = 3) -> str:
    return sign_document("vps-1", wanted(generation), SIGNER, NOW)


def signed(header: dict[str, Any] | None = None, key: Any = None, **changes: Any) -> str:
    """A document with other fields, or another header, and a signature that fits."""
    payload = json.loads(base64.urlsafe_b64decode(good().split(".")[1] + "=="))
    head = {"alg": "ES256", "typ": DESIRED_TYPE, "kid": SIGNER.kid, **(header or {})}
    parts = ".".join(encode(json.dumps(part).encode()) for part in (head, payload | changes))
    r, s = decode_dss_signature((key or SIGNER.key).sign(parts.encode(), ec.ECDSA(hashes.SHA256())))
    return f"{parts}.{encode(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


def with_item(**changes: Any) -> str:
    item = wanted(3).items()[0].model_dump() | changes
    return signed(items=[item])


def swap_payload() -> str:
    """A well-signed document with the payload of another one."""
    head, _, signature = good(3).split(".")
    return ".".join((head, good(4).split(".")[1], signature))


def refusal_of(jws: str, now: datetime | None = NOW) -> Refusal:
    with pytest.raises(Refusal) as refusal:
        verify(jws, agent="vps-1", keys=KEYS, now=now)
    return refusal.value


def test_a_good_document_is_read() -> None:
    """What was signed is what comes out."""
    document = verify(good(), agent="vps-1", keys=KEYS, now=NOW)
    assert (document.agent, document.generation, document.digest, document.items) == (
        "vps-1",
        3,
        wanted(3).digest,
        wanted(3).items(),
    )


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: "", "NotSigned"),
        (lambda: "a.b", "NotSigned"),
        (lambda: good()[:-1], "NotSigned"),
        (lambda: good() + "=", "NotSigned"),
        (lambda: good() + "\n", "NotSigned"),
        (lambda: "%%%%." + good().split(".", 1)[1], "NotSigned"),
        (lambda: "AAAA." + good().split(".", 1)[1], "WrongHeader"),
        (lambda: "AAAAA." + good().split(".", 1)[1], "WrongHeader"),
        (lambda: "x" * (5 * 1024 * 1024), "TooLarge"),
        (lambda: signed({"typ": "at+jwt"}), "WrongHeader"),
        (lambda: signed({"typ": "JWT"}), "WrongHeader"),
        (lambda: signed({"jku": "https://evil.example/jwks"}), "WrongHeader"),
        (lambda: signed({"jwk": {}}), "WrongHeader"),
        (lambda: signed({"x5u": "https://evil.example/x"}), "WrongHeader"),
        (lambda: signed({"crit": ["exp"]}), "WrongHeader"),
        (lambda: signed({"b64": True}), "WrongHeader"),
        (lambda: signed({"b64": False, "crit": ["b64"]}), "WrongHeader"),
        (lambda: signed({"zip": "DEF"}), "WrongHeader"),
        (lambda: signed({"alg": "none"}), "WrongHeader"),
        (lambda: signed({"alg": "HS256"}), "WrongHeader"),
        (lambda: signed({"alg": "ES384"}), "WrongHeader"),
        (lambda: signed({"kid": ["A"]}), "WrongHeader"),
        (lambda: signed({"kid": None}), "WrongHeader"),
        (lambda: signed(key=TestSigner().key), "BadSignature"),
        (lambda: signed({"kid": "A" * 43}), "UnknownKey"),
        (lambda: signed({"kid": ""}), "UnknownKey"),
        (swap_payload, "BadSignature"),
        (lambda: signed(agent="vps-2"), "ForeignName"),
        (lambda: signed(generation=0), "InvalidDocument"),
        (lambda: signed(generation=2**60), "InvalidDocument"),
        (lambda: signed(surprise=1), "InvalidDocument"),
        (lambda: signed(items=[{}]), "InvalidDocument"),
        (lambda: signed(items=[wanted(3).items()[0].model_dump()] * 2), "DigestMismatch"),
        (lambda: signed(items=[]), "DigestMismatch"),
        (lambda: signed(digest=digest_of("other")), "DigestMismatch"),
        (lambda: with_item(spec={"image": "evil"}), "DigestMismatch"),
        (lambda: with_item(digest=digest_of({"image": "evil"}), spec={"image": "evil"}), "DigestMismatch"),
        (lambda: with_item(kind="Route"), "InvalidDocument"),
        (lambda: signed(expires_at="2026-05-01T11:58:59Z"), "InvalidDocument"),
        (lambda: signed(expiresAt="2026-05-01T11:58:59Z"), "Expired"),
    ],
)
def test_a_bad_document_is_refused(make: Callable[[], str], reason: str) -> None:
    """Each thing that can be wrong has a reason of its own, and nothing else comes out."""
    assert refusal_of(make()).reason == reason


def test_a_refusal_names_the_document_only_once_it_is_proven() -> None:
    """Generation and digest come from a payload whose signature was good, or not at all."""
    assert (refusal_of(swap_payload()).generation, refusal_of(swap_payload()).digest) == (0, None)
    foreign = refusal_of(signed(agent="vps-2"))
    assert (foreign.generation, foreign.digest) == (3, wanted(3).digest)


@pytest.mark.parametrize("days", [-2, 0, 2])
def test_a_clock_that_is_days_wrong_refuses_nothing(days: int) -> None:
    """Documents live long enough that a clock which jumped by two days expires none of them."""
    verify(good(), agent="vps-1", keys=KEYS, now=NOW + timedelta(days=days))


def test_expiry_has_a_leeway_and_does_not_count_on_disk() -> None:
    """A minute late is in time; from the disk a document is in force for ever."""
    late = NOW + timedelta(days=7, seconds=59)
    verify(good(), agent="vps-1", keys=KEYS, now=late)
    assert refusal_of(good(), late + timedelta(seconds=2)).reason == "Expired"
    verify(good(), agent="vps-1", keys=KEYS, now=None)


def test_a_pinned_key_that_is_no_point_is_left_out() -> None:
    """A key off the curve verifies nothing and breaks nothing."""
    broken = SigningJwk(kid="A" * 43, kty="EC", crv="P-256", x="A" * 43, y="A" * 43)
    assert list(keys_of(JwkSet(keys=(broken, *SIGNER.jwks.keys)))) == [SIGNER.kid]


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    """The document comes back as it was signed, the marker as it was set, and only for their owner to read."""
    store = DocumentStore(tmp_path)
    assert (store.load("vps-1", KEYS).document, store.load("vps-1", KEYS).applied) == (None, (0, None))
    store.save(good(3))
    store.mark_applied(Applied(3, wanted(3).digest))
    found = store.load("vps-1", KEYS)
    assert found.document is not None
    assert (found.document.generation, found.applied, found.damage) == (3, (3, wanted(3).digest), None)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}


@pytest.mark.parametrize(
    "content",
    [b"", b"\x00" * 4096, b"a.b.c", good().encode()[:-7], b"\xff\xfe", good().replace(".", "..", 1).encode()],
)
def test_a_damaged_file_is_set_aside(tmp_path: Path, content: bytes) -> None:
    """What does not verify is moved away for a person to look at; the floor of the marker stays."""
    store = DocumentStore(tmp_path)
    store.mark_applied(Applied(3, wanted(3).digest))
    store.path.write_bytes(content)
    found = store.load("vps-1", KEYS)
    assert found.document is None
    assert found.damage is not None
    assert found.applied == (3, wanted(3).digest)
    assert (tmp_path / "desired.jws.damaged").read_bytes() == content
    assert store.load("vps-1", KEYS).damage is None


def test_a_file_of_another_agent_or_key_is_set_aside(tmp_path: Path) -> None:
    """A good file is good for the agent and the keys that it was made for only."""
    store = DocumentStore(tmp_path)
    store.save(good())
    damage = store.load("vps-2", KEYS).damage
    assert damage is not None
    assert damage.reason == "ForeignName"
    store.save(good())
    damage = store.load("vps-1", keys_of(TestSigner().jwks)).damage
    assert damage is not None
    assert damage.reason == "UnknownKey"


def test_an_old_file_that_was_put_back_is_set_aside(tmp_path: Path) -> None:
    """A document older than the marker was replaced by hand, and is not served."""
    store = DocumentStore(tmp_path)
    store.save(good(3))
    store.mark_applied(Applied(4, wanted(4).digest))
    damage = store.load("vps-1", KEYS).damage
    assert damage is not None
    assert (damage.reason, damage.generation) == ("OlderGeneration", 3)


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"generation": -1, "digest": "x"}', '{"generation": 1e99}'])
def test_a_damaged_marker_counts_as_none(tmp_path: Path, content: str) -> None:
    """Without a readable marker nothing is applied yet; the document itself is the floor."""
    (tmp_path / "applied.json").write_text(content)
    assert DocumentStore(tmp_path).load("vps-1", KEYS).applied == (0, None)
