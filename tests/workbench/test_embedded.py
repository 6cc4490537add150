"""The embedded services are real, start twice on the same address, and end with their owner."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import psycopg
import pytest
import redis

from conductor_workbench.embedded import EmbeddedPostgres, EmbeddedRedis
from conductor_workbench.embedded.child import ChildFailed


def test_redis_comes_back_empty_on_the_same_address_after_a_crash(own_redis: EmbeddedRedis) -> None:
    with redis.Redis.from_url(own_redis.url) as client:
        client.set("key", "value")
        own_redis.kill()
        with pytest.raises(redis.ConnectionError):
            client.get("key")
        own_redis.start()
        assert client.get("key") is None


def test_postgres_keeps_its_data_after_a_crash(tmp_path: Path) -> None:
    with EmbeddedPostgres(tmp_path / "postgres", keep=False) as server:
        with psycopg.connect(server.url) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
        server.kill()
        server.start()
        with psycopg.connect(server.url) as connection:
            assert connection.execute("SELECT answer FROM kept").fetchone() == (42,)


def test_a_data_folder_that_is_not_postgres_is_told(tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path / "postgres")
    server.data.mkdir(parents=True)
    (server.data / "PG_VERSION").write_text("1\n")
    with pytest.raises(ChildFailed, match="ended with"):
        server.start()


def test_the_services_end_when_their_owner_is_killed(tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from conductor_workbench.embedded import EmbeddedRedis\n"
        "server = EmbeddedRedis(Path(sys.argv[1])).start(); print(server.pid, flush=True); time.sleep(60)"
    )
    owner = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE)
    assert owner.stdout is not None
    redis_pid = int(owner.stdout.readline())
    os.kill(owner.pid, signal.SIGKILL)
    owner.wait()
    deadline = time.monotonic() + 10
    while psutil.pid_exists(redis_pid) and psutil.Process(redis_pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, "Redis outlived its owner"
        time.sleep(0.02)
