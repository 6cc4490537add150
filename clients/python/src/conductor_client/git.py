"""What git tells of a checkout. Only commands that read are run, and nothing that the repository's settings name."""

import os
import subprocess
from pathlib import Path

from conductor_client.testing.requests import ChangedFile

_SETTINGS = ("core.fsmonitor=false", "core.hooksPath=/dev/null", "core.untrackedCache=false", "safe.directory=*")
"""A repository's own settings may name commands; these don't."""
_DIFF = ("diff", "--no-ext-diff", "--no-textconv", "--no-color", "--find-renames")
_KINDS = {"A": "added", "D": "deleted", "R": "renamed", "C": "copied"}


class GitError(Exception):
    """It can't be told; the message says why."""


def run_git(folder: Path, *arguments: str, check: bool = True) -> bytes:
    """What a git command prints that only reads; nothing where it fails and ``check`` is false."""
    options = [part for setting in _SETTINGS for part in ("-c", setting)]
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    try:
        done = subprocess.run(
            ["git", *options, *arguments],
            cwd=folder,
            env=environment,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=300,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        if not check:
            return b""
        raise GitError(f"git {arguments[0]}: {error}") from error
    if done.returncode and check:
        raise GitError(f"git {arguments[0]}: {done.stderr.decode(errors='replace').strip()[:500]}")
    return done.stdout if not done.returncode else b""


def toplevel(folder: Path) -> Path:
    """The checkout that a folder is in. Raises GitError."""
    return Path(os.fsdecode(run_git(folder, "rev-parse", "--show-toplevel").rstrip(b"\n")))


def diff_since(folder: Path, base: str, *options: str) -> bytes:
    """What the working tree changed since it left ``base``, a commit or branch, as a diff. Raises GitError."""
    return run_git(folder, *_DIFF, *options, _fork(folder, base), "--")


def files_since(folder: Path, base: str) -> list[ChangedFile]:
    """The same, as the list of its files. Raises GitError."""
    told = iter(
        run_git(folder, *_DIFF, "--name-status", "-z", _fork(folder, base), "--").decode("utf-8", "replace").split("\0")
    )
    files = []
    for status in told:
        if not status:
            break
        kind, path, old_path = _KINDS.get(status[0], "modified"), next(told), ""
        if kind in {"renamed", "copied"}:
            old_path, path = path, next(told)
        files.append(ChangedFile(path, old_path, kind))
    return files


def _fork(folder: Path, base: str) -> str:
    if base.startswith("-"):
        raise GitError(f"{base!r} is no commit")
    return run_git(folder, "merge-base", base, "HEAD", check=False).decode().strip() or base
