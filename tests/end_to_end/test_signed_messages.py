"""A farm with a message key renders, and refuses what others write to its broker."""

from pathlib import Path

from pydantic import SecretStr
from running import running_farm, wait_until

from farm.broker import make_celery, queue_name, ring, waiting_messages
from farm.priorities import INTERACTIVE_MESSAGE
from farm.settings import Settings
from farm.states import Stage


def test_workers_refuse_messages_that_are_not_signed(settings: Settings, tmp_path: Path) -> None:
    signing = settings.model_copy(update={"message_key": SecretStr("a key of these tests")})
    with running_farm(signing, tmp_path, ["--device", "cpu"]) as farm:
        forger, queue = make_celery(settings), queue_name("tiny", Stage.BASE)
        ring(forger, "tiny", Stage.BASE, 1, 1, refined=True, priority=INTERACTIVE_MESSAGE)
        wait_until(lambda: not waiting_messages(forger, queue, interactive=True), "the worker to take the message")
        forger.close()

        def logs() -> str:
            return "".join(path.read_text() for path in tmp_path.rglob("*.log"))

        wait_until(lambda: "a message to farm.render_base is refused" in logs(), "the refusal in the log")
        # Base and refiner: what follows a message is signed as well.
        job_id = farm.client.submit(["a fox"], pipeline="tiny").id
        assert farm.await_job(job_id)["state"] == "completed"
        assert logs().count("is refused") == 1
        assert "a key of these tests" not in logs()
