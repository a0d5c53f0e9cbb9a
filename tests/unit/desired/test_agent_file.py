"""The edit of ``agents/<name>.yaml``."""

from __future__ import annotations

import io
import string
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from reconciler.desired.agent_file import enrolment_edit
from reconciler.desired.edits import EditConflict
from schemas.agent import Agent
from schemas.base import API_VERSION

THUMBPRINT = "cn-I_WNMClehiVp51i_0VpOENW1upEerA8sEam5hn-s"
OTHER = "x" * 43
WRITTEN = """\
# yaml-language-server: $schema=../schemas/agent.json
apiVersion: cloudlunacy/v1
kind: Agent
metadata: {name: vps-1, labels: {region: ams}}   # Amsterdam

spec:
  # moved in May
  address: 10.0.0.1     # private network
  capabilities:
    - container
    - "mongodb"   # 6.0
"""


def read(content: bytes | None) -> Any:
    assert content is not None
    return YAML(typ="safe", pure=True).load(content.decode())


def edit(content: bytes | None, **changed: Any) -> bytes | None:
    said = {"address": "10.0.0.9", "capabilities": ("container",), "labels": {"region": "no"}, **changed}
    return enrolment_edit("vps-1", THUMBPRINT, **said)(content)


def test_a_new_file_says_what_the_agent_said() -> None:
    """Without a file a valid one is written, and a word that YAML 1.1 takes for false stays a text."""
    agent = Agent.model_validate(read(edit(None)))

    assert agent.metadata.labels == {"region": "no"}
    assert (agent.spec.address, agent.spec.capabilities) == ("10.0.0.9", ("container",))
    assert agent.spec.identity is not None
    assert agent.spec.identity.thumbprint == THUMBPRINT


def test_a_file_that_a_person_wrote_only_gains_the_identity() -> None:
    """Every line that was there is still there, in order; what the agent says of itself does not count."""
    edited = edit(WRITTEN.encode())

    assert edited is not None
    assert edited.decode() == WRITTEN + f"  identity:\n    thumbprint: {THUMBPRINT}\n"


def test_a_flow_mapping_gains_it_too() -> None:
    """The one-line form of the documentation is edited as well."""
    edited = read(edit(b"kind: Agent\nspec: {address: 127.0.0.1, capabilities: [container]}   # short\n"))

    assert edited["spec"] == {
        "address": "127.0.0.1",
        "capabilities": ["container"],
        "identity": {"thumbprint": THUMBPRINT},
    }


def test_the_same_identity_changes_nothing() -> None:
    """A second enrolment of the same key leaves the file as it is, byte for byte."""
    once = edit(WRITTEN.encode())

    assert edit(once) == once


def test_windows_line_ends_stay() -> None:
    """A file with CRLF keeps CRLF in every line."""
    edited = edit(WRITTEN.replace("\n", "\r\n").encode())

    assert edited is not None
    assert edited.count(b"\n") == edited.count(b"\r\n") == WRITTEN.count("\n") + 2


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (f"spec:\n  identity: {{thumbprint: {OTHER}}}\n", "has another identity"),
        ("spec:\n  identity: yes please\n", "mend or remove"),
        ("spec: 1\n", "no spec"),
        ("", "no object"),
        ("- a\n", "no object"),
        ("a: [\n", "cannot be read"),
        ("a: 1\na: 2\nspec: {}\n", "cannot be read"),
        ("spec: {}\n---\nspec: {}\n", "cannot be read"),
        ("a: &a [1]\nspec: {b: *a}\n", "aliases"),
        ("[" * 20_000, "cannot be read"),
        ("spec: {}\n" + "#" * 70_000, "larger"),
        ("a: \x00\nspec: {}\n", "cannot be read"),
        ("a: !!python/object/apply:os.system [x]\nspec: {}\n", ""),
    ],
    ids=range(13),
)
def test_what_cannot_be_edited_is_a_sentence(content: str, sentence: str) -> None:
    """A file that does not allow the edit is refused with what to do, or edited without losing anything."""
    if not sentence:
        assert b"!!python/object/apply:os.system" in (edit(content.encode()) or b"")
        return
    with pytest.raises(EditConflict, match=sentence):
        edit(content.encode())


KEYS = st.text(string.ascii_lowercase, min_size=1, max_size=8)
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-1000, 1000), st.text(string.printable, max_size=20), st.text(max_size=8)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=10,
)


def _reads_as(content: str, document: dict[str, Any]) -> bool:
    try:
        return bool(read(content.encode()) == document)
    except YAMLError:
        return False


@settings(max_examples=50, deadline=None)
@given(
    head=st.dictionaries(KEYS, VALUES, max_size=3),
    spec=st.dictionaries(KEYS, VALUES, min_size=1, max_size=3),
    flow=st.sampled_from([True, False, None]),
    comment=st.text("ab #:-", max_size=10),
)
def test_the_result_is_the_document_plus_identity(
    head: dict[str, Any], spec: dict[str, Any], flow: bool | None, comment: str
) -> None:
    """Whatever the document, it comes back whole with the identity added, or the edit says that it cannot."""
    for taken in ("identity", "address"):
        spec.pop(taken, None)
    document = {**head, "spec": spec}
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = flow
    out = io.StringIO()
    yaml.dump(document, out)
    content = f"# {comment}\n{out.getvalue()}# {comment}\n"
    # the dumper itself writes some strings so that they are read as something else, or not at all
    assume(_reads_as(content, document))
    before = read(content.encode())
    try:
        edited = edit(content.encode())
    except EditConflict:
        return
    assert read(edited) == {
        **before,
        "spec": {**before["spec"], "address": "10.0.0.9", "identity": {"thumbprint": THUMBPRINT}},
    }


def test_an_ambiguous_document_is_edited_as_it_reads() -> None:
    """What a plain ``?0`` in a flow sequence means to the parser stays as it was, identity or not."""
    content = b"spec: {a: [?0]}\n"
    edited = read(edit(content))
    assert edited["spec"]["a"] == read(content)["spec"]["a"]


LABELS = st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,20}[A-Za-z0-9])?|", fullmatch=True)


@settings(max_examples=50, deadline=None)
@given(
    name=st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True),
    thumbprint=st.from_regex(r"[A-Za-z0-9_-]{43}", fullmatch=True),
    address=st.ip_addresses().map(str),
    labels=st.dictionaries(st.from_regex(r"[a-z0-9]([a-z0-9./-]{0,20}[a-z0-9])?", fullmatch=True), LABELS, max_size=4),
)
def test_a_new_file_always_reads_back(name: str, thumbprint: str, address: str, labels: dict[str, str]) -> None:
    """Every value that the grammar allows comes back as the text that it was."""
    new = enrolment_edit(name, thumbprint, address=address, capabilities=("process",), labels=labels)(None)
    expected = {
        "apiVersion": API_VERSION,
        "kind": "Agent",
        "metadata": {"name": name, **({"labels": labels} if labels else {})},
        "spec": {"address": address, "capabilities": ["process"], "identity": {"thumbprint": thumbprint}},
    }

    assert read(new) == expected
