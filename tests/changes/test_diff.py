"""The diff parser says what git says, of every kind of change; and nothing makes it fall over."""

from __future__ import annotations

import io
import time
from collections.abc import Sequence
from pathlib import Path

import hypothesis.strategies as st
import pytest
import unidiff
from hypothesis import HealthCheck, Phase, given, settings

from changes.git_repository import GitRepository
from conductor_features.changes.changed_file import Change, ChangedFile, Content
from conductor_features.changes.diff import DiffError, DiffLimits, parse_diff

_TEXT = "".join(f"line {number}\n" for number in range(1, 41))


@pytest.fixture
def repository(tmp_path: Path) -> GitRepository:
    return GitRepository(tmp_path / "repository")


def _one(data: bytes) -> ChangedFile:
    [file] = parse_diff(data)
    return file


def _changed(lines: str, **places: str) -> str:
    found = lines.splitlines(keepends=True)
    for place, text in places.items():
        found[int(place[1:]) - 1] = text
    return "".join(found)


def test_lines_of_old_and_new(repository: GitRepository) -> None:
    repository.commit({"a.py": _TEXT})
    repository.write({"a.py": _changed(_TEXT, l3="new\n", l10="", l20="line 20\nmore\nmore\n", l40="end")})
    file = _one(repository.git("diff"))
    assert (file.old_path, file.new_path, file.change, file.problem) == ("a.py", "a.py", Change.MODIFIED, "")
    assert file.old_ranges == ((3, 3), (10, 10), (21, 20), (40, 40))
    assert file.new_ranges == ((3, 3), (10, 9), (20, 21), (41, 41))
    assert (file.added_line_count, file.deleted_line_count) == (4, 3)
    bare = _one(repository.git("diff", "--unified=0"))
    assert (bare.old_ranges, bare.new_ranges) == (file.old_ranges, file.new_ranges)


def test_every_kind_of_change(repository: GitRepository) -> None:
    repository.commit(
        {
            "modified.py": _TEXT,
            "deleted.py": "a\nb\nc\n",
            "empty.py": "",
            "moved/old name.py": _TEXT,
            "moved/edited.py": _TEXT + "x",
            "mode.sh": "echo\n",
            "image.png": b"\0\1\2" * 50,
            "crlf.py": _TEXT.replace("\n", "\r\n"),
            "latin.py": b"# caf\xe9\nx = 1\n",
            "name with b/in it.py": "a\n",
            "dashes.sql": "-- one\n-- two\nselect\n",
            "no_end.py": "a\nb",
        }
    )
    (repository.path / "link").symlink_to("mode.sh")
    repository.commit()
    (repository.path / "link").unlink()
    (repository.path / "link").symlink_to("modified.py")
    (repository.path / "mode.sh").chmod(0o755)
    repository.git("mv", "moved/old name.py", "moved/new name.py")
    repository.git("mv", "moved/edited.py", "edited.py")
    repository.write(
        {
            "modified.py": _changed(_TEXT, l5="five\n"),
            "deleted.py": None,
            "empty.py": None,
            "added.py": "one\ntwo\n",
            "added_empty.py": "",
            "edited.py": _changed(_TEXT, l2="two\n") + "x",
            "image.png": b"\0\1\3" * 50,
            "new.bin": b"\0\xff" * 20,
            "crlf.py": _changed(_TEXT.replace("\n", "\r\n"), l7="seven\r\n"),
            "latin.py": b"# caf\xe9 \xff\nx = 1\n",
            "ünï\tcode\"'\\.py": "ä\n",
            "name with b/in it.py": "b\n",
            "dashes.sql": "select\n++ plus\n",
            "no_end.py": "a\nb\n",
        }
    )
    repository.git("add", "--all")
    arguments = ("diff", "--cached", "--find-renames")
    for extra in ((), ("--binary",), ("--no-prefix",), ("--src-prefix=i/", "--dst-prefix=w/"), ("--unified=0",)):
        files = {file.path: file for file in parse_diff(repository.git(*arguments, *extra))}
        told = {(path, file.change.value[0].upper()) for path, file in files.items()}
        assert told == _name_status(repository, arguments), extra
        assert not [file for file in files.values() if file.problem]
        assert {path: (f.added_line_count, f.deleted_line_count) for path, f in files.items()} == _numstat(
            repository, arguments
        )
        assert files["moved/new name.py"].old_path == "moved/old name.py"
        assert files["edited.py"].old_ranges == ((2, 2),)
        assert {path for path, file in files.items() if file.content is Content.BINARY} == {"image.png", "new.bin"}
        assert files["link"].content is Content.SYMLINK
        assert [path for path, file in files.items() if file.mode_only] == ["mode.sh"]
        assert files["added.py"].old_path is None
        assert files["deleted.py"].new_path is None
        assert files["crlf.py"].new_ranges == ((7, 7),)
        assert files["no_end.py"].new_ranges == ((2, 2),)


def _name_status(repository: GitRepository, arguments: tuple[str, ...]) -> set[tuple[str, str]]:
    parts = repository.git(*arguments, "--name-status", "-z").decode().split("\0")[:-1]
    found, at = set(), 0
    while at < len(parts):
        moved = parts[at][0] in "RC"
        found.add((parts[at + 1 + moved], parts[at][0]))
        at += 2 + moved
    return found


def _numstat(repository: GitRepository, arguments: tuple[str, ...]) -> dict[str, tuple[int, int]]:
    parts = repository.git(*arguments, "--numstat", "-z").decode().split("\0")[:-1]
    found, at = {}, 0
    while at < len(parts):
        added, deleted, path = parts[at].split("\t", 2)
        if not path:
            at, path = at + 2, parts[at + 2]
        found[path] = (int(added.replace("-", "0")), int(deleted.replace("-", "0")))
        at += 1
    return found


def test_submodules(repository: GitRepository, tmp_path: Path) -> None:
    library = GitRepository(tmp_path / "library")
    first = library.commit({"a": "1\n"})
    library.commit({"a": "2\n"})
    repository.commit({"x": "x\n"})
    repository.git("submodule", "--quiet", "add", str(library.path), "lib/dep")
    added = {file.path: file for file in parse_diff(repository.git("diff", "--cached"))}
    assert (added["lib/dep"].change, added["lib/dep"].content) == (Change.ADDED, Content.SUBMODULE)
    repository.commit()
    GitRepository.git(library, "-C", str(repository.path / "lib/dep"), "checkout", "--quiet", first)
    repository.write({"x": "y\n"})
    for arguments in (("diff",), ("diff", "--submodule=log"), ("diff", "--submodule=diff")):
        files = {file.path: file for file in parse_diff(repository.git(*arguments))}
        assert (files["lib/dep"].change, files["lib/dep"].content) == (Change.MODIFIED, Content.SUBMODULE)
        assert (files["x"].content, files["x"].added_line_count) == (Content.TEXT, 1)


def test_a_merge_tells_what_it_changed_itself(repository: GitRepository) -> None:
    repository.commit({"a.py": _TEXT, "b.py": "b\n"})
    repository.git("checkout", "--quiet", "-b", "side")
    repository.commit({"a.py": _changed(_TEXT, l10="side\n", l30="side 30\n")})
    repository.git("checkout", "--quiet", "main")
    repository.commit({"a.py": _changed(_TEXT, l10="main\n"), "b.py": "c\n"})
    repository.git("merge", "side", check=False)
    repository.commit({"a.py": _changed(_TEXT, l10="both\nmore\n", l30="side 30\n")})
    for how in ("--cc", "-c"):
        file = _one(repository.git("show", how, "HEAD"))
        assert (file.path, file.problem) == ("a.py", "")
        assert file.new_ranges[0] == (10, 11)
        assert file.old_ranges[0] == (10, 10)
        assert (file.added_line_count, file.deleted_line_count) == ((2, 2) if how == "--cc" else (3, 3))


def test_mails_and_logs_and_plain_diffs(repository: GitRepository) -> None:
    repository.commit({"a.py": _TEXT})
    repository.commit({"a.py": _changed(_TEXT, l1="first\n"), "b.py": "b\n"})
    assert [file.path for file in parse_diff(repository.git("format-patch", "-1", "--stdout"))] == ["a.py", "b.py"]
    assert [file.path for file in parse_diff(repository.git("log", "-p"))] == ["a.py", "b.py", "a.py"]
    plain = b"--- old/a.py\t2026-01-01 00:00:00 +0000\n+++ new/a.py\t2026-01-02 00:00:00 +0000\n@@ -1 +1 @@\n-a\n+b\n"
    assert (_one(plain).old_path, _one(plain).path) == ("old/a.py", "new/a.py")
    stripped = (
        b"--- a/x.py\n+++ b/x.py\n@@ -1,2 +1,2 @@\n--- x\n+++ y\n z\n--- /dev/null\n+++ b/y.py\n@@ -0,0 +1 @@\n+a\n"
    )
    first, second = parse_diff(stripped)
    assert (first.path, first.old_ranges, first.problem) == ("x.py", ((1, 1),), "")
    assert (second.path, second.change) == ("y.py", Change.ADDED)
    crlf = repository.git("show").replace(b"\n", b"\r\n")
    assert [(file.path, file.problem) for file in parse_diff(crlf)] == [("a.py", ""), ("b.py", "")]


def test_one_broken_part_spoils_no_other(repository: GitRepository) -> None:
    repository.commit({"a.py": _TEXT, "b.py": _TEXT, "c.py": _TEXT})
    repository.write({name: _changed(_TEXT, l20="x\n") for name in ("a.py", "b.py", "c.py")})
    data = repository.git("diff")
    before, middle, after = data.split(b"diff --git ")[1:]
    cut = b"\n".join(middle.split(b"\n")[:8]) + b"\n"
    files = parse_diff(b"".join(b"diff --git " + part for part in (before, cut, after)))
    assert [(file.path, file.problem != "") for file in files] == [("a.py", False), ("b.py", True), ("c.py", False)]
    assert files[2].old_ranges == ((20, 20),)


def test_a_rename_between_folders_that_are_called_as_gits_prefixes() -> None:
    moved = b"diff --git a/x.py b/y z.py\nrename from a/x.py\nrename to b/y z.py\n--- a/x.py\n+++ b/y z.py\t\n"
    file = _one(moved + b"@@ -1 +1 @@\n-a\n+b\n")
    assert (file.old_path, file.new_path, file.old_ranges) == ("a/x.py", "b/y z.py", ((1, 1),))


def test_what_is_refused() -> None:
    assert parse_diff(b"") == []
    assert parse_diff(b"\n \n") == []
    for data, limits, reason in (
        (b"nothing of the kind", DiffLimits(), "NOT_A_DIFF"),
        (b"x" * 11, DiffLimits(byte_count=10), "TOO_LARGE"),
        (b"\n" * 10, DiffLimits(line_count=10), "TOO_LARGE"),
        (b"diff --git a/x b/x\n" * 3, DiffLimits(file_count=2), "TOO_LARGE"),
    ):
        with pytest.raises(DiffError) as caught:
            parse_diff(data, limits)
        assert caught.value.reason == reason


_NAMES = st.sampled_from(["a.py", "b c.py", "d/ü.py", "e\tf.py", 'g"h.py', "i b/j.py"])
_LINES = st.lists(
    st.sampled_from([b"", b"-- x", b"++ y", b"@@ -1 +1 @@", b"a\r", b"\xff", b"diff --git a/x b/x"]), max_size=12
)
_PATHS = st.builds("{}/{}".format, st.integers(0, 4), _NAMES)
# Many files at once: most of the time goes by in git.
_TREES = st.dictionaries(_PATHS, st.tuples(_LINES, st.booleans()), min_size=8, max_size=20)


@settings(
    max_examples=5, deadline=None, phases=[Phase.generate], suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(before=_TREES, after=_TREES)
def test_says_what_git_says(tmp_path_factory: pytest.TempPathFactory, before: dict, after: dict) -> None:
    repository = GitRepository(tmp_path_factory.mktemp("generated"))
    for tree in (before, after):
        for path in repository.path.rglob("*"):
            if path.is_file() and ".git" not in path.relative_to(repository.path).parts:
                path.unlink()
        repository.commit({name: b"\n".join(lines) + b"\n" * end for name, (lines, end) in tree.items()})
    arguments = ("diff", "--find-renames", "--text", "HEAD~1", "HEAD")
    files = parse_diff(repository.git(*arguments))
    assert not [file for file in files if file.problem]
    assert {(file.path, file.change.value[0].upper()) for file in files} == _name_status(repository, arguments)
    assert {f.path: (f.added_line_count, f.deleted_line_count) for f in files} == _numstat(repository, arguments)
    for file in files:
        for path, ranges, tree in ((file.old_path, file.old_ranges, before), (file.new_path, file.new_ranges, after)):
            if path is not None:
                lines, end = tree[path]
                size = len((b"\n".join(lines) + b"\n" * end).splitlines(keepends=True) if lines or end else [])
                assert all(1 <= first <= last + 1 <= size + 64 for first, last in ranges)


_HEADERS = rb"""
diff --git a/x b/x|diff --cc x|--- a/x|+++ b/x|+++ /dev/null|@@ -1,2 +1,3 @@|@@@ -1 -1,2 +1 @@@
@@ -9999999999 +1 @@|@@ -1,2 -3 +1 @@|new file mode 160000|rename from y|rename to|copy from
Binary files a/x and b/x differ|GIT binary patch|\ No newline at end of file|+|-| |  |++|- |index 1..2 100644
diff --git "a/\777\|Submodule x 1234567..89abcde:|old mode|--- |+++
"""
_HEADER = st.sampled_from(_HEADERS.strip().replace(b"\n", b"|").split(b"|"))


@settings(max_examples=150, deadline=None)
@given(st.lists(st.one_of(_HEADER, st.binary(max_size=12)), max_size=30), st.sampled_from([b"\n", b"\r\n"]))
def test_anything_is_read_or_refused(lines: list[bytes], end: bytes) -> None:
    try:
        files = parse_diff(end.join(lines))
    except DiffError as error:
        assert error.reason == "NOT_A_DIFF"
        return
    for file in files:
        assert file.path or file.problem
        assert file.added_line_count <= len(lines) and file.deleted_line_count <= len(lines)
        file.path.encode()
        assert file.facts is not None


_BODY = st.lists(st.sampled_from([" same", "-gone", "+come", "-- x", "++ y"]), min_size=1, max_size=20)


@settings(max_examples=60, deadline=None)
@given(st.lists(_BODY, min_size=1, max_size=4))
def test_agrees_with_unidiff(bodies: list[list[str]]) -> None:
    """Another parser, on what both can read."""
    parts = []
    for number, body in enumerate(bodies):
        old, new = (sum(line[0] in kinds for line in body) for kinds in (" -", " +"))
        header = f"@@ -{1 if old else 0},{old} +{1 if new else 0},{new} @@"
        parts += [f"--- a/{number}.py", f"+++ b/{number}.py", header, *body]
    text = "\n".join(parts) + "\n"
    expected = unidiff.PatchSet(io.StringIO(text))
    found = parse_diff(text.encode())
    assert [(f.path, f.added_line_count, f.deleted_line_count) for f in found] == [
        (f.path, f.added, f.removed) for f in expected
    ]
    for mine, theirs in zip(found, expected, strict=True):
        gone = {line.source_line_no for hunk in theirs for line in hunk if line.is_removed}
        assert {n for first, last in mine.old_ranges for n in range(first, last + 1)} == gone


def _merge(width: int, old_counts: Sequence[int], new_count: int, body: Sequence[bytes]) -> bytes:
    at = b"@" * (width + 1)
    spans = b" ".join(b"-1,%d" % count for count in old_counts)
    header = [b"diff --cc a.py", b"--- a/a.py", b"+++ b/a.py", b"%s %s +1,%d %s" % (at, spans, new_count, at)]
    return b"\n".join([*header, *body]) + b"\n"


def _marks(width: int) -> st.SearchStrategy[bytes]:
    come, gone = (st.lists(st.sampled_from(kind), min_size=width, max_size=width).map(bytes) for kind in (b" +", b" -"))
    return st.one_of(come, gone)


@settings(max_examples=200, deadline=None)
@given(st.integers(2, 5).flatmap(lambda width: st.tuples(st.just(width), st.lists(_marks(width), min_size=1))))
def test_a_hunk_of_a_merge_is_as_long_as_each_parent_says(found: tuple[int, list[bytes]]) -> None:
    width, lines = found
    gone = [b"-" in marks for marks in lines]
    old_counts = [
        sum(marks[parent] == (ord("-") if dropped else ord(" ")) for marks, dropped in zip(lines, gone, strict=True))
        for parent in range(width)
    ]
    body = [(marks + b"x") if dropped else marks.rstrip() for marks, dropped in zip(lines, gone, strict=True)]
    whole = _one(_merge(width, old_counts, len(lines) - sum(gone), body))
    assert (whole.problem, whole.deleted_line_count) == ("", sum(gone))
    assert whole.added_line_count == sum(b"+" in marks for marks in lines)
    assert _one(_merge(width, old_counts, len(lines) - sum(gone), body[:-1])).problem
    for parent in range(width):
        longer = [count + (at == parent) for at, count in enumerate(old_counts)]
        assert _one(_merge(width, longer, len(lines) - sum(gone), body)).problem


def test_a_line_costs_what_it_holds_however_many_parents_there_are() -> None:
    """A few bytes speak of a thousand parents, as blanks at the end of a line may have been stripped."""

    def seconds(width: int) -> float:
        lines = [b" ", b"+", b"-"] * 7_000
        data = _merge(width, [999_999_999] * width, 999_999_999, lines)
        best = 1e9
        for _ in range(3):
            begin = time.process_time()
            assert _one(data).deleted_line_count == 7_000
            best = min(best, time.process_time() - begin)
        return best

    assert seconds(1_000) < 5 * seconds(2) + 0.02


@pytest.mark.parametrize("names", [b'"' + b"a" * (2 << 20), b'"' + b"\\a" * (1 << 20) + b'" b/x', b"a" * (2 << 20)])
def test_a_long_header_costs_no_more_than_other_lines(names: bytes) -> None:
    """One expression goes through it, in which nobody else has a turn."""
    plain = b"diff --git a/x b/x\n--- a/x\n+++ b/x\n@@ -1,40000 +1,40000 @@\n" + b"-old line\n+new line\n" * 40_000

    def seconds(data: bytes) -> float:
        best = 1e9
        for _ in range(3):
            begin = time.process_time()
            parse_diff(data)
            best = min(best, time.process_time() - begin)
        return best

    assert seconds(b"diff --git " + names + b"\n") < 4 * seconds(plain) + 0.02


def test_escaped_paths_are_cut_as_others_are() -> None:
    [plain] = parse_diff(b"--- /dev/null\n+++ b/" + ("😀" * 5_000).encode() + b"\n")
    [escaped] = parse_diff(b'--- /dev/null\n+++ "b/' + b"\\360\\237\\230\\200" * 5_000 + b'"\n')
    assert plain.path == escaped.path == "😀" * 4_094


def test_time_grows_with_the_diff_and_no_faster() -> None:
    def seconds(count: int) -> float:
        body = b"".join(b"+line %d\n-line %d\n context\n" % (n, n) for n in range(count))
        data = b"diff --git a/g.py b/g.py\n--- a/g.py\n+++ b/g.py\n@@ -1,%d +1,%d @@\n" % (2 * count, 2 * count) + body
        data += b"@@ -1,9 +1,9 @@\n" * count + b"diff --git a/x b/y z\n" * (count // 50)
        best = 1e9
        for _ in range(3):
            begin = time.process_time()
            assert parse_diff(data)[0].added_line_count == count
            best = min(best, time.process_time() - begin)
        return best

    assert seconds(16_000) < 12 * seconds(4_000) + 0.02
