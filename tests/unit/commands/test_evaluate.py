"""Directories and revisions are judged as the control plane will."""

from __future__ import annotations

from pathlib import Path

from reconciler.commands.evaluate import judge, plan_between
from reconciler.commands.tree import Tree, read_directory
from reconciler.desired.state import State
from tests.support import documents

GOOD = {
    "fleet.yaml": documents.fleet(),
    "agents/vps-1.yaml": documents.agent("vps-1"),
    "agents/vps-2.yaml": documents.agent("vps-2"),
    "routes/shop/web.yaml": documents.route("web"),
}


def tree(folder: Path, files: dict[str, bytes | None]) -> Tree:
    for path, content in files.items():
        target = folder / path
        if content is None:
            target.unlink()
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    return read_directory(folder)


def base(folder: Path) -> State:
    return judge(tree(folder, dict(GOOD))).settled.state


def test_a_good_repo_has_no_problems(tmp_path: Path) -> None:
    """Every object is counted, none has a problem."""
    verdict = judge(tree(tmp_path, dict(GOOD)))
    assert (verdict.objects, verdict.errors, verdict.problems) == (4, 0, ())


def test_problems_have_their_line(tmp_path: Path) -> None:
    """A problem names the line and column of the value at fault, and the object."""
    head = b"apiVersion: cloudlunacy/v1\nkind: Route\nmetadata: {name: web}\n"
    bad = head + b"spec:\n  type: http\n  backends:\n    - agent: x\n      port: 8081\n"
    [problem] = judge(tree(tmp_path, {**GOOD, "routes/shop/web.yaml": bad})).problems
    assert (problem.file, problem.line, problem.column) == ("routes/shop/web.yaml", 7, 14)
    assert (problem.code, problem.object) == ("unknown-agent", "Route/shop/web")


def test_secrets_need_no_key(tmp_path: Path) -> None:
    """A route that checks passwords is judged without the key that only the control plane has."""
    files = {
        "secrets/shop/users.yaml": documents.secret("users", "all"),
        "routes/shop/web.yaml": documents.route(
            "web", middlewares=[{"basicAuth": {"secret": {"name": "users", "key": "all"}}}]
        ),
    }
    assert judge(tree(tmp_path, {**GOOD, **files})).problems == ()


def test_nothing_changes_between_equal_trees(tmp_path: Path) -> None:
    """The plan between a state and its own files is empty."""
    state = base(tmp_path)
    plan, verdict = plan_between(state, read_directory(tmp_path))
    assert plan.empty
    assert verdict.errors == 0


def test_a_plan_has_what_is_gone_changed_and_new(tmp_path: Path) -> None:
    """Each file that differs is a change; what is broken keeps its last good version and is no change."""
    state = base(tmp_path)
    changed = tree(
        tmp_path,
        {
            "routes/shop/new.yaml": documents.route("new"),
            "routes/shop/web.yaml": b"a: [",
            "agents/vps-2.yaml": None,
            "agents/vps-1.yaml": documents.agent("vps-1", labels={"region": "ams"}),
        },
    )
    plan, verdict = plan_between(state, changed)
    actions = {change.path: change.action for change in plan.changes}
    assert actions == {"agents/vps-1.yaml": "update", "agents/vps-2.yaml": "delete", "routes/shop/new.yaml": "create"}
    assert {problem.file for problem in verdict.problems} >= {"routes/shop/web.yaml"}
