"""The Helm chart, rendered by Helm: what it comes to is what Kubernetes, KEDA and the farm take."""

import json
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import kubernetes_validate
import pytest
import yaml
from command_lines import check_command
from helm import run_helm, unpack_helm

from dashboard.api.schemas.autoscaling import AutoscalingDocument, AutoscalingQuery
from farm import __version__
from farm.settings import Settings

ROOT = Path(__file__).parents[1]
CHART = ROOT / "deploy" / "helm" / "sdxl-farm"
VALUES: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))

PLAIN: dict[str, Any] = {
    "secret": {
        "values": {
            "FARM_DATABASE_URL": "postgresql://farm:secret@db/farm",
            "FARM_BROKER_URL": "redis://:secret@broker:6379/0",
            "FARM_STORE_URL": "s3://farm",
            "ADMIN_PASSWORD": 'long "enough"',
        }
    }
}
#: Everything that can be switched on.
FULL: dict[str, Any] = {
    "imagePullSecrets": [{"name": "registry"}],
    "secret": {"existing": "mine"},
    "settings": {"FARM_S3_ENDPOINT_URL": "http://store:8333", "FARM_QUEUE_DEPTH": "3"},
    "catalog": '[pipelines.studio]\nbase = "./studio"\n',
    "producer": {"nodeSelector": {"disk": "fast"}, "resources": {"requests": {"cpu": "100m"}}},
    "dashboard": {"tolerations": [{"key": "web", "operator": "Exists"}]},
    "ingress": {
        "enabled": True,
        "className": "nginx",
        "host": "farm.example.org",
        "tlsSecret": "farm-tls",
        "annotations": {"nginx.ingress.kubernetes.io/proxy-body-size": "256m"},
    },
    "workers": [
        {"name": "base", "stage": "base", "pipeline": "studio xl", "gpus": 2, "autoscale": {"max": 8, "seconds": 300}},
        {
            "name": "refiner",
            "stage": "refiner",
            "gpus": 1,
            "autoscale": {"min": 1, "max": 4},
            "runtimeClassName": "nvidia",
        },
        {
            "name": "cpu",
            "stage": "both",
            "gpus": 0,
            "replicas": 0,
            "settings": {"OMP_NUM_THREADS": "4"},
            "resources": {"limits": {"cpu": 4, "memory": "16Gi"}},
            "nodeSelector": {"pool": "cpu"},
        },
    ],
    "models": {"create": True, "storageClassName": "shared"},
    "keda": {"enabled": True},
    "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
}

Document = dict[str, Any]
Render = Callable[[dict[str, Any]], list[Document]]


@pytest.fixture(scope="module")
def helm(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    directory = tmp_path_factory.mktemp("helm")
    program = unpack_helm(directory)
    values = directory / "values.json"

    def run(command: str, given: dict[str, Any], *arguments: str) -> str:
        values.write_text(json.dumps(given), encoding="utf-8")
        return run_helm(program, *command.split(), str(CHART), "--values", str(values), *arguments)

    return run


@pytest.fixture(scope="module")
def render(helm: Callable[..., str]) -> Render:
    def run(given: dict[str, Any]) -> list[Document]:
        text = helm("template farm", given, "--namespace", "render")
        return [document for document in yaml.safe_load_all(text) if document]

    return run


@pytest.fixture(scope="module")
def plain(render: Render) -> list[Document]:
    return render(PLAIN)


@pytest.fixture(scope="module")
def full(render: Render) -> list[Document]:
    return render(FULL)


def of_kind(documents: list[Document], kind: str) -> dict[str, Document]:
    """By the part of the name that follows the release's."""
    return {
        document["metadata"]["name"].removeprefix("farm-sdxl-farm").removeprefix("-"): document
        for document in documents
        if document["kind"] == kind
    }


def pods(documents: list[Document]) -> dict[str, Document]:
    return {
        name: document["spec"]["template"]["spec"]
        for kind in ("Deployment", "Job")
        for name, document in of_kind(documents, kind).items()
    }


def containers(documents: list[Document]) -> Iterator[tuple[str, Document]]:
    for pod in pods(documents).values():
        for container in [*pod.get("initContainers", []), *pod["containers"]]:
            yield container["name"], container


def environment(container: Document) -> dict[str, str]:
    names = [variable["name"] for variable in container["env"]]
    assert len(names) == len(set(names)), names
    return {variable["name"]: variable.get("value", "") for variable in container["env"]}


@pytest.mark.parametrize("given", [PLAIN, FULL], ids=["plain", "full"])
def test_helm_finds_nothing_to_complain_of(helm: Callable[..., str], given: dict[str, Any]) -> None:
    helm("lint --strict", given)


@pytest.mark.parametrize("version", ["1.25", "1.37"])
def test_kubernetes_takes_what_it_renders(plain: list[Document], full: list[Document], version: str) -> None:
    """The oldest that the chart asks for, and the newest that is known here."""
    assert yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))["kubeVersion"] == ">=1.25.0-0"
    # What KEDA and Prometheus' operator bring is not Kubernetes' own.
    own = [document for document in [*plain, *full] if not document["apiVersion"].startswith(("keda.", "monitoring."))]
    assert {document["kind"] for document in own} == {
        "ConfigMap",
        "Deployment",
        "Ingress",
        "Job",
        "PersistentVolumeClaim",
        "PodDisruptionBudget",
        "Secret",
        "Service",
    }
    for document in own:
        kubernetes_validate.validate(document, version, strict=True)


def test_all_parts_are_there(plain: list[Document], full: list[Document]) -> None:
    assert of_kind(plain, "Deployment").keys() == {"producer", "dashboard", "worker-gpu"}
    assert of_kind(full, "Deployment").keys() == {
        "producer",
        "dashboard",
        "worker-base",
        "worker-refiner",
        "worker-cpu",
    }
    assert of_kind(plain, "Deployment")["producer"]["spec"]["replicas"] == 2
    names = [(document["kind"], document["metadata"]["name"]) for document in full]
    assert len(names) == len(set(names))
    # Kubernetes takes no longer names of Services.
    assert all(len(name) <= 63 for _, name in names)


def test_every_command_is_one_that_farm_takes(plain: list[Document], full: list[Document]) -> None:
    for _, container in [*containers(plain), *containers(full)]:
        words = container["command"]
        if words[0] == "sh":
            words = shlex.split(words[-1].rpartition("|")[2])
        check_command(words)


def test_every_setting_exists(plain: list[Document], full: list[Document]) -> None:
    settings = {f"FARM_{field.upper()}" for field in Settings.model_fields}
    for name, container in [*containers(plain), *containers(full)]:
        given = {variable for variable in environment(container) if variable.startswith("FARM_")}
        assert {"FARM_DATABASE_URL", "FARM_BROKER_URL", "FARM_STORE_URL"} <= given <= settings, name
    dashboard = environment(pods(full)["dashboard"]["containers"][0])
    # Settings of one's own come beside those that the chart needs.
    assert dashboard["FARM_QUEUE_DEPTH"] == "3"
    assert (dashboard["FARM_HOST"], dashboard["FARM_PORT"], dashboard["FARM_TRUSTED_PROXIES"]) == (
        "0.0.0.0",
        "8000",
        "1",
    )
    assert "FARM_TRUSTED_PROXIES" not in environment(pods(plain)["dashboard"]["containers"][0])


def test_the_secret_holds_what_is_asked_of_it(plain: list[Document], full: list[Document]) -> None:
    (secret,) = of_kind(plain, "Secret").values()
    assert secret["stringData"] == PLAIN["secret"]["values"]
    for documents, name in ((plain, secret["metadata"]["name"]), (full, "mine")):
        for _, container in containers(documents):
            for variable in container["env"]:
                if reference := variable.get("valueFrom", {}).get("secretKeyRef"):
                    assert (reference["name"], reference["key"]) == (name, variable["name"])
                    assert reference.get("optional", False) == variable["name"].startswith("AWS_")
    assert not of_kind(full, "Secret")
    # Workers have no business with the administrator's password.
    assert [name for name, container in containers(plain) if "ADMIN_PASSWORD" in environment(container)] == [
        "administrator"
    ]


def test_the_tables_are_there_before_all_else(plain: list[Document]) -> None:
    hooks = {
        document["kind"]: document["metadata"]["annotations"]
        for document in plain
        if "helm.sh/hook" in document["metadata"].get("annotations", {})
    }
    assert hooks.keys() == {"Secret", "Job"}
    assert {notes["helm.sh/hook"] for notes in hooks.values()} == {"pre-install,pre-upgrade"}
    assert int(hooks["Secret"]["helm.sh/hook-weight"]) < int(hooks["Job"]["helm.sh/hook-weight"])
    job = pods(plain)["migrate"]
    assert [container["name"] for container in job["initContainers"]] == ["migrate"]
    # At that time there is nothing else of the chart: neither catalog nor claim.
    assert all(volume.keys() == {"name", "emptyDir"} for volume in job["volumes"])


def test_without_an_administrator_the_job_only_migrates(render: Render) -> None:
    job = pods(render({"secret": {"existing": "mine"}, "administrator": False}))["migrate"]
    assert "initContainers" not in job
    assert [container["name"] for container in job["containers"]] == ["migrate"]


def test_pods_may_do_little(plain: list[Document], full: list[Document]) -> None:
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    for pod in [*pods(plain).values(), *pods(full).values()]:
        assert pod["automountServiceAccountToken"] is False
        assert pod["enableServiceLinks"] is False
        assert pod["shareProcessNamespace"] is True
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert f"--uid {pod['securityContext']['runAsUser']} " in dockerfile
    for name, container in [*containers(plain), *containers(full)]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }, name
        # Where it keeps what it keeps can be written to.
        written = {mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")}
        variables = environment(container)
        assert {"/tmp", variables["FARM_DATA"], variables["HOME"]} <= written
        if name == "worker":
            assert variables["FARM_MODELS"] in written


def test_each_mount_has_its_volume(plain: list[Document], full: list[Document]) -> None:
    for pod in [*pods(plain).values(), *pods(full).values()]:
        mounted = {
            mount["name"]
            for container in [*pod.get("initContainers", []), *pod["containers"]]
            for mount in container["volumeMounts"]
        }
        assert mounted == {volume["name"] for volume in pod["volumes"]}
    (models,) = [volume for volume in pods(full)["worker-base"]["volumes"] if volume["name"] == "models"]
    assert models["persistentVolumeClaim"]["claimName"] == "farm-sdxl-farm-models"
    assert of_kind(full, "PersistentVolumeClaim")["models"]["spec"]["storageClassName"] == "shared"


def test_who_is_selected_is_there_and_no_other(full: list[Document]) -> None:
    labels = {
        name: document["spec"]["template"]["metadata"]["labels"]
        for kind in ("Deployment", "Job")
        for name, document in of_kind(full, kind).items()
    }

    def selected(selector: dict[str, str]) -> list[str]:
        return [name for name, those in labels.items() if selector.items() <= those.items()]

    for kind in ("Deployment", "PodDisruptionBudget"):
        for name, document in of_kind(full, kind).items():
            assert selected(document["spec"]["selector"]["matchLabels"]) == [name]
    assert of_kind(full, "PodDisruptionBudget").keys() == of_kind(full, "Deployment").keys()
    (service,) = of_kind(full, "Service").values()
    assert selected(service["spec"]["selector"]) == ["dashboard"]
    (rule,) = of_kind(full, "Ingress")[""]["spec"]["rules"]
    assert rule["http"]["paths"][0]["backend"]["service"] == {
        "name": service["metadata"]["name"],
        "port": {"name": "http"},
    }
    monitor = of_kind(full, "ServiceMonitor")[""]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert monitor["spec"]["endpoints"][0]["port"] == service["spec"]["ports"][0]["name"]
    assert monitor["metadata"]["labels"]["release"] == "prometheus"


def test_the_dashboard_is_asked_what_it_answers(full: list[Document]) -> None:
    (dashboard,) = pods(full)["dashboard"]["containers"]
    paths = {dashboard[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "liveness", "readiness")}
    routes = re.findall(r"^\| `GET (\S+)` \|", (ROOT / "docs" / "api.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert paths == {"/healthz", "/readyz"} <= set(routes)
    # A database that is away is no reason to start a dashboard anew.
    assert dashboard["livenessProbe"]["httpGet"]["path"] == "/healthz"
    assert [port["containerPort"] for port in dashboard["ports"]] == [int(environment(dashboard)["FARM_PORT"])]


def test_workers_have_their_gpus_and_time_to_finish(plain: list[Document], full: list[Document]) -> None:
    workers = {name: pod for name, pod in [*pods(plain).items(), *pods(full).items()] if name.startswith("worker-")}
    assert {pod["terminationGracePeriodSeconds"] for pod in workers.values()} == {600}
    commands = {name: pod["containers"][0]["command"][2:] for name, pod in workers.items()}
    assert commands == {
        "worker-gpu": ["--stage=both", "--devices=cuda:0"],
        "worker-base": ["--stage=base", "--devices=cuda:0,cuda:1", "--pipeline=studio xl"],
        "worker-refiner": ["--stage=refiner", "--devices=cuda:0"],
        "worker-cpu": ["--stage=both", "--devices=cpu"],
    }
    limits = {name: pod["containers"][0]["resources"]["limits"] for name, pod in workers.items()}
    assert limits == {
        "worker-gpu": {"nvidia.com/gpu": 1},
        "worker-base": {"nvidia.com/gpu": 2},
        "worker-refiner": {"nvidia.com/gpu": 1},
        "worker-cpu": {"cpu": 4, "memory": "16Gi"},
    }
    assert environment(workers["worker-cpu"]["containers"][0])["OMP_NUM_THREADS"] == "4"
    assert [name for name, pod in workers.items() if pod.get("runtimeClassName") == "nvidia"] == ["worker-refiner"]
    assert of_kind(full, "Deployment")["worker-cpu"]["spec"]["replicas"] == 0


def test_keda_asks_the_farm_how_many_devices_it_could_use(full: list[Document]) -> None:
    scaled = of_kind(full, "ScaledObject")
    deployments = of_kind(full, "Deployment")
    (service,) = of_kind(full, "Service").values()
    entries = {f"worker-{entry['name']}": entry for entry in FULL["workers"] if "autoscale" in entry}
    assert scaled.keys() == entries.keys()
    for name, document in scaled.items():
        spec = document["spec"]
        assert spec["scaleTargetRef"]["name"] == deployments[name]["metadata"]["name"]
        # Otherwise each upgrade would set back what was scaled.
        assert "replicas" not in deployments[name]["spec"]
        (trigger,) = spec["triggers"]
        assert (trigger["type"], trigger["metricType"]) == ("metrics-api", "AverageValue")
        assert all(isinstance(value, str) for value in trigger["metadata"].values())
        assert trigger["metadata"]["targetValue"] == str(entries[name]["gpus"])
        assert trigger["metadata"]["valueLocation"] in AutoscalingDocument.model_fields
        url = urlsplit(trigger["metadata"]["url"])
        assert url.netloc == f"{service['metadata']['name']}.render.svc:{service['spec']['ports'][0]['port']}"
        assert f"| `GET {url.path}` |" in (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
        asked = AutoscalingQuery.model_validate_strings(dict(parse_qsl(url.query, strict_parsing=True)))
        entry = entries[name]
        assert (asked.stage, asked.pipeline) == (entry["stage"], entry.get("pipeline"))
        assert asked.seconds == entry["autoscale"].get("seconds")
        (authentication,) = of_kind(full, "TriggerAuthentication").values()
        assert trigger["authenticationRef"]["name"] == authentication["metadata"]["name"]
        assert [target["parameter"] for target in authentication["spec"]["secretTargetRef"]] == ["token"]
    assert [scaled[name]["spec"]["minReplicaCount"] for name in ("worker-base", "worker-refiner")] == [0, 1]


def test_without_keda_nothing_needs_it(plain: list[Document]) -> None:
    assert {document["apiVersion"].split("/")[0] for document in plain} == {"v1", "apps", "batch", "policy"}
    assert of_kind(plain, "Deployment")["worker-gpu"]["spec"]["replicas"] == 1


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({}, r"set secret\.values\.\w+, or name a Secret that has it as secret\.existing"),
        ({**FULL, "worker": []}, "worker"),
        ({**FULL, "settings": {"FARM_QUEUE_DEPTH": 3}}, "got number, want string"),
        ({**FULL, "workers": [{"name": "x", "stage": "decoder", "gpus": 1}]}, "'base', 'refiner', 'both'"),
        ({**FULL, "ingress": {"enabled": True}}, "/ingress/host"),
        ({"secret": {"values": {**PLAIN["secret"]["values"], "FARM_DATABASE_URL": "mysql://x"}}}, "FARM_DATABASE_URL"),
    ],
)
def test_what_makes_no_sense_is_refused(render: Render, given: dict[str, Any], complaint: str) -> None:
    with pytest.raises(AssertionError, match=complaint):
        render(given)


def leaves(values: dict[str, Any], path: str = "") -> Iterator[str]:
    for name, value in values.items():
        if isinstance(value, dict) and value and path != ".secret":
            yield from leaves(value, f"{path}.{name}")
        else:
            yield f"{path}.{name}"


def test_every_value_is_used_and_every_one_that_is_used_has_a_default() -> None:
    text = "\n".join(path.read_text(encoding="utf-8") for path in sorted((CHART / "templates").iterdir()))
    used = set(re.findall(r"\.Values((?:\.\w+)+)", text))
    # These are handed on as a whole.
    parts = {part for part in (".producer", ".dashboard", ".secret") if part in used}
    given = set(leaves(VALUES))
    assert {path for path in given if path not in used and path.rpartition(".")[0] not in parts} == set()
    assert used - parts <= given


def test_it_is_of_the_same_version_as_the_farm() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    assert chart["appVersion"] == __version__
