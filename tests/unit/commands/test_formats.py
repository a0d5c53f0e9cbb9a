"""Plans and records as people read them."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta

from reconciler.commands.plan_formats import MARKDOWN_ROWS, format_plan
from reconciler.commands.status_formats import format_status
from schemas.plan import AgentChange, DataLoss, GuardFinding, ObjectChange, Plan, TrafficChange
from schemas.problem import Problem
from schemas.status import STAGES, AgentProgress, CommitSummary, RevisionStatus

START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
CHANGE = ObjectChange(
    action="update", kind="Route", team="shop", name="web", path="routes/shop/web.yaml", fields=("spec.paths",)
)
TRAFFIC = TrafficChange(
    host="web.test", entry_point="web", match="paths /a", action="changed", before="vps-1:80", after="vps-2:80",
    effects=("changes backend",),
)  # fmt: skip
AGENT = AgentChange(name="vps-1", added=("Deployment/shop/a",), removed=("Deployment/shop/b",))
PLAN = Plan(
    base="a" * 40, revision="b" * 40, checksum="sha256:1", changes=(CHANGE,), traffic=(TRAFFIC,), agents=(AGENT,)
)
GUARDED = PLAN.model_copy(update={"guard": GuardFinding(reason="DeletionGuard", message="it deletes <all>")})
EVIL = "</details><script>alert(1)</script> | [x](javascript:y) `z`"


def test_a_plan_as_text() -> None:
    """Objects, traffic and agents, each with a sign, and a summary at the end."""
    assert format_plan(GUARDED, "text").splitlines() == [
        "Objects:",
        "  ~ Route shop/web  (spec.paths)",
        "",
        "Traffic:",
        "  ~ web.test paths /a (web): vps-1:80 ⇒ vps-2:80  [changes backend]",
        "",
        "Agents:",
        "  + vps-1: Deployment/shop/a",
        "  - vps-1: Deployment/shop/b",
        "",
        "Held: it deletes <all>. Once it is pushed a person must approve it: cloudlunacy status says how.",
        "0 to create, 1 to update, 0 to delete; 1 host(s) and 1 agent(s) affected.",
    ]
    assert format_plan(Plan(base="", revision="", checksum=""), "text") == "No change.\n"


def test_colours_are_only_added() -> None:
    """Coloured text says the same."""
    coloured = format_plan(PLAN, "text", colour=True)
    for code in ("\x1b[32m", "\x1b[33m", "\x1b[31m", "\x1b[0m"):
        assert code in coloured
        coloured = coloured.replace(code, "")
    assert coloured == format_plan(PLAN, "text")


def test_a_plan_names_what_serves_without_its_grant() -> None:
    """Text and Markdown say it in one sentence with the files, and the JSON lists them."""
    plan = PLAN.model_copy(update={"revoked": ("routes/shop/web.yaml",)})
    said = "Grants were revoked; until these files are mended or deleted, their last good versions go on serving"
    assert f"{said}:\n  ! routes/shop/web.yaml\n" in format_plan(plan, "text")
    markdown = format_plan(plan, "markdown")
    assert f"<summary>{said} (1)</summary>" in markdown
    assert "\n| `routes/shop/web.yaml` |\n" in markdown
    assert json.loads(format_plan(plan, "json"))["revoked"] == ["routes/shop/web.yaml"]
    assert said not in format_plan(PLAN, "text") + format_plan(PLAN, "markdown")


def test_a_plan_as_json_reads_back() -> None:
    """The JSON is the plan."""
    assert Plan.model_validate(json.loads(format_plan(GUARDED, "json"))) == GUARDED


def test_text_of_the_repository_is_no_markup() -> None:
    """Whatever a name or message holds, it becomes neither HTML nor a link nor another cell."""
    problem = Problem(file="routes/shop/x.yaml", line=1, column=1, code="x", severity="error", message=EVIL, hint=EVIL)
    guard = GuardFinding(reason="DeletionGuard", message=EVIL)
    traffic = TRAFFIC.model_copy(update={"before": EVIL, "match": EVIL})
    plan = PLAN.model_copy(update={"problems": (problem,), "guard": guard, "traffic": (traffic,)})
    text = format_plan(plan, "markdown")
    ours = re.sub(r"</?(?:details open|details|summary)>", "", text)
    assert re.search(r"[\[\]<]", re.sub(r"(`+)(?!`).+?(?<!`)\1(?!`)", "", ours)) is None
    rows = [line for line in text.splitlines() if line.startswith("|") and "alert" in line]
    assert {row.count("|") for row in rows} == {4, 6}


def test_markdown_stays_within_a_comment() -> None:
    """A giant plan names how much it leaves out."""
    changes = tuple(CHANGE.model_copy(update={"name": f"r-{number}"}) for number in range(MARKDOWN_ROWS + 5))
    text = format_plan(PLAN.model_copy(update={"changes": changes}), "markdown")
    assert "… and 5 more" in text
    assert len(text) < 65_000


def status(**more: object) -> RevisionStatus:
    stages = {stage: START + timedelta(milliseconds=10 * number) for number, stage in enumerate(STAGES)}
    said = {"revision": "c" * 40, "generation": 3, "state": "Converged", "reason": "AllStagesReached", "stages": stages}
    return RevisionStatus.model_validate({**said, **more})


def test_a_held_record_names_the_command_that_works() -> None:
    """The line to paste has the options with which status itself was called, and only where approving helps."""
    held = status(state="Held", reason="DeletionGuard", message="too much.", approve="sha256:12")
    lines = format_status(held, "--data 'my data'").splitlines()
    assert lines[1:3] == ["  too much.", "  To approve: cloudlunacy approve sha256:12 --data 'my data'"]
    assert "approve" not in format_status(held.model_copy(update={"approve": ""}), "--data d")


def test_a_hostile_checksum_is_one_word_of_the_shell() -> None:
    """What a foreign server calls a checksum runs nothing when the line is pasted."""
    line = format_status(status(state="Held", approve="x; rm -rf ~"), "--server http://evil.test")
    assert "  To approve: cloudlunacy approve 'x; rm -rf ~' --server http://evil.test\n" in line


def test_a_record_as_text() -> None:
    """Each stage with its time and the time since the one before, then agents and problems."""
    problem = Problem(file="a.yaml", line=2, column=3, code="x", severity="error", message="bad.", hint="Mend it.")
    one = status(
        commit=CommitSummary(author="Ann", subject="Add it"),
        message="all is well",
        agents={"vps-1": AgentProgress(state="failed", message="no image"), "vps-2": AgentProgress(state="offline")},
        quarantined=(problem,),
    )
    lines = format_status(one).splitlines()
    assert lines[:3] == [
        "cccccccccccc  Converged  AllStagesReached  (generation 3)",
        "  “Add it” by Ann",
        "  all is well",
    ]
    assert lines[3] == "  fetched      03:04:05.000000"
    assert lines[4] == "  validated    03:04:05.010000  +10 ms"
    assert lines[-3:] == [
        "  agent vps-1                failed: no image",
        "  agent vps-2                offline",
        "  a.yaml:2:3 x: bad. Mend it.",
    ]


def test_stages_that_were_not_reached_are_shown_as_such() -> None:
    """A stage without a time has a dash, and nothing published is said."""
    stages = {stage: (START if stage == "fetched" else None) for stage in STAGES}
    lines = format_status(status(state="Held", generation=None, stages=stages)).splitlines()
    assert lines[0].endswith("(nothing published)")
    assert lines[2] == "  validated    –"


def test_data_that_is_deleted_has_its_own_part() -> None:
    """Who approves reads on which agent what is lost."""
    losses = (DataLoss(agent="vps-1", deployment="shop/db", data=("the database", "volume <b>")),)
    plan = PLAN.model_copy(update={"losses": losses})
    said = "Data that is deleted (deletionPolicy: delete)"
    assert f"{said}:\n  ! vps-1: the database and volume <b> of shop/db\n" in format_plan(plan, "text")
    assert "\n| `vps-1: the database and volume <b> of shop/db` |\n" in format_plan(plan, "markdown")
    assert said not in format_plan(PLAN, "text") + format_plan(PLAN, "markdown")
