"""Real services for every test: Postgres and Valkey from wheels, S3 over the wire from moto's server.

Each test gets a database of its own, cloned from a migrated template, and an empty broker.
"""

import gc
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import boto3
import hypothesis
import psycopg
import pytest
import redis
from moto.server import ThreadedMotoServer
from running import RunningFarm, running_farm
from sqlalchemy import Engine
from sqlalchemy.engine import make_url

import migrations
from farm import embedded
from farm.catalog import Catalog
from farm.database import open_database
from farm.settings import Settings

# The tests and the workers that they start share the machine, and each would take all of its cores: teams of threads that
# are never all running wait for each other at every barrier. How many there are also decides a picture's last bits.
os.environ["OMP_NUM_THREADS"] = "1"
# No test may reach for the network: a checkpoint that is not on disk is an error.
os.environ["HF_HUB_OFFLINE"] = "1"
for _name in [name for name in os.environ if name.startswith("FARM_")]:
    del os.environ[_name]

# How long an example takes depends on who else uses this machine.
hypothesis.settings.register_profile("farm", deadline=None)
hypothesis.settings.load_profile("farm")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Import what the tests need; the garbage collector shall not look through a million objects that stay again and again."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


TEMPLATE = "farm_template"
_numbers = count()


@dataclass(frozen=True)
class Services:
    """Addresses of the servers that all tests share."""

    postgres_url: str
    broker_url: str

    def execute(self, statement: str) -> None:
        """Run one statement outside a transaction, on the maintenance database."""
        with psycopg.connect(self.postgres_url, autocommit=True) as connection:
            connection.execute(statement)  # type: ignore[arg-type]

    def database_url(self, name: str) -> str:
        return make_url(self.postgres_url).set(database=name).render_as_string(hide_password=False)


@pytest.fixture(scope="session")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    directory = tmp_path_factory.mktemp("services")
    with embedded.postgres(directory / "postgres") as postgres_url, embedded.valkey(directory / "valkey") as broker_url:
        services = Services(postgres_url, broker_url)
        # Nobody will miss these databases after a power cut, and waiting for the disk is what cloning them takes long for.
        services.execute("ALTER SYSTEM SET fsync = off")
        services.execute("SELECT pg_reload_conf()")
        services.execute(f"CREATE DATABASE {TEMPLATE}")
        engine = open_database(Settings(database_url=services.database_url(TEMPLATE)))
        migrations.upgrade(engine)
        engine.dispose()
        yield services


@pytest.fixture(scope="session")
def models_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the tiny checkpoint is written once for all tests."""
    return tmp_path_factory.mktemp("models")


@contextmanager
def farm_settings(
    services: Services, directory: Path, models_directory: Path, broker_database: int = 0
) -> Iterator[Settings]:
    """A farm of its own for the time of the context: empty database, empty broker, objects in a directory.

    A farm that lives on while others come and go takes a ``broker_database`` that they do not empty.
    """
    name = f"farm_test_{secrets.token_hex(6)}"
    broker_url = make_url(services.broker_url).set(database=str(broker_database)).render_as_string(hide_password=False)
    services.execute(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")
    with redis.Redis.from_url(broker_url) as client:
        client.flushdb()
    yield Settings(
        data=directory / "data",
        models=models_directory,
        database_url=services.database_url(name),
        broker_url=broker_url,
        pipeline="tiny",
        port=0,
    )
    services.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def settings(services: Services, tmp_path: Path, models_directory: Path) -> Iterator[Settings]:
    """A farm of its own for each test."""
    with farm_settings(services, tmp_path, models_directory) as settings:
        yield settings


@pytest.fixture(scope="session")
def shared_farm(
    services: Services, tmp_path_factory: pytest.TempPathFactory, models_directory: Path
) -> Iterator[RunningFarm]:
    """A running farm with one worker, for all who know their jobs by their ids and leave the farm as they found it."""
    directory = tmp_path_factory.mktemp("shared")
    with (
        farm_settings(services, directory, models_directory, broker_database=1) as settings,
        running_farm(settings, directory, ["--device", "cpu"]) as farm,
    ):
        yield farm


@pytest.fixture
def engine(settings: Settings) -> Iterator[Engine]:
    engine = open_database(settings)
    yield engine
    engine.dispose()


@pytest.fixture
def catalog() -> Catalog:
    return Catalog.load()


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """Address of an S3 server."""
    os.environ |= {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(s3_server: str) -> str:
    """Name of an empty bucket."""
    name = f"farm-{next(_numbers)}"
    boto3.client("s3", endpoint_url=s3_server).create_bucket(Bucket=name)
    return name
