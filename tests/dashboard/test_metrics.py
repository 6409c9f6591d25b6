"""``/metrics``: what Prometheus is told, and that dashboards, alerts and documentation speak of the same."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import promql_parser
import pytest
import yaml
from flask import Flask
from flask.testing import FlaskClient
from prometheus_client.parser import text_string_to_metric_families
from rows import pictures_of, start, submit
from sqlalchemy import Engine, text

from farm.claims import Vitals, claim, renew
from farm.minutes import note_empty_claim
from farm.settings import Settings
from farm.states import Stage
from farm.transitions import fail_attempt, finish_base, finish_batch
from producer.minutes import add_up_minutes

ROOT = Path(__file__).parents[2]
DOCUMENTED = re.findall(
    r"^\| `(farm_\w+)` \|", (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8"), re.MULTILINE
)
Samples = dict[str, dict[tuple[str, ...], float]]


def scrape(client: FlaskClient) -> Samples:
    """Values by the name of the sample, then by its labels' values."""
    answer = client.get("/metrics")
    assert answer.status_code == 200, answer.text
    samples: Samples = {}
    for family in text_string_to_metric_families(answer.text):
        assert family.documentation, family.name
        for sample in family.samples:
            samples.setdefault(sample.name, {})[tuple(sample.labels.values())] = sample.value
    return samples


def test_what_happens_is_counted(client: FlaskClient, farm, engine: Engine) -> None:
    farm.add_worker("w", stages=["base", "refiner"])
    renew(engine, "w", [], 30, Vitals(3, 8, 0.5, temperature_celsius=71, ecc_errors=2))
    job_id = submit(engine, 12, batch_size=2)
    done = start(engine, job_id)
    assert finish_base(engine, done.batch_id, done.attempt, "latents", "00", 4)
    refined = claim(engine, done.batch_id, done.attempt, Stage.REFINER, "w", 30)
    assert refined is not None
    assert finish_batch(engine, refined, "w", pictures_of(refined), 3)
    failed = start(engine, job_id)
    fail_attempt(engine, failed.batch_id, failed.attempt, "broken", 2, lease_expired=True)
    note_empty_claim(engine, "w", "tiny", Stage.BASE)

    seen = scrape(client)
    base, refiner = ("tiny", "base"), ("tiny", "refiner")
    assert seen["farm_queue_waiting_batches"][base] == 5
    assert seen["farm_queue_oldest_seconds"][base] >= 0
    assert seen["farm_batches"][*base, "ready"] == 5
    assert seen["farm_rendered_images_total"] == {base: 2, refiner: 2}
    assert seen["farm_finished_pictures_total"] == {base: 0, refiner: 2}
    assert seen["farm_render_seconds_total"] == {base: 4, refiner: 3}
    for name in ("failed_attempts", "retried_attempts", "expired_leases", "empty_claims"):
        assert seen[f"farm_{name}_total"][base] == 1, name
    assert seen["farm_images"][("completed",)] == 2
    assert seen["farm_jobs"][("running",)] == 1
    assert seen["farm_workers"][*base, "idle"] == 1
    assert {*seen["farm_device_temperature_celsius"].values()} == {71}
    assert {*seen["farm_device_ecc_errors_total"].values()} == {2}
    assert "farm_device_power_watts" not in seen, "its driver does not tell"
    assert seen["farm_leading_producers"][()] == 0


def test_counters_outlive_the_minutes_that_they_are_made_of(client: FlaskClient, engine: Engine) -> None:
    job_id = submit(engine, 2, batch_size=2, refiner_split=None)
    held = start(engine, job_id)
    finish_batch(engine, held, "w", pictures_of(held), 3)
    before = {("tiny", "base"): 3.0}
    with engine.begin() as connection:
        connection.execute(text("UPDATE render_minutes SET minute = minute - interval '2 hours'"))
    assert add_up_minutes(engine) == 1
    assert add_up_minutes(engine) == 1, "what is added up is not added again"
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM render_minutes"))
    assert scrape(client)["farm_render_seconds_total"] == before


def test_who_may_read_it(stranger: FlaskClient, make_app: Callable[[Settings], Flask], settings: Settings) -> None:
    assert stranger.get("/metrics").status_code == 401
    open_to_all = make_app(settings.model_copy(update={"metrics_public": True})).test_client()
    assert "farm_build_info" in open_to_all.get("/metrics").text


def families(client: FlaskClient) -> set[str]:
    names = set()
    for family in text_string_to_metric_families(client.get("/metrics").text):
        names.add(family.name + ("_total" if family.type == "counter" else "_info" if family.type == "info" else ""))
    return names


def test_every_metric_is_documented(client: FlaskClient) -> None:
    assert sorted(DOCUMENTED) == sorted(families(client))


ALERTS = yaml.safe_load((ROOT / "deploy" / "prometheus" / "alerts.yml").read_text(encoding="utf-8"))
RULES = [rule for group in ALERTS["groups"] for rule in group["rules"]]
BOARD = json.loads((ROOT / "deploy" / "grafana" / "farm.json").read_text(encoding="utf-8"))
QUERIES = [target["expr"] for panel in BOARD["panels"] for target in panel.get("targets", [])]


@pytest.mark.parametrize("query", [*(rule["expr"] for rule in RULES), *QUERIES])
def test_alerts_and_the_dashboard_ask_for_what_there_is(query: str) -> None:
    promql_parser.parse(query)
    named = set(re.findall(r"\bfarm_\w+", query))
    assert named
    assert named <= {*DOCUMENTED}


def test_every_alert_says_what_to_do_and_is_documented() -> None:
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    told = re.findall(r"^\| `(Farm\w+)` \|", page, re.MULTILINE)
    assert told == [rule["alert"] for rule in RULES]
    for rule in RULES:
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert {"summary", "description"} <= rule["annotations"].keys()
