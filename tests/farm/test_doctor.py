"""The doctor names what is really broken, and what to do about it."""

import json
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socket import AF_INET
from typing import Any
from unittest import mock

import boto3
import httpx
import psutil
import psycopg
import pytest
import redis
from doors import own_services
from rows import submit
from sqlalchemy import Engine, update
from typer.testing import CliRunner

import migrations
from farm import embedded
from farm.cli import app
from farm.database import LEADER_LOCK, open_database
from farm.doctor.broker import check_broker
from farm.doctor.catalog import check_catalog
from farm.doctor.clock import check_database_clock, check_store_clock, difference
from farm.doctor.dashboard import check_dashboard
from farm.doctor.database import check_database
from farm.doctor.disk import check_disk
from farm.doctor.findings import Finding, Level
from farm.doctor.gpu import Card, findings_of
from farm.doctor.server import check_server
from farm.doctor.services import locate_services
from farm.doctor.settings import check_names, read_settings
from farm.doctor.state import check_state
from farm.doctor.store import check_store
from farm.doctor.versions import check_versions
from farm.models import Job, Worker
from farm.settings import Settings
from farm.transitions import register_worker
from producer.service import Leadership


def told(found: Iterable[Finding]) -> list[tuple[str, str, str | None]]:
    return [(finding.level.value, finding.message, finding.remedy) for finding in found]


def only_wrong(found: Iterable[Finding]) -> list[Finding]:
    return [finding for finding in found if finding.level is not Level.OK]


def the_one(found: Iterable[Finding]) -> Finding:
    (finding,) = only_wrong(found)
    return finding


# Settings and versions


def test_a_misspelt_setting_is_given_its_name() -> None:
    finding = the_one(check_names({"FARM_DATABSE_URL": "x", "FARM_URL": "http://x", "FARM_KEEPER": "1", "PATH": "/"}))
    assert finding.level is Level.WARNING
    assert finding.message == "FARM_DATABSE_URL is no setting: it changes nothing"
    assert finding.remedy == "Call it FARM_DATABASE_URL."


def test_values_are_never_shown() -> None:
    (finding,) = check_names({"FARM_DATABASE_URL": "postgresql://farm:secret@host/farm"})
    assert "secret" not in finding.message


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("FARM_PORT", "eighty", "FARM_PORT is 'eighty': Input should be a valid integer"),
        ("FARM_HEARTBEAT_SECONDS", "100", "FARM_HEARTBEAT_SECONDS must be at most half of FARM_LEASE_SECONDS"),
        ("FARM_ALLOWED_HOSTS", "a host", "'a host' is neither a host nor a network"),
    ],
)
def test_a_setting_that_cannot_be_read_is_an_error(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, message: str
) -> None:
    monkeypatch.setenv(name, value)
    settings, findings = read_settings()
    assert settings is None
    assert findings[0].level is Level.ERROR
    assert message in findings[0].message
    assert "docs/settings.md" in (findings[0].remedy or "")


def test_packages_of_another_version_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "sdxl_farm-9.9.dist-info"
    package.mkdir()
    (package / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: sdxl-farm\nVersion: 9.9\nRequires-Dist: rich>=999\nRequires-Dist: pydantic>=2\n"
        'Requires-Dist: no-such-package; extra == "server"\nRequires-Dist: neither; extra == "dev"\n'
    )
    monkeypatch.syspath_prepend(tmp_path)
    found = only_wrong(check_versions())
    assert [finding.message.split(" ")[0] for finding in found] == ["rich", "no-such-package"]
    assert found[0].message.endswith("not >=999")
    assert found[1].remedy == "Run: pip install --upgrade 'sdxl-farm[server]' -c constraints.txt"


# Services


def test_a_farm_that_is_well(settings: Settings, engine: Engine) -> None:
    with closing_leadership(settings):
        register_worker(engine, worker())
        assert told(only_wrong(check_server(settings, migrations.revisions()))) == []


@pytest.mark.parametrize(
    ("url", "message", "remedy"),
    [
        (
            "postgresql://farm:secret@127.0.0.1:1/farm",
            "does not let us in: ",
            "host, name, user and password in FARM_DATA",
        ),
        ("no address", "FARM_DATABASE_URL cannot be read", "postgresql://user:password@host/name"),
    ],
)
def test_a_database_that_cannot_be_reached(settings: Settings, url: str, message: str, remedy: str) -> None:
    finding = the_one(
        check_server(settings.model_copy(update={"database_url": url, "broker_url": None}), migrations.revisions())
    )
    assert finding.level is Level.ERROR
    assert message in finding.message
    assert "secret" not in finding.message
    assert remedy in (finding.remedy or "")


def test_tables_that_are_one_migration_behind(settings: Settings, engine: Engine) -> None:
    revisions = migrations.revisions()
    migrations.downgrade(engine, revisions[1])
    finding = the_one(check_server(settings, revisions))
    assert finding.level is Level.ERROR
    assert finding.message == (f"its tables are older than this version: migration {revisions[1]}, not {revisions[0]}")
    assert finding.remedy == "Run: farm migrate"


def test_tables_of_a_newer_version(settings: Settings) -> None:
    finding = the_one(check_server(settings, migrations.revisions()[1:]))
    assert finding.remedy == "Update sdxl-farm on this machine."


def test_a_database_without_tables(settings: Settings, engine: Engine) -> None:
    migrations.downgrade(engine, "base")
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE alembic_version")
    assert the_one(check_server(settings, migrations.revisions())).remedy == "Run: farm migrate"


def test_a_broker_that_forgets(settings: Settings) -> None:
    assert settings.broker_url is not None
    with redis.Redis.from_url(settings.broker_url) as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        try:
            finding = the_one(check_broker(settings.broker_url))
        finally:
            client.config_set("maxmemory-policy", "noeviction")
    assert finding.level is Level.WARNING
    assert "maxmemory-policy allkeys-lru" in finding.message
    assert "redis-cli CONFIG SET maxmemory-policy noeviction" in (finding.remedy or "")
    assert only_wrong(check_broker(settings.broker_url)) == []


@pytest.mark.parametrize("url", ["redis://:secret@127.0.0.1:1/0", "http://:secret@127.0.0.1:1/0"])
def test_a_broker_that_cannot_be_reached(url: str) -> None:
    finding = the_one(check_broker(url))
    assert finding.level is Level.ERROR
    assert "secret" not in finding.message
    assert "FARM_BROKER_URL (redis://host:6379/0)" in (finding.remedy or "")


def test_an_embedded_farm_is_found_while_it_runs(tmp_path: Path) -> None:
    settings = Settings(data=tmp_path)
    _, findings = locate_services(settings)
    assert [finding.level for finding in findings] == [Level.WARNING, Level.WARNING]
    assert all("is down" in finding.message and "farm up" in (finding.remedy or "") for finding in findings)
    with embedded.valkey(tmp_path / "valkey") as broker_url, embedded.postgres(tmp_path / "postgres") as database_url:
        located, findings = locate_services(settings)
        assert (located.broker_url, located.database_url) == (broker_url, database_url)
        assert only_wrong(findings) == []
    assert locate_services(settings)[0] == settings


# Objects


def test_a_directory_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    settings = Settings(data=tmp_path / "file" / "data")
    finding = the_one(check_store(settings))
    assert finding.level is Level.ERROR
    assert "name a directory that this user may write to" in (finding.remedy or "")
    assert {finding.remedy for finding in only_wrong(check_disk(settings, scarce_bytes=0))} == {
        f"Let {name} name a directory that this user may write to."
        for name in ("FARM_DATA", "FARM_MODELS", "FARM_STORE_URL")
    }


def test_a_disk_that_gets_full(tmp_path: Path) -> None:
    finding = the_one(check_disk(Settings(data=tmp_path), scarce_bytes=2**60))
    assert "FARM_DATA, FARM_MODELS, FARM_STORE_URL" in finding.message
    assert "Make room there" in (finding.remedy or "")


def test_a_bucket_that_works_is_left_as_it_was(s3_server: str, bucket: str) -> None:
    settings = Settings(store_url=f"s3://{bucket}/farm", s3_endpoint_url=s3_server)
    assert only_wrong(check_store(settings)) == []
    assert "Contents" not in boto3.client("s3", endpoint_url=s3_server).list_objects_v2(Bucket=bucket)


def test_a_bucket_that_is_missing(s3_server: str) -> None:
    finding = the_one(check_store(Settings(store_url="s3://nowhere", s3_endpoint_url=s3_server)))
    assert finding.message == "there is no bucket as s3://nowhere names it"
    assert finding.remedy == "Make it (farm migrate does, where it is allowed to), or correct FARM_STORE_URL."


@contextmanager
def allowed_only(s3_server: str, *actions: str) -> Iterator[dict[str, str]]:
    """Credentials that may do nothing else, at a server that minds for the time of the context."""
    iam = boto3.client("iam", endpoint_url=s3_server)
    iam.create_user(UserName="worker")
    policy = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": actions, "Resource": "*"}]}
    iam.put_user_policy(UserName="worker", PolicyName="some", PolicyDocument=json.dumps(policy))
    key = iam.create_access_key(UserName="worker")["AccessKey"]
    httpx.post(f"{s3_server}/moto-api/reset-auth", content=b"0").raise_for_status()
    try:
        yield {"AWS_ACCESS_KEY_ID": key["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"]}
    finally:
        httpx.post(f"{s3_server}/moto-api/reset-auth", content=b"inf").raise_for_status()
        iam.delete_user_policy(UserName="worker", PolicyName="some")
        iam.delete_access_key(UserName="worker", AccessKeyId=key["AccessKeyId"])
        iam.delete_user(UserName="worker")


#: moto's name for what Amazon counts to s3:ListBucket.
LOOK = "s3:HeadBucket"


def use(credentials: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in credentials.items():
        monkeypatch.setenv(name, value)
    # It keeps those that it read first.
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)


def test_credentials_that_nobody_knows(s3_server: str, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with allowed_only(s3_server, "s3:*"):
        use({"AWS_ACCESS_KEY_ID": "stranger", "AWS_SECRET_ACCESS_KEY": "x"}, monkeypatch)
        finding = the_one(check_store(Settings(store_url=f"s3://{bucket}", s3_endpoint_url=s3_server)))
    assert finding.message == "the S3 server does not know these credentials (InvalidAccessKeyId)"
    assert "AWS_ACCESS_KEY_ID" in (finding.remedy or "")


@pytest.mark.parametrize(
    ("allowed", "missing"),
    [
        (["s3:PutObject", "s3:GetObject", "s3:DeleteObject"], ["s3:ListBucket"]),
        ([LOOK, "s3:ListBucket"], ["s3:PutObject"]),
        ([LOOK, "s3:ListBucket", "s3:PutObject"], ["s3:GetObject", "s3:DeleteObject"]),
    ],
)
def test_each_missing_permission_is_named(
    s3_server: str, bucket: str, monkeypatch: pytest.MonkeyPatch, allowed: list[str], missing: list[str]
) -> None:
    with allowed_only(s3_server, *allowed) as credentials:
        use(credentials, monkeypatch)
        found = only_wrong(check_store(Settings(store_url=f"s3://{bucket}", s3_endpoint_url=s3_server)))
    assert [finding.message.rsplit(": ", 1)[1] for finding in found] == [f"{name} is missing" for name in missing]
    assert [(finding.remedy or "").split(" to them")[0] for finding in found] == [f"Grant {name}" for name in missing]


# Clocks


def test_clocks_that_agree(engine: Engine, s3_server: str) -> None:
    assert only_wrong(check_database_clock(engine)) == []
    assert only_wrong(check_store_clock(Settings(store_url="s3://farm", s3_endpoint_url=s3_server))) == []


def test_a_server_whose_clock_is_an_hour_behind() -> None:
    class Late(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response_only(403)
            self.send_header("Date", format_datetime(datetime.now(UTC) - timedelta(hours=1), usegmt=True))
            self.end_headers()

    with ThreadingHTTPServer(("127.0.0.1", 0), Late) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        began = time.monotonic()
        finding = the_one(check_store_clock(Settings(store_url="s3://farm", s3_endpoint_url=address)))
        taken = time.monotonic() - began
        server.shutdown()
    assert finding.level is Level.ERROR
    ahead = finding.message.removeprefix("this machine is ").partition(" s ahead of the S3 server")[0]
    # Within the time that the request took, in whole seconds.
    assert abs(int(ahead) - 3600) <= taken + 1
    assert "time server" in (finding.remedy or "")


@pytest.mark.parametrize(
    ("seconds", "level"), [(1.0, Level.OK), (-1.9, Level.OK), (5.0, Level.WARNING), (-31.0, Level.ERROR)]
)
def test_how_far_clocks_may_differ(seconds: float, level: Level) -> None:
    now = datetime.now(UTC)
    assert difference("Postgres", now + timedelta(seconds=seconds), now, now).level is level
    # A slow answer is no proof.
    assert difference("Postgres", now + timedelta(seconds=5), now, now + timedelta(seconds=12)).level is Level.OK


# GPUs


def test_a_sick_gpu() -> None:
    card = Card(0, "H100", 2**30, 80 * 2**30, 90, 92, 3, rows_pending=True, others=("/usr/bin/game (12)",))
    found = only_wrong(findings_of(card, "580"))
    assert [finding.level for finding in found] == [Level.WARNING] * 3
    assert "used by /usr/bin/game (12)" in found[0].message
    assert "slows down at 92 °C" in found[1].message
    assert "3 errors of its memory" in found[2].message
    assert "restart the machine" in (found[2].remedy or "")
    assert the_one(findings_of(Card(1, "H100", 2**36, 2**36, rows_failed=True), "580")).level is Level.ERROR
    assert only_wrong(findings_of(Card(2, "GTX", 3 * 2**30, 4 * 2**30), "580")) == []


# Catalog


def test_a_folder_that_the_catalog_names_and_nobody_put_there(tmp_path: Path) -> None:
    catalog = tmp_path / "farm.toml"
    catalog.write_text(
        '[pipelines.studio]\nbase = "./studio/base"\n[loras.pixels]\npath = "/nowhere/pixels.safetensors"\n'
    )
    settings = Settings(data=tmp_path, catalog=catalog, pipeline="studio")
    found = only_wrong(check_catalog(settings))
    assert [finding.level for finding in found] == [Level.ERROR, Level.WARNING]
    assert found[0].message.startswith(f"pipeline studio: its base {tmp_path}/models/studio/base cannot be used here")
    assert f"paths that begin with ./ start in {tmp_path}/models (FARM_MODELS)" in (found[0].remedy or "")


def test_a_catalog_that_cannot_be_read(tmp_path: Path) -> None:
    catalog = tmp_path / "farm.toml"
    catalog.write_text("[pipelines.a]\nbase = 3\n")
    finding = the_one(check_catalog(Settings(data=tmp_path, catalog=catalog)))
    assert finding.remedy == f"Run: farm catalog check {catalog}"


def test_a_pipeline_that_the_catalog_does_not_hold(tmp_path: Path) -> None:
    finding = the_one(check_catalog(Settings(data=tmp_path, pipeline="sdxl")))
    assert "Name one of these: demo, sdxl-1.0, " in (finding.remedy or "")


# The farm


def worker(**fields: Any) -> Worker:
    common = {"id": "h/cpu/1", "hostname": "h", "process_id": 1, "device": "cpu", "device_name": "CPU"}
    return Worker(**{**common, "pipeline": "tiny", "stages": ["base", "refiner"], **fields})


@contextmanager
def closing_leadership(settings: Settings) -> Iterator[None]:
    leadership = Leadership(settings.database_url or "")
    # Nobody asks again here, and the server is not to take it for hung meanwhile.
    with mock.patch("producer.service.HUNG_SECONDS", 600):
        assert leadership.acquire()
    try:
        yield
    finally:
        leadership.release()


def test_a_farm_that_nobody_leads_and_nobody_works_for(engine: Engine) -> None:
    submit(engine, 2)
    found = only_wrong(check_state(engine, lease_seconds=30))
    assert [(finding.level.value, finding.remedy) for finding in found] == [
        ("error", "Start one: farm producer (farm up has its own)."),
        ("warning", "Start one on each machine that renders: farm worker"),
        ("warning", "Start one: farm worker --pipeline tiny --stage base"),
    ]


def test_the_leader_of_another_farm_is_none_of_ours(services: Any, engine: Engine) -> None:
    with psycopg.connect(services.postgres_url, autocommit=True) as connection:
        connection.execute("SELECT pg_try_advisory_lock(%s)", (LEADER_LOCK,))
        assert any("no producer leads" in finding.message for finding in check_state(engine, lease_seconds=30))


def test_pictures_that_failed_for_good(settings: Settings, engine: Engine) -> None:
    job = submit(engine, 1)
    with engine.begin() as connection:
        connection.execute(update(Job).values(images_failed=1))
    register_worker(engine, worker())
    with closing_leadership(settings):
        finding = the_one(check_state(engine, lease_seconds=30))
    assert finding.message == f"1 images of jobs of the last day failed for good (jobs {job})"
    assert finding.remedy == f"See why with `farm show {job}`, then `farm retry {job}`."


def test_a_dashboard_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FARM_URL", "http://127.0.0.1:1")
    assert "let FARM_URL name the farm's address" in (the_one(check_dashboard()).remedy or "")


# The command


def environment(settings: Settings) -> dict[str, str]:
    values = settings.model_dump(exclude_unset=True)
    return {f"FARM_{name.upper()}": str(value) for name, value in values.items()} | {"FARM_URL": "http://127.0.0.1:1"}


def test_the_command_says_all_of_it(settings: Settings) -> None:
    result = CliRunner().invoke(app, ["doctor"], env={**environment(settings), "FARM_QUEUE_DEPHT": "3"})
    lines = result.stdout.splitlines()
    assert result.exit_code == 1, result.output
    assert lines[:2] == [
        "! settings  FARM_QUEUE_DEPHT is no setting: it changes nothing",
        "            Call it FARM_QUEUE_DEPTH.",
    ]
    assert any(line.startswith("✓ broker    Valkey ") for line in lines)
    at = lines.index("✗ farm      no producer leads: nothing is handed to workers")
    assert lines[at + 1].strip() == "Start one: farm producer (farm up has its own)."
    assert lines[-1] == "Something does not work: 1 errors, 3 warnings."


def test_the_command_speaks_json(settings: Settings) -> None:
    with closing_leadership(settings):
        result = CliRunner().invoke(app, ["doctor", "--json"], env=environment(settings))
    document = json.loads(result.stdout)
    assert result.exit_code == 0
    assert document["verdict"] == "warning"
    assert {"check": "farm", "level": "ok", "message": "a producer leads", "remedy": None} in document["findings"]


def test_a_broken_setting_does_not_hide_the_rest(settings: Settings) -> None:
    result = CliRunner().invoke(app, ["doctor", "--json"], env={**environment(settings), "FARM_PORT": "eighty"})
    checks = {finding["check"] for finding in json.loads(result.stdout)["findings"]}
    assert result.exit_code == 1
    assert checks == {"settings", "versions", "gpu"}


@pytest.fixture
def own_address() -> str:
    """An address of this machine that others could ask."""
    found = [
        one.address for all_of_one in psutil.net_if_addrs().values() for one in all_of_one if one.family == AF_INET
    ]
    return next(address for address in found if not address.startswith("127."))


def test_services_that_are_open_to_others(own_address: str) -> None:
    with own_services() as services:
        # Each trusts whoever comes; on this machine's own address they are found wanting, on the loopback they are not.
        services.valkey.stop()
        services.valkey.start("--bind", f"127.0.0.1 {own_address}", "--protected-mode", "no")
        services.postgres.stop()
        hba = services.postgres.directory / "pg_hba.conf"
        hba.write_text(hba.read_text() + f"host all all {own_address}/32 trust\n")
        services.postgres.start(fsync="off", listen_addresses=f"127.0.0.1,{own_address}")
        for host, verdict in (("127.0.0.1", []), (own_address, ["lets in everybody who reaches it"])):
            broker = only_wrong(check_broker(f"redis://{host}:{services.valkey.port}/0"))
            settings = Settings(database_url=services.postgres.url().replace("127.0.0.1", host))
            engine = open_database(settings)
            database = [one for one in check_database(engine, migrations.revisions()) if one.level is Level.WARNING]
            engine.dispose()
            for findings in (broker, database):
                assert [words for one in findings for words in verdict if words in one.message] == verdict
                assert len(findings) == len(verdict)
