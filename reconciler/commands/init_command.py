"""``cloudlunacy init``: a new state repo."""

from __future__ import annotations

import argparse
from pathlib import Path

from reconciler.commands.init import copy_example, init_repo
from reconciler.commands.output import say, tell


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "init",
        help="make a new state repo",
        description="Write a small state repo with one team, CI files, CODEOWNERS and the schemas for editors; with "
        "--example a complete one that shows every kind of object and every middleware.",
    )
    parser.add_argument("directory", type=Path, metavar="DIR", help="new or empty directory")
    parser.add_argument("--domain", default="cloudlunacy.test", help="base domain of the fleet (default: %(default)s)")
    parser.add_argument("--team", default="shop", help="name of the first team (default: %(default)s)")
    parser.add_argument(
        "--ci-source",
        default="",
        metavar="URL",
        help="where CI installs cloudlunacy from, such as git+https://git.example.com/cloudlunacy.git@<commit>; "
        "without it CI asks for the variable CLOUDLUNACY_SOURCE",
    )
    parser.add_argument("--example", action="store_true", help="write the complete example, which has names of its own")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Write the files and say what comes next."""
    if options.example:
        paths = copy_example(options.directory)
    else:
        paths = init_repo(options.directory, domain=options.domain, team=options.team, ci_source=options.ci_source)
    say("\n".join(str(path) for path in paths))
    tell(f"Next: cd {options.directory} && git init -b main && git add . && git commit -m 'Begin the fleet'")
    return 0
