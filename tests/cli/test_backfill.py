"""``flagsync backfill``: rows of files and of stdin become profiles; whatever is wrong ends in a sentence."""

import errno
import json
import os
import random
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from flagsync._cli.app import app
from flagsync._cli.bar import Bar
from flagsync._cli.rows import csv_rows, json_rows, source
from flagsync.bulk import Report
from flagsync.bulk.pace import Pace
from flagsync.bulk.window import CHUNK_ROWS
from flagsync.testing import MixpanelServer, Request
from tests.conftest import DATA
from tests.support.evaluating_flagsmith import EvaluatingFlagsmith
from tests.support.flagsmith_server import KEY
from tests.support.processes import end, names, sent

DOCUMENT = str(DATA / "environment-document.json")
MAIN = "from flagsync._cli import main; raise SystemExit(main())"
KILLS = 10
Run = Callable[..., Any]


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, mixpanel: MixpanelServer, tmp_path: Path) -> None:
    for name in ("FLAGSMITH_ENVIRONMENT_KEY", "FLAGSYNC_ENABLED", "FLAGSYNC_OUTBOX", "MIXPANEL_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MIXPANEL_TOKEN", "token")
    monkeypatch.setenv("MIXPANEL_URL", mixpanel.url)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def run() -> Run:
    """Runs the command in this process, by default with a document."""

    def run_command(*arguments: str, document: str | None = DOCUMENT, stdin: bytes = b"") -> Any:
        options = ["--document", document] if document else []
        result = CliRunner().invoke(app, ["backfill", *arguments, *options], input=stdin)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    return run_command


def write(content: bytes | str, name: str = "users.csv") -> str:
    Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return name


def rejects(name: str = "bad") -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(name).read_text("utf-8").splitlines()]


def counts(result: Any) -> dict[str, int]:
    """Return the counts of ``--json`` that are not 0."""
    found: Mapping[str, Any] = json.loads(result.stdout)
    return {name: found[name] for name in found if found[name] and name not in ("seconds", "rows_per_second")}


def csv_of(people: Sequence[str]) -> str:
    return "".join(f"{line}\n" for line in ("identifier,plan,age", *(f"{name},pro,30" for name in people)))


class TestCsv:
    @pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
    @pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
    def test_csv_may_have_any_usual_delimiter_and_a_mark(
        self, run: Run, mixpanel: MixpanelServer, delimiter: str, mark: bytes
    ) -> None:
        lines = ["\n", delimiter.join(("identifier", "plan")), delimiter.join(("user_1", '"a\nb"')), "", "", ""]
        result = run(write(mark + "\r\n".join(lines).encode()))
        assert result.exit_code == 0
        assert {*mixpanel.profiles} == {"user_1"}

    def test_csv_is_text_until_a_type_is_declared(self, run: Run, mixpanel: MixpanelServer) -> None:
        write("identifier,age,vip,score,zip,,none\nu_1,30,true,1.5,00501,x,\nu_2,31,false,2,10001,x,\n")
        result = run("users.csv")
        assert "--type age=int --type vip=bool --type score=float\n" in result.stderr
        result = run("users.csv", "--type", "age=int", "--type", "vip=bool", "--type", "score=float")
        assert "--type" not in result.stderr
        assert result.exit_code == 0

    def test_csv_shows_only_some_apparent_types(self, run: Run) -> None:
        columns = [f"c{number}" for number in range(3000)]
        result = run(write(f"identifier,{','.join(columns)}\nuser_1,{','.join('1' for _ in columns)}\n"))
        assert result.exit_code == 0
        assert "--type c19=int … (3,000)\n" in result.stderr

    def test_csv_row_that_cannot_be_read_costs_itself(self, run: Run, mixpanel: MixpanelServer) -> None:
        rows = [
            b"u_1,a,1",
            b"u_2,a",
            b",".join([b"u_3", *[b"x"] * 3000]),
            b"u_4,\xe9,4",
            b'u_5,"a"b,5',
            b",a,6",
        ]
        rows += [b"u_7,a,x", b"\xe9,a,8", b"u_9,a,9", b'u_10,"a,10']
        write(b"identifier,plan,age\n" + b"\n".join(rows))
        result = run("users.csv", "--rejects", "bad", "--type", "age=int", "--json")
        assert result.exit_code == 1
        assert {*mixpanel.profiles} == {"u_1", "u_9"}
        assert counts(result)["rejected"] == 8
        assert [(line["row"], line["identifier"]) for line in rejects()] == [
            (2, "u_2"),
            (3, "u_3"),
            (4, "u_4"),
            (5, None),
            (6, ""),
            (7, "u_7"),
            (8, None),
            (10, None),
        ]
        assert [line["reason"] for line in rejects()][:4] == [
            "it has 2 fields, but the header has 3",
            "it has 3001 fields, but the header has 3",
            "it is not UTF-8; convert the file, such as with iconv -f latin1 -t utf-8",
            "it cannot be read as CSV (',' expected after '\"')",
        ]
        assert rejects()[5]["reason"] == "column 'age' cannot be read as int"

    @pytest.mark.parametrize(
        ("content", "text"),
        [
            (b"", "users.csv is empty"),
            (b"\xef\xbb\xbf\n", "users.csv is empty"),
            (b",,\nu,a,b\n", "users.csv is empty: it needs a header"),
            (
                b"id,plan\n",
                "users.csv has no column 'identifier': choose one with --identifier; its columns are id, plan",
            ),
            (b"identifier,a,b,a\n", "users.csv has several columns named a: rename or remove them"),
            (b"identifier,\xe9\n", "The header of users.csv cannot be read: it is not UTF-8"),
            (b'identifier,"a"b\n', "The header of users.csv cannot be read as CSV (',' expected after '\"')"),
            (b"identifier," + b"a" * 140_000, "The header of users.csv cannot be read as CSV (field larger"),
            (
                "identifier\nu\n".encode("utf-16"),
                "users.csv is not text in UTF-8: convert it, for example with iconv",
            ),
            (
                b"\x1f\x8b\x08",
                "users.csv is compressed: decompress it, or pass - and pipe gunzip --stdout FILE",
            ),
        ],
    )
    def test_csv_that_cannot_be_used_ends_in_a_sentence(self, run: Run, content: bytes, text: str) -> None:
        result = run(write(content))
        assert result.exit_code == 2
        assert f"Error: {text}" in result.stderr
        assert result.stdout == ""

    def test_csv_with_an_endless_line_ends_in_a_sentence(
        self, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(csv_rows, "MAX_LINE", 100)
        result = run(write(csv_of(["user_1", "x" * 100])))
        assert result.exit_code == 1
        assert "has a line of more than 100 characters, so it is not CSV. 1 row settled" in result.stderr

    @pytest.mark.parametrize("quoted", ["", '"'])
    def test_csv_quotation_mark_without_an_end_costs_its_row_only(
        self, run: Run, mixpanel: MixpanelServer, quoted: str
    ) -> None:
        people = names("user", 9000)  # more text than csv has in a field
        lines = [f"{quoted}{name}{quoted},{quoted}pro{quoted}\n" for name in people]
        lines[4], lines[-1] = 'user_4,"pro\n', 'user_8999,"pro\n'
        write("identifier,plan\n" + "".join(lines))
        result = run("users.csv", "--rejects", "bad", "--json")
        assert result.exit_code == 1
        assert [line["row"] for line in rejects()] == [5, 9000]
        assert {*mixpanel.profiles} == {*people} - {"user_4", "user_8999"}

    def test_csv_with_a_field_that_is_too_long_costs_its_row_only(
        self, run: Run, mixpanel: MixpanelServer
    ) -> None:
        write(f"identifier,plan\nuser_1,{'x' * 140_000}\nuser_2,pro\n")
        assert run("users.csv", "--rejects", "bad").exit_code == 1
        assert rejects()[0]["reason"] == "it cannot be read as CSV (field larger than field limit (131072))"
        assert {*mixpanel.profiles} == {"user_2"}

    def test_csv_delimiter_is_the_one_that_makes_the_identifier_a_column(
        self, run: Run, mixpanel: MixpanelServer
    ) -> None:
        result = run(write("identifier,plan|tier|level\nuser_1,pro\n"))
        assert (result.exit_code, {*mixpanel.profiles}) == (0, {"user_1"})

    def test_csv_number_that_only_python_reads_is_rejected(self, run: Run) -> None:
        rows = ["u_1,1_000,1", "u_2,1,1_0.5", "u_3,٤٢,1", "u_4,4,٤.٢", "u_5, 7 ,-1.5e3"]
        write("\n".join(["identifier,age,score", *rows]))
        run("users.csv", "--type", "age=int", "--type", "score=float", "--rejects", "bad", "--dry-run")
        assert [line["row"] for line in rejects()] == [1, 2, 3, 4]

    def test_csv_without_rows_is_done(self, run: Run) -> None:
        result = run(write("identifier,plan\n"), "--json")
        assert (result.exit_code, counts(result)) == (0, {})


class TestJsonLines:
    def test_json_lines_have_types_of_their_own(self, run: Run, mixpanel: MixpanelServer) -> None:
        lines = [
            b'\xef\xbb\xbf{"identifier": "u_1", "age": 30}',
            b"",
            b'{"identifier": 2, "age": "30", "x": null}',
        ]
        result = run(write(b"\n".join(lines), "users.jsonl"), "--type", "age=int", "--type", "x=str")
        assert result.exit_code == 0
        assert {*mixpanel.profiles} == {"u_1", "2"}

    def test_json_line_that_cannot_be_read_costs_itself(self, run: Run, mixpanel: MixpanelServer) -> None:
        lines = [
            b'{"identifier": "u_1"}',
            b"[1]",
            b'{"identifier": "\xe9"}',
            b'{"a": 1}',
            b'{"identifier": "u_4", "ag',
        ]
        result = run("-", "--rejects", "bad", "--json", stdin=b"\n".join(lines))
        assert result.exit_code == 1
        assert [line["reason"] for line in rejects()] == [
            "the line is not a JSON object",
            "the line is not UTF-8",
            "there is no column 'identifier'",
            "the line is not valid JSON",
        ]
        assert {*mixpanel.profiles} == {"u_1"}

    def test_json_line_without_an_identifier_of_text_has_none_in_the_rejects(self, run: Run) -> None:
        write('{"identifier": 7, "age": "x"}\n', "users.ndjson")
        assert run("users.ndjson", "--rejects", "bad", "--type", "age=int").exit_code == 1
        assert rejects() == [{"row": 1, "identifier": None, "reason": "column 'age' cannot be read as int"}]

    def test_json_number_that_is_infinite_costs_its_row_only(self, run: Run, mixpanel: MixpanelServer) -> None:
        write('{"identifier": "u_1", "n": 1e999}\n{"identifier": "u_2", "n": NaN}\n', "users.jsonl")
        assert run("users.jsonl", "--rejects", "bad").exit_code == 1
        assert rejects()[0]["reason"] == "column 'n': a number must be finite"
        assert {*mixpanel.profiles} == {"u_2"}

    def test_json_list_is_no_text_even_if_that_is_declared(self, run: Run) -> None:
        write('{"identifier": "u_1", "tags": ["a"]}\n', "users.jsonl")
        assert run("users.jsonl", "--rejects", "bad", "--type", "tags=str").exit_code == 1
        assert rejects()[0]["reason"] == "column 'tags': a trait is text, a number or a boolean, not list"

    def test_json_with_an_endless_line_ends_in_a_sentence(
        self, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(json_rows, "MAX_LINE", 50)
        result = run(write(f'{{"identifier": "{"x" * 50}"}}', "users.jsonl"))
        assert result.exit_code == 1
        assert "has a line of more than 50 bytes, so it is not JSON Lines" in result.stderr

    def test_json_array_is_refused_with_the_remedy(self, run: Run) -> None:
        result = run(write('[{"identifier": "u_1"}]', "users.json"))
        assert result.exit_code == 2
        assert (
            "users.json is a JSON array: write an object a line instead, such as with jq -c '.[]'"
            in result.stderr
        )


class TestParquet:
    @pytest.fixture
    def parquet(self) -> Path:
        table = pa.table({"identifier": names("user", 3000), "age": [*range(3000)], "none": [None] * 3000})
        pq.write_table(table, "users.parquet", row_group_size=1000, compression="none")
        return Path("users.parquet")

    def test_parquet_rows_are_mirrored(self, run: Run, mixpanel: MixpanelServer, parquet: Path) -> None:
        result = run("users.parquet", "--json")
        assert result.exit_code == 0
        assert counts(result) == {"read": 3000, "delivered": 3000}

    def test_truncated_parquet_ends_in_a_sentence(self, run: Run, parquet: Path) -> None:
        parquet.write_bytes(parquet.read_bytes()[:-100])
        result = run("users.parquet")
        assert result.exit_code == 2
        assert "Error: users.parquet is not a complete Parquet file" in result.stderr

    def test_corrupt_parquet_ends_behind_the_rows_that_can_be_read(self, run: Run, parquet: Path) -> None:
        content = bytearray(parquet.read_bytes())
        begin = content.index(b"user_2000")
        content[begin - 200 : begin + 200] = b"\xff" * 400
        parquet.write_bytes(content)
        result = run("users.parquet")
        assert result.exit_code == 1
        assert "users.parquet cannot be read to its end" in result.stderr
        assert "1,000 rows settled" in result.stderr

    @pytest.mark.parametrize(
        "values",
        [
            pa.array([0, 2**40], pa.timestamp("s")),  # a year that Python does not have
            pa.Array.from_buffers(pa.string(), 2, pa.array([b"a", b"\xe9"]).buffers()),
        ],
    )
    def test_parquet_value_that_cannot_be_read_costs_its_row_only(
        self, run: Run, mixpanel: MixpanelServer, values: pa.Array
    ) -> None:
        pq.write_table(pa.table({"identifier": ["u_1", "u_2"], "value": values}), "users.parquet")
        assert run("users.parquet", "--rejects", "bad").exit_code == 1
        assert [line["row"] for line in rejects()] == [2]
        assert rejects()[0]["reason"].startswith("a value cannot be read (")
        assert {*mixpanel.profiles} == {"u_1"}

    def test_parquet_from_stdin_is_refused(self, run: Run, parquet: Path) -> None:
        result = run("-", stdin=parquet.read_bytes())
        assert result.exit_code == 2
        assert "Parquet cannot be read from stdin" in result.stderr

    def test_parquet_needs_an_extra(self, run: Run, parquet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
        monkeypatch.delitem(__import__("sys").modules, "flagsync._cli.rows.parquet_rows", raising=False)
        result = run("users.parquet")
        assert result.exit_code == 2
        assert "pip install 'flagsync[parquet]'" in result.stderr


class TestOptions:
    @pytest.mark.parametrize(
        ("options", "text"),
        [
            (["--type", "age"], "--type takes column=type, where type is str, int, float, bool, not 'age'"),
            (["--type", "age=text"], "--type takes column=type"),
            (["--type", "age=int", "--type", "age=str"], "--type: 'age' is given twice"),
            (["--type", "identifier=int"], "--type: 'identifier' is the identifier, which is text"),
            (
                ["--type", "size=int"],
                "--type: users.csv has no column size; its columns are identifier, plan, age",
            ),
            (["--rate", "0"], "--rate takes a number above 0, not 0.0"),
            (["--rejects", "users.csv"], "FILE, --checkpoint and --rejects must be different files"),
            (["--rejects", "no/bad"], "no/bad cannot be used (No such file or directory)"),
            (["--checkpoint", "no/done"], "no/done cannot be used (No such file or directory)"),
            (["--checkpoint", "users.csv/done"], "users.csv/done cannot be used (Not a directory)"),
            (["--identifier", ""], "--identifier takes the name of a column, not an empty text"),
            (["--dry-run", "--checkpoint", "done"], "--dry-run makes no progress to write down"),
        ],
    )
    def test_wrong_option_ends_in_a_sentence(
        self, run: Run, mixpanel: MixpanelServer, options: list[str], text: str
    ) -> None:
        content = csv_of(["user_1"])
        result = run(write(content), *options)
        assert result.exit_code == 2
        assert text in result.stderr
        assert Path("users.csv").read_text() == content
        assert mixpanel.requests == []

    def test_rate_may_be_as_low_as_a_float(self, run: Run) -> None:
        sleeps = list[float]()
        pace = Pace(1e-300, sleeps.append)
        pace.wait(1)
        pace.wait(1)
        assert sleeps == [threading.TIMEOUT_MAX]

    def test_pipe_may_begin_with_empty_lines_alone(self) -> None:
        reader, writer = os.pipe()
        with os.fdopen(reader, "rb") as pipe:
            os.write(writer, b"\n")
            assert pipe.peek() == b"\n"
            os.write(writer, b"identifier\nuser_1\n")
            os.close(writer)
            rows = source._rows(source.STDIN, "stdin", pipe, "identifier")
            assert [*rows] == [{"identifier": "user_1"}]

    def test_pipe_takes_no_checkpoint(self, run: Run) -> None:
        os.mkfifo("pipe")
        for name in ("-", "pipe"):
            result = run(name, "--checkpoint", "done", stdin=b"identifier\n")
            assert result.exit_code == 2
            assert "--checkpoint needs a file that can be read again, not a pipe" in result.stderr

    @pytest.mark.parametrize(("name", "why"), [("none.csv", "No such file"), (".", "Is a directory")])
    def test_file_that_cannot_be_opened_ends_in_a_sentence(self, run: Run, name: str, why: str) -> None:
        result = run(name)
        assert result.exit_code == 2
        assert f"Error: {name} cannot be read ({why}" in result.stderr

    @pytest.mark.parametrize(
        ("variables", "text"),
        [
            ({"MIXPANEL_TOKEN": ""}, "MIXPANEL_TOKEN must be set to the project token"),
            ({"MIXPANEL_URL": "x"}, "MIXPANEL_URL must be a complete URL"),
            ({"FLAGSYNC_ENABLED": "false"}, "FLAGSYNC_ENABLED=false switches mirroring off"),
            ({"FLAGSYNC_OUTBOX": "/dev/null"}, "outbox"),
        ],
    )
    def test_wrong_configuration_ends_in_a_sentence(
        self, run: Run, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], text: str
    ) -> None:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        result = run(write(csv_of(["user_1"])))
        assert result.exit_code == 2
        assert text in result.stderr


class TestOutcome:
    def test_dry_run_needs_no_token_and_sends_nothing(
        self, run: Run, monkeypatch: pytest.MonkeyPatch, mixpanel: MixpanelServer
    ) -> None:
        monkeypatch.delenv("MIXPANEL_TOKEN")
        result = run(write(csv_of(["user_1", "nil"])), "--dry-run", "--json")
        assert result.exit_code == 1
        assert counts(result) == {
            "read": 2,
            "evaluated": 1,
            "rejected": 1,
            "reasons": {"Mixpanel blocks the identifier as a placeholder": 1},
        }
        assert mixpanel.requests == []

    def test_summary_says_what_became_of_the_rows(self, run: Run) -> None:
        result = run(write(csv_of(["user_1", "user_2", "nil"])))
        assert result.exit_code == 1
        lines = [line.split() for line in result.stdout.splitlines()]
        assert lines[:4] == [["rows", "count"], ["read", "3"], ["delivered", "2"], ["rejected", "1"]]
        assert lines[-1] == "Mixpanel blocks the identifier as a placeholder 1".split()
        assert "--rejects FILE tells which rows were rejected." in result.stderr

    def test_summary_counts_no_more_than_some_reasons(self, run: Run) -> None:
        lines = [f'{{"identifier": "u", "c{number}": []}}' for number in range(150)]
        result = run("-", "--json", stdin="\n".join(lines).encode())
        assert len(json.loads(result.stdout)["reasons"]) == 100

    def test_wrong_token_ends_the_command(self, run: Run, mixpanel: MixpanelServer) -> None:
        mixpanel.fail(status=401)
        result = run(write(csv_of(["user_1"])), "--checkpoint", "done")
        assert result.exit_code == 1
        assert "(HTTP 401; check mixpanel_token, region and mixpanel_url). 0 rows settled" in result.stderr

    def test_outbox_of_the_environment_is_used(
        self, run: Run, monkeypatch: pytest.MonkeyPatch, mixpanel: MixpanelServer
    ) -> None:
        monkeypatch.setenv("FLAGSYNC_OUTBOX", "outbox.db")
        write(csv_of(names("user", 10)))
        assert counts(run("users.csv", "--json")) == {"read": 10, "delivered": 10}
        assert counts(run("users.csv", "--json")) == {"read": 10, "unchanged": 10}


class TestFlagsmith:
    def test_remote_evaluation_is_said(self, run: Run, monkeypatch: pytest.MonkeyPatch, document: Any) -> None:
        with EvaluatingFlagsmith(document) as server:
            monkeypatch.setenv("FLAGSMITH_ENVIRONMENT_KEY", KEY)
            monkeypatch.setenv("FLAGSMITH_API_URL", server.api_url)
            write(csv_of(["user_1"]))
            local = run("users.csv", document=None)
            monkeypatch.setenv("FLAGSMITH_LOCAL_EVALUATION", "true")
            assert "Each row is a request" not in run("users.csv", document=None).stderr
        assert "Each row is a request to Flagsmith's API" in local.stderr

    @pytest.mark.parametrize("is_local", ["true", "false"])
    def test_flagsmith_that_does_not_answer_ends_the_command(
        self, run: Run, monkeypatch: pytest.MonkeyPatch, document: Any, is_local: str
    ) -> None:
        with EvaluatingFlagsmith(document) as server:
            server.fail(status=403)
            monkeypatch.setenv("FLAGSMITH_ENVIRONMENT_KEY", KEY)
            monkeypatch.setenv("FLAGSMITH_API_URL", server.api_url)
            monkeypatch.setenv("FLAGSMITH_LOCAL_EVALUATION", is_local)
            result = run(write(csv_of(["user_1"])), document=None)
        assert result.exit_code == 1
        assert "Error: Flagsmith" in result.stderr

    def test_flagsmith_that_stops_to_answer_ends_the_command(
        self, run: Run, monkeypatch: pytest.MonkeyPatch, document: Any
    ) -> None:
        with EvaluatingFlagsmith(document) as server:
            monkeypatch.setenv("FLAGSMITH_ENVIRONMENT_KEY", KEY)
            monkeypatch.setenv("FLAGSMITH_API_URL", server.api_url)
            answer = server._answer

            def refuse(request: Request) -> tuple[int, bytes]:
                return (503, b"") if b"user_1" in request.body else answer(request)

            server._answer = refuse  # type: ignore[method-assign]
            result = run(write(csv_of(["user_0", "user_1"])), document=None)
        assert result.exit_code == 1
        assert "HTTP status 503" in result.stderr
        assert "1 row settled" in result.stderr


class TestCheckpoint:
    def test_checkpoint_skips_what_is_settled(self, run: Run, mixpanel: MixpanelServer) -> None:
        write(csv_of(["user_1", "nil"]))
        options = "users.csv", "--checkpoint", "done", "--rejects", "bad", "--json"
        first, second = run(*options), run(*options)
        assert len(sent(mixpanel)) == 1
        assert counts(first) == {**counts(second), "reasons": {rejects()[0]["reason"]: 1}}
        assert (first.exit_code, second.exit_code, len(rejects())) == (1, 1, 1)

    def test_checkpoint_removes_rejects_that_it_does_not_count(self, run: Run) -> None:
        write(csv_of(["user_1", "nil"]))
        options = "users.csv", "--checkpoint", "done", "--rejects", "bad"
        run(*options)
        written = Path("bad").read_text()
        Path("bad").write_text(f"{written}of rows that come again\n")
        run(*options)
        assert Path("bad").read_text() == written

    def test_checkpoint_keeps_the_rejects_of_a_run_without_the_option(self, run: Run) -> None:
        write(csv_of(["user_1", "nil"]))
        run("users.csv", "--checkpoint", "done", "--rejects", "bad")
        run("users.csv", "--checkpoint", "done")
        run("users.csv", "--checkpoint", "done", "--rejects", "bad")
        assert len(rejects()) == 1

    def test_checkpoint_refuses_rejects_that_have_become_shorter(self, run: Run) -> None:
        write(csv_of(["user_1", "nil"]))
        options = "users.csv", "--checkpoint", "done", "--rejects", "bad"
        run(*options)
        Path("bad").write_text("")
        result = run(*options)
        assert result.exit_code == 2
        assert "bad has changed since the checkpoint was written" in result.stderr

    def test_checkpoint_refuses_a_changed_file(self, run: Run) -> None:
        write(csv_of(["user_1"]))
        run("users.csv", "--checkpoint", "done")
        write(csv_of(["user_2"]))
        result = run("users.csv", "--checkpoint", "done")
        assert result.exit_code == 2
        assert (
            "done is of another file, or the file has changed since. To begin anew, remove it" in result.stderr
        )

    def test_checkpoint_refuses_other_options_and_another_project(
        self, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write(csv_of(["user_1"]))
        run("users.csv", "--checkpoint", "done")
        monkeypatch.setenv("MIXPANEL_TOKEN", "other")
        result = run("users.csv", "--checkpoint", "done", "--type", "age=int")
        assert result.exit_code == 2
        assert "with other options and of another Mixpanel project" in result.stderr

    @pytest.mark.parametrize("content", ["", "{}", "[]", '{"report": {"rows": 1}, "rejects_bytes": 1}'])
    def test_checkpoint_that_is_another_file_is_refused(self, run: Run, content: str) -> None:
        write(content, "done")
        result = run(write(csv_of(["user_1"])), "--checkpoint", "done")
        assert result.exit_code == 2
        assert "done is not a checkpoint: choose another file" in result.stderr
        assert Path("done").read_text() == content

    @pytest.mark.parametrize("change", [{"rejects_bytes": -1}, {"report": {"read": "1"}}])
    def test_checkpoint_with_impossible_counts_is_refused(self, run: Run, change: dict[str, Any]) -> None:
        write(csv_of(["user_1"]))
        run("users.csv", "--checkpoint", "done")
        write(json.dumps({**json.loads(Path("done").read_text()), **change}), "done")
        result = run("users.csv", "--checkpoint", "done")
        assert result.exit_code == 2
        assert "done is not a checkpoint: choose another file" in result.stderr

    def test_checkpoint_overwrites_no_file_with_a_similar_name(self, run: Run) -> None:
        content = csv_of(["user_1"])
        assert run(write(content, "users.new"), "--checkpoint", "users").exit_code == 0
        assert Path("users.new").read_text() == content

    @pytest.mark.parametrize("name", ["done", "bad"])
    def test_file_that_cannot_be_written_any_more_ends_the_command(
        self, run: Run, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        def is_full(self: Any, *_: Any) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(Path, "replace", is_full)
        file = "done" if name == "done" else "/dev/full"
        option = "--checkpoint" if name == "done" else "--rejects"
        result = run(write(csv_of(["nil"])), option, file)
        assert result.exit_code == 1
        assert f"Error: {file} cannot be used (No space left on device). 1 row settled" in result.stderr

    def test_checkpoint_that_is_a_directory_is_refused(self, run: Run) -> None:
        Path("done").mkdir()
        assert run(write(csv_of(["user_1"])), "--checkpoint", "done").exit_code == 2


class TestRejects:
    def test_rejects_may_go_to_a_pipe(self, run: Run) -> None:
        reader, writer = os.pipe()
        result = run(write(csv_of(["nil"])), "--rejects", f"/dev/fd/{writer}")
        os.close(writer)
        with os.fdopen(reader) as pipe:
            assert json.load(pipe)["row"] == 1
        assert result.exit_code == 1

    def test_rejects_do_not_go_to_a_pipe_with_a_checkpoint(self, run: Run, mixpanel: MixpanelServer) -> None:
        reader, writer = os.pipe()
        result = run(write(csv_of(["user_1"])), "--rejects", f"/dev/fd/{writer}", "--checkpoint", "done")
        os.close(writer)
        os.close(reader)
        assert result.exit_code == 2
        assert "--rejects needs a file together with --checkpoint, not a pipe" in result.stderr
        assert mixpanel.requests == []

    def test_rejects_take_the_place_of_earlier_ones(self, run: Run) -> None:
        for people in (["nil", "n/a"], ["nil"]):
            run(write(csv_of(people)), "--rejects", "bad")
        assert len(rejects()) == 1

    @pytest.mark.parametrize("content", ["identifier\nuser_1\n", '{"a": 1}\n'])
    def test_rejects_overwrite_no_other_file(self, run: Run, mixpanel: MixpanelServer, content: str) -> None:
        Path(write(csv_of(["user_1"]))).with_name("same").hardlink_to("users.csv")
        write(content, "other")
        for name in ("other", "same"):
            result = run("users.csv", "--rejects", name)
            assert result.exit_code == 2
            assert (
                f"{name} does not hold rejected rows, and would be overwritten: choose another file"
                in result.stderr
            )
        assert (Path("other").read_text(), Path("users.csv").read_text()) == (content, csv_of(["user_1"]))
        assert mixpanel.requests == []

    def test_rejects_are_for_their_owner_only(self, run: Run) -> None:
        run(write(csv_of(["nil"])), "--rejects", "bad")
        assert Path("bad").stat().st_mode & 0o777 == 0o600


def test_file_whose_name_the_system_refuses_is_wrong_use(run: Run) -> None:
    result = run("x" * 300, "--checkpoint", "done")
    assert result.exit_code == 2
    assert "File name too long" in result.stderr


class TestKilled:
    def test_command_that_is_killed_goes_on_and_delivers_every_row(
        self, start: Callable[..., subprocess.Popen[str]], mixpanel: MixpanelServer, tmp_path: Path
    ) -> None:
        moments, count = random.Random(7), 20_000
        people = names("user", count)
        bad = [{"row": row, "identifier": "nil"} for row in range(100, count, 100)]
        for line in bad:
            people[line["row"] - 1] = "nil"  # type: ignore[operator]
        mixpanel.fail(distinct_id="user_7", status=400)
        write(csv_of(people))
        variables = {"MIXPANEL_TOKEN": "token", "MIXPANEL_URL": mixpanel.url}
        command = [
            "backfill",
            str(tmp_path / "users.csv"),
            "--document",
            DOCUMENT,
            "--rejects",
            str(tmp_path / "bad"),
        ]
        command += ["--checkpoint", str(tmp_path / "done"), "--json"]
        for kill in range(KILLS):
            process = start("-c", MAIN, *command, variables=variables)
            mixpanel.wait_for_requests(len(mixpanel.requests) + moments.randrange(5))
            if kill % 2:
                process.kill()
            else:
                process.send_signal(signal.SIGINT)
            process.communicate()
        ended = end(start("-c", MAIN, *command, variables=variables))
        assert ended.code == 1, ended.errors
        report = json.loads("\n".join(ended.output))
        assert report["read"] == count
        assert report["rejected"] == len(bad) + 1
        found = [{"row": line["row"], "identifier": line["identifier"]} for line in rejects()]
        assert found == [{"row": 8, "identifier": "user_7"}, *bad]
        assert {*mixpanel.profiles} == {*people} - {"user_7", "nil"}
        assert sum(sent(mixpanel).values()) - len(sent(mixpanel)) <= KILLS * (2000 + 4 * CHUNK_ROWS) + 100

    def test_command_that_is_interrupted_says_how_far_it_has_come(
        self, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        reports = list[Report]()

        def interrupt(_: Bar, report: Report, __: float | None) -> None:
            reports.append(report)
            if report.read:
                raise KeyboardInterrupt

        monkeypatch.setattr(Bar, "show", interrupt)
        result = run(write(csv_of(names("user", 3000))))
        assert result.exit_code == 130
        settled = f"{reports[-1].read:,} rows settled"
        assert f"{settled}; with --checkpoint, the same command continues from there" in result.stderr
