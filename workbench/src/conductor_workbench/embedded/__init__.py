"""A real Redis and a real PostgreSQL as child processes, for a machine that has neither running."""

from conductor_workbench.embedded.postgres import EmbeddedPostgres
from conductor_workbench.embedded.redis import EmbeddedRedis
from conductor_workbench.embedded.redis_cluster import EmbeddedRedisCluster

__all__ = ["EmbeddedPostgres", "EmbeddedRedis", "EmbeddedRedisCluster"]
