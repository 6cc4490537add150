"""A change of a function reaches the tests that use it, in each language, and not those that don't."""

from __future__ import annotations

from itertools import pairwise

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from changes.graphs import by_import, by_name, change_of, linked, reached
from conductor_features.changes.changed_file import Change, ChangedFile, Content
from conductor_features.changes.distances import LocatedTests
from conductor_features.changes.graph_codec import CorruptGraph, decode_graph, encode_graph
from conductor_features.changes.impact_graph import FAR, Edges, _reach, impact_of
from conductor_features.changes.locating_tests import TestKeys
from conductor_warehouse.code_graph.languages import read_facts

PYTHON = {
    "src/shop/__init__.py": "from shop.prices import total\nfrom .tax import rate as tax_rate\n",
    "src/shop/prices.py": """
        from shop import tax
        from . import money as m

        def total(items):
            return m.add(items) * tax.rate()

        def discount(items):
            return items[0]

        class Basket:
            def empty(self):
                return discount([])
        """,
    "src/shop/tax.py": "RATE = 1\n\n\ndef rate():\n    return RATE\n",
    "src/shop/money.py": "def add(items):\n    return sum(items)\n\n\ndef show(item):\n    return str(item)\n",
    "tests/conftest.py": "from shop.prices import Basket\n\n@pytest.fixture\ndef basket():\n    return Basket()\n",
    "tests/test_total.py": "from shop import total\n\ndef test_total():\n    assert total([1])\n",
    "tests/test_basket.py": "def test_empty(basket):\n    assert basket.empty()\n",
    "tests/test_money.py": "import shop.money\n\ndef test_show():\n    assert shop.money.show(1)\n",
    "tests/test_rate.py": "import shop as s\n\nclass TestRate:\n    def test_it(self):\n        assert s.tax_rate()\n",
    "tests/test_nothing.py": "import os\n\ndef test_nothing():\n    'total basket'  # total\n",
}
TYPESCRIPT = {
    "tsconfig.json": '{ // comment\n "compilerOptions": {"baseUrl": ".", "paths": {"@app/*": ["src/*"],}}}',
    "package.json": '{"name": "root"}',
    "packages/ui/package.json": '{"name": "@acme/ui"}',
    "packages/ui/src/index.ts": "export * from './button';\n",
    "packages/ui/src/button.tsx": "export const Button = () => <b/>;\nexport const Link = () => <a/>;\n",
    "src/index.ts": "export { total as sum } from './prices';\nexport * from './tax';\n",
    "src/prices.ts": "import { rate } from './tax.js';\nexport function total(n: number) { return n * rate(); }\n"
    "export const other = () => 1;\n",
    "src/tax.ts": "export function rate() {\n  return 2;\n}\nexport function unused() {\n  return 3;\n}\n",
    "src/old.js": "const { total } = require('./prices');\nmodule.exports = { go: () => total(1) };\n",
    "src/prices.test.ts": "import { sum } from '.';\ntest('sum', () => { sum(1); });\n",
    "src/other.spec.ts": "import * as prices from '@app/prices';\ntest('other', () => { prices.other(); });\n",
    "src/__tests__/old.js": "const old = require('../old');\ntest('old', () => old.go());\n",
    "src/lazy.test.tsx": "test('lazy', async () => { const { unused } = await import('./tax'); unused(); });\n",
    "src/ui.test.tsx": "import { Button } from '@acme/ui';\ntest('b', () => <Button/>);\n",
}
JAVA = {
    "src/main/java/com/acme/Cart.java": """
        package com.acme;
        import com.acme.tax.Tax;
        public class Cart {
          public int total() { return Tax.rate() * Item.price(); }
        }
        """,
    "src/main/java/com/acme/Item.java": "package com.acme;\nclass Item {\n  static int price() { return 1; }\n}\n",
    "src/main/java/com/acme/tax/Tax.java": """
        package com.acme.tax;
        public class Tax { public static int rate() { return 2; } }
        """,
    "src/main/java/com/acme/Alone.java": "package com.acme;\nclass Alone {}\n",
    "src/test/java/com/acme/CartTest.java": """
        package com.acme;
        import static com.acme.tax.Tax.rate;
        import org.junit.jupiter.api.Test;
        class CartTest {
          @Test void total() { new Cart().total(); }
          void helper() {}
        }
        """,
    "src/test/java/com/acme/AloneTest.java": "package com.acme;\nclass AloneTest { /* Item */ Alone a; }\n",
    "src/test/java/com/other/Wide.java": """
        package com.other;
        import com.acme.*;
        class Wide { @org.junit.Test public void wide() { new Cart(); } }
        """,
}
GO = {
    "go.mod": "module example.org/shop\n\ngo 1.22\n",
    "prices/prices.go": """
        package prices
        import "example.org/shop/tax"
        type Cart struct{ n int }
        func (c *Cart) Total() int { return c.n * tax.Rate() }
        func Other() int { return helper() }
        """,
    "prices/helper.go": "package prices\n\nfunc helper() int { return 1 }\n",
    "prices/prices_test.go": """
        package prices
        import "testing"
        func TestTotal(t *testing.T) { c := Cart{1}; c.Total() }
        """,
    "prices/other_test.go": """
        package prices_test
        import ("testing"; p "example.org/shop/prices")
        func TestOther(t *testing.T) { p.Other() }
        """,
    "tax/tax.go": "package tax\n\nfunc Rate() int { return 2 }\n\nfunc Free() int { return 0 }\n",
    "cmd/main_test.go": 'package main\n\nimport "fmt"\n\nfunc TestMain(t *T) { fmt.Println() }\n',
}


def test_python() -> None:
    names, files = reached(PYTHON, "src/shop/tax.py", "return RATE")
    assert names == {"tests/test_total.py": 3, "tests/test_rate.py": 2}
    assert files == {"tests/test_total.py", "tests/test_rate.py", "tests/test_basket.py"}
    assert reached(PYTHON, "src/shop/prices.py", "return items[0]")[0] == {"tests/test_basket.py": 2}
    assert reached(PYTHON, "src/shop/money.py", "return str")[0] == {"tests/test_money.py": 1}
    assert reached(PYTHON, "tests/test_rate.py", "assert s.")[0] == {"tests/test_rate.py": 0}


def test_typescript_and_javascript() -> None:
    names, files = reached(TYPESCRIPT, "src/tax.ts", "return 2")
    assert names == {"src/prices.test.ts": 3, "src/__tests__/old.js": 3}
    assert files == {"src/prices.test.ts", "src/other.spec.ts", "src/__tests__/old.js", "src/lazy.test.tsx"}
    assert reached(TYPESCRIPT, "src/tax.ts", "return 3")[0] == {"src/lazy.test.tsx": 1}
    assert reached(TYPESCRIPT, "src/prices.ts", "export const other")[0] == {"src/other.spec.ts": 1}
    assert reached(TYPESCRIPT, "packages/ui/src/button.tsx", "export const Button")[0] == {"src/ui.test.tsx": 1}
    assert reached(TYPESCRIPT, "packages/ui/src/button.tsx", "export const Link")[0] == {}


def test_java() -> None:
    names, files = reached(JAVA, "src/main/java/com/acme/Item.java", "static int price")
    assert names == {"src/test/java/com/acme/CartTest.java": 2, "src/test/java/com/other/Wide.java": 2}
    assert files == set(names)
    names, _ = reached(JAVA, "src/main/java/com/acme/tax/Tax.java", "public class")
    assert names == {"src/test/java/com/acme/CartTest.java": 1, "src/test/java/com/other/Wide.java": 2}
    assert reached(JAVA, "src/main/java/com/acme/Alone.java", "class")[0] == {
        "src/test/java/com/acme/AloneTest.java": 1
    }
    facts = read_facts("CartTest.java", JAVA["src/test/java/com/acme/CartTest.java"].encode())
    assert facts.tests == ("CartTest.total",)


def test_go() -> None:
    names, _ = reached(GO, "tax/tax.go", "func Rate")
    assert names == {"prices/prices_test.go": 2}
    assert reached(GO, "tax/tax.go", "func Free")[0] == {}
    assert reached(GO, "prices/helper.go", "func helper")[0] == {"prices/other_test.go": 2}


def test_renames_deletions_and_what_the_graph_does_not_know() -> None:
    graph = linked(PYTHON).graph
    assert {one.target_path for one in linked(PYTHON).imports if one.is_local} <= set(graph.paths)
    moved = ChangedFile("src/shop/tax.py", "src/shop/taxes.py", Change.RENAMED)
    deleted = ChangedFile("src/shop/tax.py", None, Change.DELETED)
    for change in (moved, deleted):
        assert set(by_name(impact_of(graph, [change]))) == {"tests/test_total.py", "tests/test_rate.py"}
    impact = impact_of(
        graph,
        [
            ChangedFile(None, "tests/test_new.py", Change.ADDED),
            ChangedFile(None, "src/shop/new.py", Change.ADDED),
            ChangedFile("pyproject.toml", "pyproject.toml", Change.MODIFIED),
            ChangedFile("logo.png", "logo.png", Change.MODIFIED, Content.BINARY),
            ChangedFile("src/shop/tax.py", "src/shop/tax.py", Change.MODIFIED, mode_changed=True),
            ChangedFile(None, None, Change.MODIFIED, problem="its path can't be told"),
        ],
    )
    assert (impact.new_tests, impact.unknown) == (["tests/test_new.py"], ["src/shop/new.py"])
    assert (impact.unscoped, impact.not_code) == (["pyproject.toml"], ["logo.png"])
    assert by_name(impact) == {} == dict.fromkeys(by_import(graph, impact))


def test_a_line_outside_of_all_definitions_may_change_them_all() -> None:
    first = ChangedFile("src/shop/prices.py", "src/shop/prices.py", Change.MODIFIED, old_ranges=((2, 2),))
    impact = impact_of(linked(PYTHON).graph, [first])
    assert set(by_name(impact)) == {"tests/test_total.py", "tests/test_basket.py"}
    between = ChangedFile("src/shop/money.py", "src/shop/money.py", Change.MODIFIED, old_ranges=((2, 1),))
    assert impact_of(linked(PYTHON).graph, [between]).changed_units == ["src/shop/money.py:add"]  # within its lines


def test_the_way_tells_why() -> None:
    graph = linked(PYTHON).graph
    impact = impact_of(graph, [change_of(PYTHON, "src/shop/tax.py", "return RATE")])
    way = impact.by_name.way(graph.file_index["tests/test_rate.py"])
    assert [graph.name_of(node) for node in way] == [
        "src/shop/tax.py:rate",
        "src/shop/__init__.py:tax_rate",
        "tests/test_rate.py:TestRate",
        "tests/test_rate.py",
    ]


@pytest.mark.parametrize(
    ("files", "test_id", "path", "rest"),
    [
        (PYTHON, "tests/test_rate.py::TestRate::test_it[a-1]", "tests/test_rate.py", ["TestRate", "test_it", "a-1"]),
        (PYTHON, "tests.test_rate.TestRate#test_it", "tests/test_rate.py", ["TestRate", "test_it"]),
        (PYTHON, "unit: tests.test_total test_total", "tests/test_total.py", ["test_total"]),
        (JAVA, "com.acme.CartTest#total", "src/test/java/com/acme/CartTest.java", ["total"]),
        (JAVA, "com.acme.CartTest.total()", "src/test/java/com/acme/CartTest.java", ["total"]),
        (JAVA, ":app:test CartTest > total", "src/test/java/com/acme/CartTest.java", ["total"]),
        (TYPESCRIPT, "src/prices.test.ts › sum", "src/prices.test.ts", ["sum"]),
        (TYPESCRIPT, "/home/ci/src/other.spec.ts > other", "src/other.spec.ts", ["other"]),
        (GO, "example.org/shop/cmd.TestMain/sub", "cmd/main_test.go", ["TestMain", "sub"]),
        (GO, "cmd/TestMain", "cmd/main_test.go", ["TestMain"]),
    ],
)
def test_test_ids_lead_to_files(files: dict[str, str], test_id: str, path: str, rest: list[str]) -> None:
    graph = linked(files).graph
    place = TestKeys(graph.test_keys).place_of(test_id)
    assert place is not None
    assert ([graph.paths[file] for file in place.files], place.words) == ([path], rest)


def test_distances_of_tests_by_their_ids() -> None:
    tests = "from shop import tax, money\n\ndef test_a():\n    tax.rate()\n\ndef test_b():\n    money.add([])\n"
    files = PYTHON | {"tests/test_two.py": tests}
    graph = linked(files).graph
    locator = LocatedTests(graph)
    ids = [
        "tests/test_two.py::test_a",
        "tests.test_two.test_b[1]",
        "tests/test_two.py::other",
        "tests/test_new.py::test_c",
    ]
    for path, line, by_name_, by_import_ in (
        ("src/shop/tax.py", "return RATE", [1, FAR, 1, FAR], [1, 1, 1, FAR]),
        ("src/shop/money.py", "return sum", [FAR, 1, 1, FAR], [1, 1, 1, FAR]),
    ):
        impact = impact_of(graph, [change_of(files, path, line)])
        for asked, order in ((ids, [0, 1, 2, 3]), ([ids[3], ids[0], ids[3]], [3, 0, 3])):
            found = locator.distances(impact, asked)
            assert found.by_name.tolist() == [by_name_[at] for at in order]
            assert found.by_import.tolist() == [by_import_[at] for at in order]
            assert found.known.tolist() == [at != 3 for at in order]
    assert locator.distances(impact, []).known.tolist() == []
    assert locator.way(impact, ids[1]) == (1, ["src/shop/money.py:add", "tests/test_two.py:test_b"])
    assert locator.way(impact, ids[0]) == (1, ["src/shop/money.py", "tests/test_two.py"])
    assert locator.way(impact, ids[3]) is None
    go = linked(GO).graph  # a package's files share a key: the test's name tells which it is
    impact = impact_of(go, [change_of(GO, "tax/tax.go", "func Rate")])
    asked = ["example.org/shop/prices.TestTotal", "prices/TestOther/sub"]
    assert LocatedTests(go).distances(impact, asked).by_name.tolist() == [2, FAR]


def test_test_ids_that_fit_nothing_or_several() -> None:
    keys = TestKeys(linked(GO).graph.test_keys)
    assert keys.place_of("com.acme.Unknown") is None
    assert keys.place_of("") is None
    assert keys.place_of("." * 10_000 + "x" * 10_000) is None
    several = keys.place_of("example.org/shop/prices.TestTotal")
    assert several is not None and len(several.files) == 2
    assert keys.place_of("run 7: cmd.TestMain", "run 7: ") == keys.place_of("cmd.TestMain")


def test_packed_it_is_the_same_graph_and_damage_is_noticed() -> None:
    graph, key = linked(TYPESCRIPT).graph, b"key"
    value = encode_graph(key, 7, graph)
    again = decode_graph(key, value)
    change = [change_of(TYPESCRIPT, "src/tax.ts", "return 2")]
    assert by_name(impact_of(again, change)) == by_name(impact_of(graph, change))
    assert (again.paths, again.unit_names, again.test_keys) == (graph.paths, graph.unit_names, graph.test_keys)
    for other, damaged in ((b"other", value), (key, value[:-1]), (key, value[:50] + b"x" + value[51:]), (key, b"")):
        with pytest.raises(CorruptGraph):
            decode_graph(other, damaged)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_distances_are_those_of_the_cheapest_ways(data: st.DataObject) -> None:
    """Beside Bellman and Ford's: relaxed until nothing changes."""
    count = data.draw(st.integers(1, 12))
    pair = st.tuples(st.integers(0, count - 1), st.integers(0, count - 1))
    free, dear = (data.draw(st.lists(pair, max_size=25)) for _ in range(2))
    seeds = data.draw(st.lists(st.integers(0, count - 1), max_size=3))
    found = _reach(
        count, np.array(seeds, np.int32), *(Edges.of(count, np.array(one, np.int64)) for one in (free, dear))
    )
    expected = dict.fromkeys(seeds, 0)
    for _ in range(count + 1):
        for edges, cost in ((free, 0), (dear, 1)):
            for one, other in edges:
                if one in expected:
                    expected[other] = min(expected.get(other, FAR), expected[one] + cost)
    assert found.distance.tolist() == [expected.get(node, FAR) for node in range(count)]
    for node, distance in expected.items():
        way = found.way(node)
        assert way[0] in seeds and way[-1] == node
        steps = list(pairwise(way))
        assert all(step in free or step in dear for step in steps)
        assert sum(step not in free for step in steps) <= distance
