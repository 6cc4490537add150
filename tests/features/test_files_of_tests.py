"""Which tests are in changed files, by their ids: as each runner names them, never by a file's last name alone."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import NamedTuple

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from conductor_features.request_columns.files_of_tests import ids_in_files
from machine import processor_seconds

REPOSITORY = "acme/shop"
FOLDERS = ("com", "acme", "shop", "src", "mod-a", "mod-ab", "v2", "ünï")
STEMS = ("CartTest", "Cart", "test_a", "test_ab", "utils.test", "a_test")
EXTENSIONS = ("py", "java", "kt", "ts", "tsx", "go", "rb")
DOTTED = ("py", "java", "kt")


class File(NamedTuple):
    """A file of a repository."""

    folders: tuple[str, ...]
    stem: str
    extension: str

    @property
    def path(self) -> str:
        return "/".join([*self.folders, f"{self.stem}.{self.extension}"])


class Named(NamedTuple):
    """A test, as a runner names it that leaves out so many folders, and what its id says of its file."""

    test_id: str
    implied: tuple[str, ...]
    way: str

    def is_in(self, file: File) -> bool:
        """The plain definition: the file is where the id says, in the repository or in some folder of it."""
        if self.way == "module":
            place = (*file.folders, file.stem)
            known = file.extension in DOTTED and len(self.implied) > 1
        elif self.way in ("package", "import"):
            place, known = file.folders, file.extension == "go" and file.stem.endswith("_test")
        else:
            place, known = (*file.folders, f"{file.stem}.{file.extension}"), True
        if not known:
            return False
        if place == self.implied:
            return True
        return self.way != "import" and len(self.implied) > 1 and place[-len(self.implied) :] == self.implied


files = st.builds(
    File, st.lists(st.sampled_from(FOLDERS), max_size=4).map(tuple), st.sampled_from(STEMS), st.sampled_from(EXTENSIONS)
)


@st.composite
def named(draw: st.DrawFn) -> Named:
    file = draw(files)
    folders = file.folders[draw(st.integers(0, len(file.folders))) :]
    ways = ["path"]
    if file.extension in DOTTED:
        ways.append("module")
    if file.extension == "go" and file.stem.endswith("_test"):
        ways += ["import", "package"] if folders else ["import"]
    way = draw(st.sampled_from(ways))
    if way == "module":
        test = draw(st.sampled_from(("", ".total", "#total", "$Inner.total", "::total", ".total()", " > total")))
        return Named(".".join([*folders, file.stem]) + test, (*folders, file.stem), way)
    if way == "path":
        name = f"{file.stem}.{file.extension}"
        test = draw(st.sampled_from(("", "::TestCart::total[a/b-2]", " > suite > name", " › name", ":12:3", "[1:2]")))
        return Named("/".join([*folders, name]) + test, (*folders, name), way)
    test = draw(st.sampled_from((".TestTotal", ".TestTotal/sub", ".ExampleCart", " TestTotal", "::FuzzTotal")))
    if way == "package":
        return Named("/".join(folders) + test, folders, way)
    return Named("/".join(["example.org", REPOSITORY, *file.folders]) + test, file.folders, way)


@given(changed=st.lists(files, max_size=4), tests=st.lists(named(), max_size=12), seed=st.randoms())
@example(  # two files of one last name
    [File(("mod-a", "src"), "utils.test", "ts")],
    [Named("mod-ab/src/utils.test.ts > x", ("mod-ab", "src", "utils.test.ts"), "path")],
    random.Random(0),
)
def test_tests_are_in_the_files_that_their_ids_say(
    changed: list[File], tests: list[Named], seed: random.Random
) -> None:
    ids = list({test.test_id for test in tests})
    seed.shuffle(ids)
    expected = {test.test_id for test in tests if any(map(test.is_in, changed))}
    assert set(ids_in_files([file.path for file in changed], ids, REPOSITORY)) == expected


@pytest.mark.parametrize(
    ("path", "test_id"),
    [
        ("tests/test_a.py", "tests/test_a.py::TestB::test_c[param]"),
        ("backend/tests/test_a.py", "tests.test_a.TestB.test_c"),
        ("repo/module/src/test/java/com/acme/FooTest.java", "com.acme.FooTest#bar"),
        ("src/test/java/com/acme/FooTest.java", "com.acme.FooTest.bar"),
        ("src/test/java/com/acme/FooTest.java", "com.acme.FooTest$Nested.bar()"),
        ("src/a.test.ts", "src/a.test.ts > suite > name"),
        ("packages/web/src/a.test.ts", "src/a.test.ts › suite › name"),
        ("pkg/path/x_test.go", "pkg/path.TestX"),
        ("pkg/path/x_test.go", "github.com/acme/shop/pkg/path.TestX/sub"),
        ("x_test.go", "github.com/acme/shop.TestX"),
        ("pkg/path/x_test.go", "github.com/acme/shop/v2/pkg/path.TestX"),
        ("tests/test_a.py", "tests/test_a.py"),
        ("anything", "anything"),
    ],
)
def test_runners_ways_of_naming_tests(path: str, test_id: str) -> None:
    others = ["zz/https://github.com/acme/shop", "docs/x[https://a.b/acme/shop]"]
    assert ids_in_files(["README.md", path], [*others, test_id], REPOSITORY) == [test_id]


@pytest.mark.parametrize(
    ("path", "test_id"),
    [
        ("a/utils.test.ts", "b/utils.test.ts > x"),
        ("a/utils.test.ts", "utils.test.ts > x"),
        ("src/test/java/FooTest.java", "FooTest.bar"),
        ("src/test/java/com/acme/FooTest.java", "com.acme.FooTestBase.bar"),
        ("src/test/java/com/acme/Foo.java", "com.acme.FooTest.bar"),
        ("tests/test_a.py", "tests/test_a.pyx::test"),
        ("tests/test_a.py", "tests/test_ab.py::test"),
        ("tests/test_a.py", "more/tests/test_a.py::test"),
        ("app.py", "app.tests.test_x.TestY"),
        ("cart/x_test.go", "github.com/acme/shop/internal/cart.TestX"),
        ("cart/x.go", "github.com/acme/shop/cart.TestX"),
        ("internal/cart/x_test.go", "cart.TestX"),
        ("cart/x_test.go", "cart.yaml/v2.TestX"),
        ("pkg/cart/x_test.go", "pkg/cart.v2.TestX"),
        ("pkg/cart/x_test.go", "pkg/cartTests.TestX"),
        ("tests", "tests/test_a.py::test"),
        ("a/b/c.txt", "b.c.TestX"),
    ],
)
def test_other_files_are_other_files(path: str, test_id: str) -> None:
    assert ids_in_files([path], [test_id], REPOSITORY) == []


def test_what_is_told_of_a_file_is_looked_for_once() -> None:
    """However many changed files end alike: else thousands of them times thousands of tests would be gone through."""
    ids = [f"a/test_b.py::test_{number}" for number in range(5)]
    assert ids_in_files([f"mod_{number}/a/test_b.py" for number in range(1_000)], ids, REPOSITORY) == ids


_TEXT = st.text("ab./-T\U0010ffff", min_size=1, max_size=6)


@given(paths=st.lists(_TEXT, max_size=4), ids=st.lists(_TEXT, max_size=8, unique=True), go=st.booleans())
def test_whatever_stands_behind_a_name_is_looked_at(paths: list[str], ids: list[str], go: bool) -> None:
    """As if each id was held against each name by itself."""
    if go:
        paths = [f"{path}/x_test.go" for path in paths]
        ids = list({one.replace("T", "Test") for one in ids})
    each = {one for path in paths for one in ids if ids_in_files([path], [one], REPOSITORY)}
    assert ids_in_files(paths, ids, REPOSITORY) == sorted(each)


@pytest.mark.parametrize(
    ("paths", "ids"),
    [
        ([f"a/b{'.c' * count}" for count in range(95)], [f"a/b{'.c' * 95}{number}" for number in range(20_000)]),
        ([f"a/b{'.' * count}/x_test.go" for count in range(95)], [f"a/b{'.' * 190}{at}" for at in range(4_000)]),
        (["a/x_test.go"], [f"/a{'/s' * 95}{number}" for number in range(20_000)]),
    ],
    ids=["files", "packages", "module"],
)
def test_names_that_begin_with_each_other_cost_no_more_than_others(paths: Sequence[str], ids: Sequence[str]) -> None:
    others = [f"{number}/{one}" for number, one in enumerate(ids)]  # of which no name is the beginning
    plain = processor_seconds(lambda: sorted("".join(others).split("/")))
    assert processor_seconds(lambda: ids_in_files(paths, ids, "s")) < 6 * plain + 0.1
