"""One PostgreSQL and one Redis for all tests here; a test that hurts a server has one of its own."""

from collections.abc import Generator

import pytest

from tests.replicas.servers import POSTGRESQL, REDIS, PostgreSQLServer, RedisServer


@pytest.fixture(scope="session")
def postgresql() -> Generator[PostgreSQLServer]:
    if POSTGRESQL is None:
        pytest.skip("PostgreSQL is not installed")
    with PostgreSQLServer() as server:
        yield server


@pytest.fixture(scope="session")
def redis() -> Generator[RedisServer]:
    if REDIS is None:
        pytest.skip("Redis is not installed")
    with RedisServer() as server:
        yield server
