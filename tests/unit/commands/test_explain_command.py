"""``cloudlunacy explain``: the explanation as lines."""

from __future__ import annotations

from reconciler.commands.explain_command import as_text
from tests.unit.web.test_traffic_views import views


def test_an_explanation_is_a_few_lines() -> None:
    """What the client gets, who answers, and what does not."""
    text = as_text(views().explain("http://web.app.cloudlunacy.test/a"))
    for words in ("A backend answers it.", "shop/web", "50.0%", "vps-1 127.0.0.1:8081 (shop/web)", "priority"):
        assert words in text
    missed = as_text(views().explain("http://web.app.cloudlunacy.test/b"))
    assert "404" in missed
    assert "another path" in missed
    assert "certificate cloudlunacy__app" in as_text(views().explain("https://x.app.cloudlunacy.test/"))
