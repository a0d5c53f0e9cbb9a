"""Messages for people and for programs."""

from __future__ import annotations

import json

import pytest

from reconciler.notifications.conditions import Condition, Notice
from reconciler.notifications.timing import MOST_IN_ONE
from reconciler.notifications.wording import cloud_events, inert, text_of, title_of

AWAY = Condition("AgentAway", "agent/vps-1", "warning", "vps-1 is away", "Its apps go on.", link="/agents/vps-1")
URL = "https://control.example.com"


def notice(kind: str = "raised", condition: Condition = AWAY) -> Notice:
    return Notice("ops", kind, condition, 0.0, 60.0)  # type: ignore[arg-type]


def test_a_message_says_what_why_since_when_and_where_to_go() -> None:
    """One notice is its title; the body repeats it with the reason, the time and a link."""
    assert title_of("example", [notice()]) == "example: ▲ vps-1 is away"
    assert text_of([notice()], public_url=URL) == (
        "▲ vps-1 is away\nIts apps go on.\nSince 1970-01-01T00:00:00Z\nhttps://control.example.com/agents/vps-1"
    )


def test_the_end_of_it_says_how_long_it_lasted() -> None:
    """What is over is marked as such and gives no advice any more."""
    text = text_of([notice("recovered")], public_url=URL)
    assert text.startswith("✔ Over: vps-1 is away\nFrom 1970-01-01T00:00:00Z to 1970-01-01T00:01:00Z")
    assert "Its apps go on" not in text


def test_a_long_digest_is_cut_and_says_so() -> None:
    """Of many the first are shown, the rest is a number with a link; so is what was dropped."""
    text = text_of([notice()] * (MOST_IN_ONE + 3), public_url=URL, dropped=7)
    assert text.count("vps-1 is away") == MOST_IN_ONE
    assert "… and 3 more" in text
    assert "7 older messages" in text
    assert title_of("example", [notice(), notice("recovered")]) == "example: 2 changes, 1 of them for the better"


@pytest.mark.parametrize(
    "text",
    ["@everyone", "<!channel>", "<@U123>", "[x](https://evil.test)", "https://evil.test", "*bold*", "`code`", "# head"],
)
def test_words_of_others_call_nobody_and_lead_nowhere(text: str) -> None:
    """What chats read as mention, mark-up or link is taken apart, and still to be read."""
    shown = inert(text, 200)
    for mark in ("@e", "@U", "<", "](", "://", "*b", "`c", "# "):
        assert mark not in shown
    letters = [char for char in text if char.isalnum()]
    assert [char for char in shown if char.isalnum()] == letters


def test_control_characters_and_length_are_bounded() -> None:
    """A title is one line, without marks that turn the direction of text, and ends somewhere."""
    assert inert("a\x1b[31m\nb\u202ec", 50) == "a [\u206031m b c"
    assert len(inert("x" * 1000, 200)) == 200


def test_programs_get_cloud_events_whose_ids_stay_the_same() -> None:
    """The batch format has every required attribute, and a second try of a message the same ids."""
    first, second = (cloud_events([notice(), notice("recovered")], message_id="msg-1-2", source=URL) for _ in range(2))
    assert first == second
    raised, recovered = json.loads(first)
    assert (raised["id"], recovered["id"]) == ("msg-1-2.0", "msg-1-2.1")
    assert {key: raised[key] for key in ("specversion", "source", "type", "subject", "datacontenttype")} == {
        "specversion": "1.0",
        "source": URL,
        "type": "org.cloudlunacy.condition.raised",
        "subject": "agent/vps-1",
        "datacontenttype": "application/json",
    }
    assert raised["data"]["url"] == f"{URL}/agents/vps-1"
