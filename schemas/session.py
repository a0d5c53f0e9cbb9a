"""The conversation of an agent with the control plane: JSON messages over one WebSocket.

After the opening handshake (authenticated with an access token and a proof of possession) the agent says ``Hello``; the
control plane answers ``Welcome`` and, where the agent's applied digest is not the wanted one, ``Desired``. The agent
answers each ``Desired`` with one ``Report`` per attempt to apply it, and sends ``Heartbeat`` at the interval it was
told. Every message has a sequence number that grows by one in its direction and starts at 1.

For an item ``Certificate/<team>/<deployment>`` the agent may say ``CertificateRequest``, which is answered by one
``CertificateAnswer``. Messages refuse unknown fields, so an older peer must never be sent these: the item is the offer,
and the agent asks only where the control plane at the other end wants the document in which the item stands.

What came later is offered by the member :data:`OFFERS` of the agent's own item, a list of features. An agent that finds
it there says ``Features`` once, with those of them that it knows; from then on both may use what both know:

  observations  ``Observation``, newest wins, answered by ``ObservationPublished`` once every front serves it; ``Usage``
  secrets       ``SecretsRequest`` for a deployment of the document, answered by one ``SecretsAnswer``
  commands      ``Command`` of a person, answered by ``CommandOutput`` up to the one that is the ``last``;
                ``CommandStop`` ends it early
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, Field, SecretStr, TypeAdapter, field_serializer

from schemas.base import EMPTY, Model
from schemas.certificates_api import SigningRequest
from schemas.names import Name
from schemas.observation import MAX_OBSERVED, DeploymentObservation, DeploymentUsage
from schemas.text import visible

PROTOCOL: Final = 1
"""Version of this conversation. A peer that speaks only another is refused with close code 4406."""
SUBPROTOCOL: Final = "cloudlunacy.agent.v1"
MAX_AGENT_MESSAGE: Final = 256 * 1024
"""Bytes that the control plane accepts in one message of an agent."""
MAX_DOCUMENT: Final = 4 * 1024 * 1024
"""Bytes that an agent accepts in one message of the control plane."""
DESIRED_TYPE: Final = "cloudlunacy-desired+jws"
"""``typ`` of a signed document (RFC 8725, 3.11)."""

Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
OFFERS: Final = "offers"
"""Member of the spec of an agent's own item: the features that the control plane offers."""
EXEC: Final = "exec"
"""Member of the spec of an agent's own item: the teams in whose deployments people may run programs."""
RELEASED: Final = "released"
"""Member of the spec of an agent's own item: ``<team>/<name>`` of deployments that are gone and whose data may go."""
MAX_RELEASED: Final = 200
"""Those of one agent."""
OBSERVATIONS: Final = "observations"
SECRETS: Final = "secrets"
COMMANDS: Final = "commands"
FEATURES: Final = (OBSERVATIONS, SECRETS, COMMANDS)
"""Those of this version."""
SECRETS_VERSION: Final = "secretsVersion"
"""Member of the spec of a deployment's item, beside what its file says: digest of the sealed values that it uses."""
MAX_NUMBER: Final = 2**53 - 1
"""The largest whole number that every reader of JSON keeps exactly (RFC 8259, 6)."""
UNNUMBERED: Final = MAX_NUMBER
"""Sequence of a message that no session has sent yet; one that arrives with it is out of sequence."""
NEEDS: Final[Mapping[str, str]] = {
    "observation": OBSERVATIONS,
    "observation-published": OBSERVATIONS,
    "usage": OBSERVATIONS,
    "secrets-request": SECRETS,
    "secrets": SECRETS,
    "command": COMMANDS,
    "command-stop": COMMANDS,
    "command-output": COMMANDS,
}
"""Type of a message → the feature that the agent must have said before it may be sent, either way."""
MAX_ITEMS: Final = 2000
"""Items of one document, and therefore results of one report."""

Sequence = Annotated[int, Field(ge=1, le=MAX_NUMBER)]
Generation = Annotated[int, Field(ge=0, le=MAX_NUMBER)]
"""0 where there is none."""
Text = Annotated[str, Field(max_length=2048), AfterValidator(visible)]
"""What the other side says, for people; see :mod:`schemas.text`."""
Word = Annotated[str, Field(max_length=64), AfterValidator(visible)]


class Item(Model):
    """One thing that the agent has to make true."""

    id: Annotated[str, Field(max_length=256)]
    """``Kind/team/name`` of the object, such as ``Deployment/shop/web``."""
    kind: Literal["Agent", "Certificate", "Deployment"]
    digest: Digest
    """Of the canonical JSON of ``spec``."""
    spec: dict[str, Any]


class Document(Model):
    """The payload of the signed desired state."""

    agent: Name
    generation: Annotated[int, Field(ge=1, le=MAX_NUMBER)]
    """Generation in which the document last changed; grows, never repeats with other content."""
    revision: Annotated[str, Field(pattern=r"^[0-9a-f]{40,64}$")]
    issued_at: datetime
    expires_at: datetime
    """After it the document is refused when received; one that was applied before stays in force."""
    digest: Digest
    """Of the items, see :func:`digest_of_items`."""
    items: Annotated[tuple[Item, ...], Field(max_length=MAX_ITEMS)]


def canonical_json(value: object) -> bytes:
    """Return JSON with sorted keys and no spaces, the form that digests are taken of."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def digest_of(value: object) -> str:
    """Return the digest of a JSON value."""
    return f"sha256:{hashlib.sha256(canonical_json(value)).hexdigest()}"


def digest_of_items(items: Iterable[Item]) -> str:
    """Return the digest of a set of items; their order does not matter."""
    return digest_of(sorted((item.id, item.digest) for item in items))


def offers_of(document: Document) -> tuple[str, ...]:
    """Return the features that a document offers; what is no list of words offers none."""
    own = next((item.spec.get(OFFERS) for item in document.items if item.kind == "Agent"), None)
    return tuple(one for one in own if isinstance(one, str)) if isinstance(own, list) else ()


def released_by(document: Document) -> frozenset[str]:
    """Return ``<team>/<name>`` of what a document lets lose its data; what is no list of words lets nothing."""
    own = next((item.spec.get(RELEASED) for item in document.items if item.kind == "Agent"), None)
    return frozenset(one for one in own if isinstance(one, str)) if isinstance(own, list) else frozenset()


class Hello(Model):
    type: Literal["hello"] = "hello"
    sequence: Sequence
    protocol: Annotated[int, Field(ge=0, le=MAX_NUMBER)]
    agent: Name
    version: Word
    applied_generation: Generation = 0
    """0: nothing applied yet."""
    applied_digest: Digest | None = None


UNSUPPORTED: Final = "Unsupported"
"""Reason of a result ``Applied``, and of its report: the machine has nothing that could run it, and it does not run."""


class ItemResult(Model):
    id: Annotated[str, Field(max_length=256), AfterValidator(visible)]
    state: Literal["Applied", "Progressing", "Failed"]
    reason: Word = ""
    message: Text = ""


class Report(Model):
    """What became of a document. ``refused``: it was not taken at all (signature, generation, name, expiry)."""

    type: Literal["report"] = "report"
    sequence: Sequence
    generation: Generation
    digest: Digest | None = None
    outcome: Literal["applied", "progressing", "failed", "refused"]
    reason: Word = ""
    message: Text = ""
    items: Annotated[tuple[ItemResult, ...], Field(max_length=MAX_ITEMS)] = ()


class Heartbeat(Model):
    type: Literal["heartbeat"] = "heartbeat"
    sequence: Sequence
    applied_generation: Generation = 0
    metrics: Annotated[
        dict[Annotated[str, Field(max_length=64)], Annotated[float, Field(allow_inf_nan=False)]], Field(max_length=64)
    ] = {}


ItemId = Annotated[str, Field(max_length=256), AfterValidator(visible)]
Pem = Annotated[str, Field(max_length=128 * 1024)]


class CertificateRequest(Model):
    """The agent has made a key for the certificate of an item. One request for an item is under way at most."""

    type: Literal["certificate-request"] = "certificate-request"
    sequence: Sequence
    id: ItemId
    digest: Digest
    """Of the item, as the agent has it."""
    csr: SigningRequest


class CertificateAnswer(Model):
    """The certificate of an item, or why there is none: then ``reason`` is set, and the agent comes back later."""

    type: Literal["certificate"] = "certificate"
    sequence: Sequence
    id: ItemId
    certificate: Pem = ""
    """Leaf and chain, PEM."""
    bundle: Pem = ""
    """The roots to trust, PEM."""
    reason: Word = ""
    message: Text = ""
    retry_seconds: Annotated[float, Field(ge=0, le=86400)] = 0


class Features(Model):
    """What was offered and is known here; said once."""

    type: Literal["features"] = "features"
    sequence: Sequence
    features: Annotated[tuple[Word, ...], Field(max_length=64)]


class Observation(Model):
    """All deployments of the agent. ``number`` grows with each in a session; the newest is the whole truth."""

    type: Literal["observation"] = "observation"
    sequence: Sequence = UNNUMBERED
    number: Annotated[int, Field(ge=1, le=MAX_NUMBER)]
    deployments: Annotated[tuple[DeploymentObservation, ...], Field(max_length=MAX_OBSERVED)] = ()


class ObservationPublished(Model):
    """Every front serves what the observation with this number says, and it was read back from each."""

    type: Literal["observation-published"] = "observation-published"
    sequence: Sequence = UNNUMBERED
    number: Annotated[int, Field(ge=1, le=MAX_NUMBER)]


class Usage(Model):
    type: Literal["usage"] = "usage"
    sequence: Sequence = UNNUMBERED
    deployments: Annotated[tuple[DeploymentUsage, ...], Field(max_length=MAX_OBSERVED)] = ()


class SecretsRequest(Model):
    """The agent needs the values that a deployment of its document names. One for an item is under way at most."""

    type: Literal["secrets-request"] = "secrets-request"
    sequence: Sequence = UNNUMBERED
    id: ItemId
    version: Digest
    """The :data:`SECRETS_VERSION` of the item, as the agent has it."""


class SecretsAnswer(Model):
    """Values by ``<secret>/<key>``, or why there are none: then ``reason`` is set, and the agent comes back later."""

    type: Literal["secrets"] = "secrets"
    sequence: Sequence = UNNUMBERED
    id: ItemId
    version: Digest | None = None
    values: Annotated[dict[Annotated[str, Field(max_length=256)], SecretStr], Field(max_length=256)] = EMPTY
    reason: Word = ""
    message: Text = ""
    retry_seconds: Annotated[float, Field(ge=0, le=86400)] = 0

    @field_serializer("values", when_used="json")
    def _reveal(self, values: dict[str, SecretStr]) -> dict[str, str]:
        """JSON is what goes over the wire; nothing else shows a value."""
        return {name: value.get_secret_value() for name, value in values.items()}


CommandId = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]


class Command(Model):
    """One-shot work that a person asked for; it never changes what is wanted."""

    type: Literal["command"] = "command"
    sequence: Sequence = UNNUMBERED
    id: CommandId
    action: Word
    """``logs``, ``restart``, ``exec``, ``backup``, ``backups``, ``restore``; others are answered ``UnknownAction``."""
    item: ItemId
    """Whose deployment: ``Deployment/<team>/<name>``."""
    arguments: Annotated[dict[Word, Text], Field(max_length=64)] = EMPTY
    """Of the action, such as ``tail`` and ``follow`` of logs."""
    words: Annotated[tuple[Annotated[str, Field(max_length=4096)], ...], Field(max_length=64)] = ()
    """Program and arguments of ``exec``."""
    seconds: Annotated[float, Field(gt=0, le=86_400)]
    """After so long the agent ends it."""


class CommandStop(Model):
    """Nobody waits for the command any more."""

    type: Literal["command-stop"] = "command-stop"
    sequence: Sequence = UNNUMBERED
    id: CommandId


class CommandOutput(Model):
    """A piece of what a command wrote. The ``last`` one says how it ended; ``reason`` is empty where it ended well."""

    type: Literal["command-output"] = "command-output"
    sequence: Sequence = UNNUMBERED
    id: CommandId
    text: Annotated[str, Field(max_length=64 * 1024)] = ""
    stream: Literal["stdout", "stderr"] = "stdout"
    dropped: Annotated[int, Field(ge=0, le=MAX_NUMBER)] = 0
    """Lines that were left out before this piece, because there were too many."""
    last: bool = False
    exit_code: int | None = None
    reason: Word = ""
    message: Text = ""


class Welcome(Model):
    type: Literal["welcome"] = "welcome"
    sequence: Sequence
    protocol: Annotated[int, Field(ge=0, le=MAX_NUMBER)]
    heartbeat_seconds: Annotated[float, Field(gt=0, le=3600)]
    wanted_generation: Generation
    wanted_digest: Digest | None = None


class Desired(Model):
    """A new document; ``jws`` is a compact JWS (RFC 7515, ES256) whose payload is a :class:`Document`."""

    type: Literal["desired"] = "desired"
    sequence: Sequence
    jws: str


class Goodbye(Model):
    """The control plane is about to close and says why; the agent waits ``retry_seconds`` before it comes back."""

    type: Literal["goodbye"] = "goodbye"
    sequence: Sequence
    reason: Word
    message: Text = ""
    retry_seconds: Annotated[float, Field(ge=0, le=86400)] = 0


OfAgent = (
    Hello | Report | Heartbeat | CertificateRequest | Features | Observation | Usage | SecretsRequest | CommandOutput
)
OfControlPlane = (
    Welcome | Desired | Goodbye | CertificateAnswer | ObservationPublished | SecretsAnswer | Command | CommandStop
)
FROM_AGENT: Final[TypeAdapter[OfAgent]] = TypeAdapter(Annotated[OfAgent, Field(discriminator="type")])
FROM_CONTROL_PLANE: Final[TypeAdapter[OfControlPlane]] = TypeAdapter(
    Annotated[OfControlPlane, Field(discriminator="type")]
)


class CloseCode:
    """Close codes of this conversation (RFC 6455, 7.4.2: 4000 to 4999 are ours)."""

    PROTOCOL_ERROR: Final = 4400
    REVOKED: Final = 4403
    UNSUPPORTED: Final = 4406
    TIMED_OUT: Final = 4408
    REPLACED: Final = 4409
    TOO_MUCH: Final = 4429
    GOING_AWAY: Final = 1001
