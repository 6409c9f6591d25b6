"""A picture can be seen while it is denoised, if somebody looks; nobody pays for it otherwise."""

from io import BytesIO

import pytest
import redis
from PIL import Image
from running import RunningFarm, wait_until

from dashboard.queries.previews import previewed_images
from farm.database import open_database
from farm.errors import NotFoundError
from farm.progress import ProgressBoard

LONG = {"steps": 1000, "images_per_prompt": 4, "batch_size": 4, "size": "256x192", "seed": 1}


def test_a_watched_job_shows_itself_and_another_does_not(shared_farm: RunningFarm) -> None:
    farm = shared_farm
    engine, board = open_database(farm.settings), ProgressBoard(farm.settings)
    with redis.Redis.from_url(farm.settings.broker_url or "") as client:

        def step(job_id: int) -> int:
            (batch,) = [b for w in farm.workers() for b in w["batches"] if b["job_id"] == job_id] or [{"step": None}]
            return batch["step"] or 0

        unwatched = farm.client.submit(["unseen"], **LONG).id
        wait_until(lambda: step(unwatched) > 20, "steps of the job that nobody watches")
        assert client.keys(f"farm:preview:{unwatched}:*") == []
        farm.client.job(unwatched).cancel()

        watched = farm.client.submit(["seen"], **LONG).id

        def look() -> bytes | None:
            # Asking for a preview is what makes workers show them.
            try:
                return farm.client.request("GET", f"/api/v1/jobs/{watched}/images/2/preview").content
            except NotFoundError:
                return None

        first = wait_until(look, "the first preview")
        assert Image.open(BytesIO(first)).size == (32, 24)
        assert previewed_images(engine, board, watched) == [0, 1, 2, 3]
        wait_until(lambda: look() != first, "the next preview")
        assert client.keys(f"farm:preview:{unwatched}:*") == []
        farm.client.job(watched).cancel()
        with pytest.raises(NotFoundError):
            farm.client.request("GET", f"/api/v1/jobs/{watched}/images/99/preview")
    engine.dispose()
