"""The command line as people use it: `farm up` on an empty directory, and everything else over HTTP."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from PIL import Image
from running import WAIT_SECONDS, RunningFarm, wait_until
from typing_extensions import override

from farm.settings import Settings
from producer import Farm
from worker.tiny import write_tiny_checkpoint

#: Of a job that is not done when it is looked at.
MANY = ("--steps", "30", "--size", "128x128", "--images-per-prompt", "24")


class EmbeddedFarm(RunningFarm):
    """A farm that `farm up` runs on a directory of its own."""

    def __init__(self, directory: Path) -> None:
        super().__init__(Settings(data=directory / "data"), directory)
        self.environment["XDG_STATE_HOME"] = str(directory / "state")
        self.environment["FARM_MODELS"] = str(directory / "models")
        self.environment["FARM_LEASE_SECONDS"] = "5"
        # The user's commands find the token that `farm up` records.
        del self.environment["FARM_TOKEN"]

    @override
    def make_token(self) -> str:
        return ""

    @contextmanager
    def up(self) -> Iterator["subprocess.Popen[bytes]"]:
        process = self.start("up", "--devices", "cpu", "--pipeline", "tiny")
        try:
            self.await_dashboard()
            self.client.close()
            self.client = Farm(self.url, wait_until(self.recorded_token, "the record of the farm"))
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
                process.wait(60)

    def recorded_token(self) -> str:
        """What `farm up` recorded for the user's commands, once it has recorded all of it."""
        record = Path(self.environment["XDG_STATE_HOME"]) / "sdxl-farm" / "farm.json"
        found = json.loads(record.read_text()) if record.exists() else {}
        return found["tokens"].get(self.url, "") if found.get("url") == self.url else ""

    def json(self, *arguments: str | Path) -> dict:
        result = self.command(*arguments, "--json")
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout)


@pytest.fixture
def farm(tmp_path: Path) -> Iterator[EmbeddedFarm]:
    farm = EmbeddedFarm(tmp_path)
    yield farm
    farm.stop()


@pytest.fixture(scope="module")
def settled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedFarm]:
    """A farm that is up, for tests that change nothing of it."""
    farm = EmbeddedFarm(tmp_path_factory.mktemp("settled"))
    with farm.up():
        yield farm
    farm.stop()


def processes_of(directory: Path) -> list[str]:
    """Command lines of all processes that have to do with the directory."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            environment = (entry / "environ").read_bytes().decode(errors="replace")
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        if str(directory) in command or f"FARM_DATA={directory}" in environment:
            found.append(command)
    return found


def test_a_day_with_an_embedded_farm(farm: EmbeddedFarm, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.csv"
    prompts.write_text("Prompt,Steps,Note\na red fox,4,x\nan owl,6,y\n", encoding="utf-8")
    with farm.up() as process:
        del farm.environment["FARM_URL"]  # the user's commands find the farm that was started last
        # Whoever started it is its administrator: no database needs to be reached for that.
        assert farm.command("user", "add", "ana", "--role", "viewer", "--no-password").returncode == 0
        assert httpx.get(farm.command("link", "ana").stdout.strip(), timeout=WAIT_SECONDS).status_code == 303
        done = farm.json("submit", prompts, "--seed", "42", "--images-per-prompt", "3", "--output", tmp_path / "out")
        assert done["image_count"] == 6
        assert done["ignored_columns"] == ["Note"]
        assert done["job"]["state"] == "completed"
        names = sorted(path.name for path in (tmp_path / "out").iterdir())
        assert names == [f"{index:06d}_seed{42 + index}.png" for index in range(6)]
        with Image.open(tmp_path / "out" / names[4]) as picture:
            assert picture.size == (256, 256)
            stored = json.loads(picture.text["farm"])["parameters"]
        assert (stored["prompt"], stored["seed"], stored["num_inference_steps"]) == ("an owl", 46, 6)

        job_id = str(done["id"])
        assert farm.json("jobs")[0]["id"] == done["id"]
        assert farm.json("show", job_id)["images"]["completed"] == 6
        assert len(farm.json("download", job_id, tmp_path / "again")["files"]) == 6
        text = farm.command(
            "submit", "--prompt", "one more", "--steps", "4", "--no-refiner", "--size", "128x64", "--wait"
        )
        assert text.returncode == 0, text.stderr
        assert "completed: 1 pictures" in text.stdout
        assert "prompts.csv" in farm.command("jobs").stdout
        assert "6 of 6 images done" in farm.command("show", job_id).stdout

        long_job = farm.json("submit", "--prompt", "long", "--steps", "1000", "--images-per-prompt", "40")["id"]
        assert farm.json("cancel", str(long_job))["state"] == "cancelled"
        assert farm.command("cancel", job_id).returncode == 1

        # Stop in the middle of work ...
        resumed = farm.json("submit", "--prompt", "resumed", *MANY)["id"]
        wait_until(lambda: farm.job(resumed)["state"] == "running", "the job's start")
        process.send_signal(signal.SIGINT)
        assert process.wait(240) == 0
        assert processes_of(farm.settings.data) == []
        refused = farm.command("jobs")
        assert refused.returncode == 3
        assert "No farm answers" in refused.stderr
    # ... and go on where it stopped.
    farm.environment["FARM_URL"] = farm.url
    with farm.up():
        job = farm.await_job(resumed)
        assert (job["state"], job["images"]["completed"]) == ("completed", 24)


def test_a_killed_farm_up_leaves_nothing_that_harms_the_next(farm: EmbeddedFarm) -> None:
    with farm.up() as process:
        job_id = farm.json("submit", "--prompt", "a", *MANY)["id"]
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        # Without their parent the parts end by themselves; the servers are taken over by the next start.
        wait_until(
            lambda: (
                not any("farm.cli" in line or "worker.process" in line for line in processes_of(farm.settings.data))
            ),
            "the orphans' end",
        )
    with farm.up():
        assert farm.await_job(job_id)["images"]["completed"] == 24


BAD = [
    ("empty.txt", b"", [], "empty.txt: line 1, prompt"),
    ("missing.csv", b"text\na\n", [], "missing.csv: line 1, prompt"),
    ("size.txt", b"a\n", ["--size", "250x256"], "width: 250 is not divisible by 8"),
    ("split.txt", b"a\n", ["--refiner-split", "1.5"], "refiner_split: '1.5' is not possible"),
    ("steps.txt", b"a\n", ["--steps", "0"], "num_inference_steps: '0' is not possible"),
    ("steps.txt", b"a\n", ["--steps", "10000"], "num_inference_steps: '10000' is not possible"),
    ("long.txt", b"a\n" + b"x" * 100_000, [], "long.txt: line 2, prompt: has 100,000 characters"),
    ("utf8.txt", b"a\nb\n\xc3\x28\n", [], "utf8.txt: line 3, prompt: byte 4 (0xc3) is not UTF-8"),
    ("nul.txt", b"a\0b\n", [], "nul.txt: line 1, prompt: holds a NUL character"),
    ("pipeline.txt", b"a\n", ["--pipeline", "nope"], "pipeline: There is no pipeline 'nope'"),
]


def test_bad_input_gets_one_message_exit_code_2_and_no_job(settled: EmbeddedFarm, tmp_path: Path) -> None:
    for name, data, options, message in BAD:
        (tmp_path / name).write_bytes(data)
        result = settled.command("submit", tmp_path / name, *options)
        assert result.returncode == 2, (name, result.stderr)
        assert result.stderr.startswith("error: "), result.stderr
        assert message in result.stderr
        assert result.stderr.count("error:") == 1
        assert "Traceback" not in result.stderr
    assert settled.command("submit", tmp_path / "not-there.txt").returncode == 2
    assert settled.command("submit").returncode == 2
    assert settled.json("jobs") == []


def test_help_teaches_and_loads_nothing_heavy() -> None:
    code = (
        "import sys, farm.cli, typer.testing\n"
        "result = typer.testing.CliRunner().invoke(farm.cli.app, sys.argv[1:])\n"
        "print(result.output)\n"
        "heavy = {'torch', 'flask', 'celery', 'sqlalchemy', 'boto3', 'diffusers'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "assert result.exit_code == 0\n"
    )
    environment = os.environ | {"COLUMNS": "200"}
    for arguments in ([], ["submit"], ["download"], ["up"]):
        result = subprocess.run(
            [sys.executable, "-c", code, *arguments, "--help"], capture_output=True, text=True, env=environment
        )
        assert result.returncode == 0, result.stderr
    assert (
        "farm submit prompts.txt"
        in subprocess.run(
            [sys.executable, "-m", "farm.cli", "submit", "--help"], capture_output=True, text=True, env=environment
        ).stdout
    )


def test_tiny_checkpoint_writes_what_it_says(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "farm.cli", "tiny-checkpoint", str(tmp_path / "tiny"), "--json"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=WAIT_SECONDS)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["refiner"] == str(tmp_path / "tiny" / "refiner")
    write_tiny_checkpoint(tmp_path / "same")
    for stage in ("base", "refiner"):
        weights = Path(stage) / "unet" / "diffusion_pytorch_model.safetensors"
        assert (tmp_path / "tiny" / weights).read_bytes() == (tmp_path / "same" / weights).read_bytes()


def test_parts_without_services_say_what_to_set() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FARM_")}
    for part in ("producer", "migrate", "dashboard"):
        result = subprocess.run(
            [sys.executable, "-m", "farm.cli", part], capture_output=True, text=True, env=environment, timeout=240
        )
        assert result.returncode == 1
        assert re.search("set FARM_(DATABASE|BROKER)_URL", result.stderr), result.stderr
        assert "Traceback" not in result.stderr


def test_a_taken_port_is_named(settled: EmbeddedFarm, tmp_path: Path) -> None:
    other = EmbeddedFarm(tmp_path / "other")
    (tmp_path / "other").mkdir()
    result = subprocess.run(
        [sys.executable, "-m", "farm.cli", "up", "--port", settled.url.rpartition(":")[2]],
        env=other.environment,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert result.returncode == 1
    assert "choose another port" in result.stderr
    assert httpx.get(f"{settled.url}/healthz", timeout=WAIT_SECONDS).is_success
