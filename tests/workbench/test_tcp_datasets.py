"""Files of test executions become events; what was known only afterwards is in results and nowhere else."""

from __future__ import annotations

import csv
import gzip
import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from google.protobuf import json_format
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from conductor.events.v1 import test_pb2
from conductor_warehouse.events import Event, parse
from conductor_workbench.cli import datasets_commands
from conductor_workbench.datasets import tcp
from conductor_workbench.datasets.catalogue import DATASETS, local_files
from conductor_workbench.events_file import read_lines, write_events

RETECS = {
    "Id": "1",
    "Name": "t1",
    "Duration": "1500",
    "CalcPrio": "0",
    "LastRun": "2015-02-13 16:13:00",
    "LastResults": "[]",
    "Verdict": "1",
    "Cycle": "1",
}
COLEMAN = {
    "Id": 1,
    "Name": 7,
    "BuildId": 3,
    "Duration": 0.25,
    "LastRun": "2013-02-17 08:22:05.000000",
    "NumRan": 4,
    "NumErrors": 0,
    "ChangeType": 6,
    "Verdict": 0,
}


def retecs_file(path: Path, *rows: dict[str, str], separator: str = ";") -> Path:
    with gzip.open(path, "wt", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), delimiter=separator)
        writer.writeheader()
        writer.writerows(rows)
    return path


def coleman_file(path: Path, *rows: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows)), path)
    return path


def converted(*paths: Path) -> tuple[list[test_pb2.TestCompleted], tcp.Report]:
    report, target = tcp.Report(), paths[0].parent / "events.ndjson"
    write_events(tcp.convert(paths, report), target)
    lines = list(read_lines([target]))
    assert all(isinstance(parse(json.dumps(line).encode()), Event) for line in lines), "the warehouse takes them all"
    return [json_format.ParseDict(line["data"], test_pb2.TestCompleted()) for line in lines], report


def test_a_retecs_file(tmp_path: Path) -> None:
    later = RETECS | {"Cycle": "2", "LastRun": "2015-02-14 10:00:00", "Verdict": "0", "LastResults": "[1]"}
    rows = [RETECS, RETECS | {"Id": "2", "Name": "t2", "LastRun": "2015-02-13 16:20:00", "Verdict": "0"}, later]
    events, report = converted(retecs_file(tmp_path / "paintcontrol.csv.gz", *rows))
    assert [event.run_id for event in events] == ["paintcontrol-1", "paintcontrol-2"]
    first = events[0]
    assert first.repository == "paintcontrol"
    assert [(result.test_id, result.outcome) for result in first.results] == [
        ("t1", test_pb2.TestOutcome.TEST_OUTCOME_FAILED),
        ("t2", test_pb2.TestOutcome.TEST_OUTCOME_PASSED),
    ]
    assert first.results[0].duration.ToMilliseconds() == 1500
    assert first.started_time.ToJsonString() == "2015-02-13T16:13:00Z"
    assert first.completed_time.ToJsonString() == "2015-02-13T16:20:00Z"
    assert report.counts["rows (RETECS)"] == 3


def test_a_coleman_file(tmp_path: Path) -> None:
    touched = COLEMAN | {"Name": 8, "ChangeType": 5, "Verdict": 1}
    path = tmp_path / "square@retrofit" / "features-engineered-contextual.parquet"
    (event,), _ = converted(coleman_file(path, COLEMAN, touched))
    assert (event.repository, event.run_id) == ("square/retrofit", "retrofit-3")
    assert list(event.changed_paths) == ["8"], "the test's own file was touched"
    assert event.results[0].duration.ToMilliseconds() == 250
    assert [result.test_id for result in event.results] == ["7", "8"]


def test_the_same_rows_with_commas_and_without_context_give_the_same(tmp_path: Path) -> None:
    plain = {name: str(value) for name, value in COLEMAN.items() if name != "ChangeType"}
    (left,), _ = converted(retecs_file(tmp_path / "square@retrofit__features-engineered.csv.gz", plain, separator=","))
    (right,), _ = converted(coleman_file(tmp_path / "square@retrofit__x.parquet", COLEMAN))
    assert left == right


def test_cycles_keep_their_order_and_do_not_overlap(tmp_path: Path) -> None:
    rows = [RETECS | {"Cycle": cycle, "LastRun": time} for cycle, time in (("3", ""), ("1", RETECS["LastRun"]))]
    rows += [RETECS | {"Cycle": "2", "LastRun": "2015-02-13 11:00:00"}]
    events, report = converted(retecs_file(tmp_path / "a.csv.gz", *rows))
    assert [event.run_id for event in events] == ["a-1", "a-2", "a-3"]
    ends = [event.completed_time.ToDatetime() for event in events]
    assert all(event.started_time.ToDatetime() > end for event, end in zip(events[1:], ends, strict=False))
    assert report.counts["rows whose time can't be told"] == 1
    assert report.counts["cycles that begin later than their rows say, to keep their order"] == 1


def test_without_times_there_is_a_day_for_each_cycle(tmp_path: Path) -> None:
    rows = [RETECS | {"Cycle": str(cycle), "LastRun": "?"} for cycle in (5, 9)]
    events, report = converted(retecs_file(tmp_path / "a.csv.gz", *rows))
    assert [event.completed_time.ToDatetime() for event in events] == [datetime(2000, 1, 1), datetime(2000, 1, 2)]  # noqa: DTZ001
    assert report.counts["files without times: a day for each cycle"] == 1


def test_only_results_depend_on_what_was_known_afterwards(tmp_path: Path) -> None:
    one = converted(retecs_file(tmp_path / "a.csv.gz", RETECS))[0][0]
    other = RETECS | {"Verdict": "0", "Duration": "9", "LastResults": "[1, 1]", "CalcPrio": "7"}
    two = converted(retecs_file(tmp_path / "a.csv.gz", other))[0][0]
    assert one != two
    for event in (one, two):
        del event.results[:]
    assert one == two


@pytest.mark.parametrize(
    ("cell", "value", "message"),
    [
        ("Verdict", "2", "a.csv.gz:3: Verdict is '2', not 0 or 1"),
        ("Verdict", "", "a.csv.gz:3: Verdict is '', not 0 or 1"),
        ("Cycle", "1.5", "a.csv.gz:3: Cycle is '1.5', not a whole number"),
        ("Name", " ", "a.csv.gz:3: Name is ''"),
        ("Name", "x" * 513, "1 to 512 characters"),
    ],
)
def test_what_cannot_be_told_is_refused_with_its_line(tmp_path: Path, cell: str, value: str, message: str) -> None:
    source = retecs_file(tmp_path / "a.csv.gz", RETECS, RETECS | {cell: value})
    result = CliRunner().invoke(datasets_commands, ["convert", "tcp", str(source), "-o", str(tmp_path / "e.ndjson")])
    assert result.exit_code == 1
    assert message in " ".join(result.output.split())
    assert list(tmp_path.iterdir()) == [source], "nothing half-written"


def test_files_of_something_else_are_refused(tmp_path: Path) -> None:
    for name, content in (
        ("a.csv", b"a,b\n1,2\n"),
        ("b.csv.gz", b"no gzip"),
        ("c.parquet", b"none"),
        ("d.csv", b"\xff\xfe"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=name):
            list(tcp.convert([tmp_path / name], tcp.Report()))
    cut = retecs_file(tmp_path / "e.csv.gz", RETECS)
    cut.write_bytes(gzip.compress(gzip.decompress(cut.read_bytes()) + b"2;t\r\n"))
    with pytest.raises(ValueError, match=r"e\.csv\.gz:3: not as many cells"):
        list(tcp.convert([cut], tcp.Report()))
    with pytest.raises(ValueError, match="convert one of them"):
        list(
            tcp.convert(
                [retecs_file(tmp_path / "f.csv.gz", RETECS), retecs_file(tmp_path / "f.csv", RETECS)][:1] * 2,
                tcp.Report(),
            )
        )


CELLS = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=6),
    st.sampled_from(
        ["0", "1", "1.0", "nan", "-1", "1e300", "inf", "2015-02-13", "2015-02-13T10:00:00+02:00", "0001-01-01"]
    ),
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.fixed_dictionaries({}, optional=dict.fromkeys(RETECS, CELLS)), min_size=1, max_size=5))
def test_whatever_stands_in_a_row_it_is_an_event_or_an_error_with_its_place(
    tmp_path: Path, rows: list[dict[str, str]]
) -> None:
    path = retecs_file(tmp_path / "a.csv.gz", *(RETECS | row for row in rows))
    try:
        events, report = converted(path)
    except ValueError as error:
        assert str(error).startswith(f"{path}:")
        return
    assert sum(len(event.results) for event in events) == report.counts["rows (RETECS)"] == len(rows)
    times = [event.completed_time.ToNanoseconds() for event in events]
    assert times == sorted(set(times))


def test_the_real_files_convert_whole(tmp_path: Path) -> None:
    files = [path for path in local_files(DATASETS["tcp"]) if "iofrol" in path.name]
    if not files:
        pytest.skip("CONDUCTOR_DATA_HOME holds no iofrol")
    report = tcp.Report()
    events = [event.data for event in tcp.convert(files, report)]
    assert (len(events), report.counts["rows (RETECS)"]) == (320, 32_260)
    failed = sum(
        result.outcome == test_pb2.TestOutcome.TEST_OUTCOME_FAILED for event in events for result in event.results
    )
    assert round(failed / report.counts["rows (RETECS)"], 3) == 0.288


def test_a_duration_that_is_none_is_unknown_and_counted(tmp_path: Path) -> None:
    cells = ("-1", "nan", "", "inf", "1e300", "0")
    rows = [RETECS | {"Name": f"t{place}", "Duration": cell} for place, cell in enumerate(cells)]
    (event,), report = converted(retecs_file(tmp_path / "a.csv.gz", *rows))
    assert [result.HasField("duration") for result in event.results] == [False] * 5 + [True]
    assert report.counts["rows whose duration can't be told"] == 5
