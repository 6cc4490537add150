"""What a command line tells of a run: tests and a change, from files, standard input or git."""

import sys
from collections.abc import Sequence
from pathlib import Path

from conductor_client.git import GitError, diff_since, files_since, toplevel
from conductor_client.output import USAGE, fail
from conductor_client.testing.requests import RunFields

STANDARD_INPUT = "-"
_MOST_DIFF_BYTES = 2 << 20
"""What the contract takes."""


def run_fields(
    repository: str | None,
    tests: str | None,
    diff: str | None,
    base: str | None,
    path: Path,
    changed: Sequence[str],
    commit: str,
) -> RunFields:
    """The run that the options tell of. Ends the command where they contradict each other or can't be read."""
    if sum((diff is not None, base is not None, bool(changed))) > 1:
        fail("give one of --diff, --base and --changed", USAGE)
    if tests == diff == STANDARD_INPUT:
        fail("standard input can't be both --tests and --diff", USAGE)
    fields = RunFields(commit_sha=commit)
    try:
        if tests is not None:
            lines = _read(tests).decode("utf-8").splitlines()
            fields["test_ids"] = list(dict.fromkeys(line for line in lines if line.strip()))
            if not fields["test_ids"]:
                fail(f"{tests} names no test")
        if diff is not None:
            fields["diff"] = _read(diff)
        elif base is not None:
            root = toplevel(path)
            repository = repository or root.name
            fields |= _since(root, base)
        elif changed:
            fields["changed_files"] = list(changed)
    except (OSError, GitError, UnicodeDecodeError) as error:
        fail(str(error))
    if repository is None:
        fail("give --repository", USAGE)
    fields["repository"] = repository
    return fields


def _since(root: Path, base: str) -> RunFields:
    """The change as a diff, without the lines around it, or where that is too large as the list of its files."""
    diff = diff_since(root, base, "--unified=0")
    if len(diff) <= _MOST_DIFF_BYTES:
        return RunFields(diff=diff)
    return RunFields(changed_files=files_since(root, base))


def _read(name: str) -> bytes:
    return sys.stdin.buffer.read() if name == STANDARD_INPUT else Path(name).read_bytes()
