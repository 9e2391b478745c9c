# mypy: ignore-errors
# pyspark is not installed with the other tests.
"""Partitions of a real Spark in local mode, whose tasks run in processes of their own."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flagsmith import Flagsmith
from flagsmith.offline_handlers import LocalFileHandler
from pyspark.sql import SparkSession

from flagsync import FlagSync
from flagsync.bulk import partition_writer
from flagsync.testing import MixpanelServer
from tests.conftest import DATA
from tests.support.evaluating_flagsmith import EvaluatingFlagsmith
from tests.support.flagsmith_server import KEY
from tests.support.pages import blocks
from tests.support.processes import names

ROWS = 20_000
SCHEMA = "identifier string, outcome string, reason string"
pytestmark = [
    pytest.mark.filterwarnings("ignore:PySpark does not yet fully support pandas"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@pytest.fixture(scope="module")
def spark() -> Iterator[SparkSession]:
    """Spark with two threads, which repeats a failed task."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYSPARK_PYTHON", sys.executable)
        patch.setenv("SPARK_LOCAL_IP", "127.0.0.1")
        session = SparkSession.builder.master("local[2,4]").config("spark.ui.enabled", "false").getOrCreate()
        session.sparkContext.setLogLevel("OFF")
        yield session
        session.stop()


@pytest.fixture
def users(spark: SparkSession) -> Any:
    """Users in 8 partitions."""
    columns = (
        "concat('user_', id) as identifier",
        "cast(id % 90 as int) as age",
        "if(id % 2 = 0, 'pro', 'free') as plan",
    )
    return spark.range(ROWS).selectExpr(*columns).repartition(8)


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> None:
    """Spark's own threads outlive a test."""


def maker(url: str, marker: str = "") -> Callable[[], FlagSync]:
    """Return what builds clients in the processes of tasks. One of them dies, if there is to be a marker of that."""
    document, seen = str(DATA / "environment-document.json"), [0]

    def distinct_id(identifier: str) -> str:
        seen[0] += 1
        if marker and seen[0] > ROWS / 10:
            try:
                os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                return identifier
            os.kill(os.getpid(), signal.SIGKILL)
        return identifier

    def make() -> FlagSync:
        flagsmith = Flagsmith(offline_mode=True, offline_handler=LocalFileHandler(document))
        return FlagSync(flagsmith, "token", mixpanel_url=url, distinct_id=distinct_id)

    return make


def expected(mixpanel: MixpanelServer) -> None:
    """Check all profiles against one client's."""
    profiles, make = {**mixpanel.profiles}, maker(mixpanel.url)
    assert {*profiles} == {*names("user", ROWS)}
    with make() as client:
        for number in range(0, ROWS, 97):
            traits = {"age": number % 90, "plan": ("pro", "free")[number % 2]}
            client.get_identity_flags(f"user_{number}", traits)
        assert client.flush(60)
    assert mixpanel.profiles == profiles


def test_partitions_of_rows_are_mirrored(users: Any, mixpanel: MixpanelServer) -> None:
    users.foreachPartition(partition_writer(maker(mixpanel.url), rate=5000))
    expected(mixpanel)


def test_partitions_of_data_frames_get_an_outcome_a_row(users: Any, mixpanel: MixpanelServer) -> None:
    mixpanel.fail(distinct_id="user_7", status=400)
    written = users.mapInPandas(partition_writer(maker(mixpanel.url), rate=5000), SCHEMA).collect()
    assert {row.identifier for row in written} == {*names("user", ROWS)}
    assert len(written) == ROWS
    rejected = [row for row in written if row.outcome != "delivered"]
    assert [row.identifier for row in rejected] == ["user_7"]
    assert rejected[0].reason == "Mixpanel does not accept updates (HTTP 400)"


def test_partition_whose_task_is_killed_is_repeated(
    users: Any, mixpanel: MixpanelServer, tmp_path: Path
) -> None:
    marker = tmp_path / "killed"
    users.foreachPartition(partition_writer(maker(mixpanel.url, str(marker)), rate=5000))
    assert marker.exists()
    expected(mixpanel)


def test_job_of_the_page_runs_as_it_stands(
    users: Any, mixpanel: MixpanelServer, document: Any, tmp_path: Path
) -> None:
    [job] = [block for block in blocks("python") if block.file == "backfill_job.py"]
    (tmp_path / "backfill_job.py").write_text(job.content)
    users.limit(1000).write.parquet(str(tmp_path / "users"))
    with EvaluatingFlagsmith(document) as flagsmith:
        environment = {
            **os.environ,
            "FLAGSMITH_ENVIRONMENT_KEY": KEY,
            "FLAGSMITH_API_URL": flagsmith.api_url,
            "MIXPANEL_TOKEN": "token",
            "MIXPANEL_URL": mixpanel.url,
        }
        command = [sys.executable, "backfill_job.py", "users", "outcomes"]
        ended = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False
        )
    assert ended.returncode == 0, ended.stderr
    assert "|delivered|NULL  |1000 |" in ended.stdout
    assert len(mixpanel.profiles) == 1000
