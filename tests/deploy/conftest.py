from __future__ import annotations

import asyncio

import pytest
import redis

from conductor_workbench.embedded import EmbeddedPostgres, EmbeddedRedis
from databases import migrated
from deploy.exported import Exported, everything


@pytest.fixture(scope="session")
def exported(
    embedded_redis: EmbeddedRedis, embedded_postgres: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory
) -> Exported:
    """What all processes export."""
    with redis.Redis.from_url(embedded_redis.url) as client:
        client.flushall()
    with migrated(embedded_postgres) as database_url:
        return asyncio.run(everything(embedded_redis.url, database_url, tmp_path_factory.mktemp("exported")))
