"""docs/operations.md is a runbook: its commands are ones that farm takes, and those about jobs do what it says."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from command_lines import check_command
from running import RunningFarm

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
COMMANDS = [
    shlex.split(line)
    for block in re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    for line in block.splitlines()
]
#: These run until they are told to stop, or change the farm's database.
FARM = (sys.executable, "-m", "farm.cli")
NOT_HERE = {"worker", "producer", "dashboard", "migrate"}


@pytest.mark.parametrize("line", [line for line in COMMANDS if line[0] == "farm"], ids=" ".join)
def test_every_command_is_one_that_farm_takes(line: list[str]) -> None:
    check_command(line)


def test_what_is_told_to_do_with_jobs_and_queues_works(shared_farm: RunningFarm, tmp_path: Path) -> None:
    rendered = shared_farm.client.submit(["a fox", "a hen"], steps=2, size="64x64", name="runbook")
    waiting = shared_farm.client.submit(["an owl"], steps=2, size="64x64", requires="site=nowhere", name="runbook")
    assert shared_farm.await_job(rendered.id)["state"] == "completed"
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a house\na barn\n")
    numbers = {"12": str(rendered.id), "13": str(waiting.id)}
    made = []
    try:
        for line in COMMANDS:
            if line[0] == "curl":
                command = [word.replace("$FARM_URL", shared_farm.url) for word in line]
            elif line[0] == "farm" and line[1] not in NOT_HERE:
                # What steers a job takes one that has not ended.
                steers = line[1] in ("change", "pause", "resume")
                own = {"12": numbers["13"], "13": numbers["13"]} if steers else numbers
                words = [
                    own.get(word, word.replace("job:12", f"job:{rendered.id}").replace("prompts.txt", str(prompts)))
                    for word in line[1:]
                ]
                command = [*FARM, *words]
            else:
                continue
            ran = subprocess.run(command, env=shared_farm.environment, capture_output=True, text=True, check=False)
            assert ran.returncode == 0, f"{line}: {ran.stdout}{ran.stderr}"
            made += [
                int(number) for number in re.findall(r"^Job (\d+):", ran.stdout, re.MULTILINE) if line[1] == "submit"
            ]
    finally:
        for job_id in (waiting.id, *made):
            job = shared_farm.client.job(job_id)
            if not job.has_ended:
                job.cancel()
        for owner in ("ana", "bob"):
            shared_farm.client.set_share(owner, 1)
