"""Previews are small, made only for those who watch, and change no picture."""

from io import BytesIO

import pytest
import redis
import torch
from conformance.cases import parameters, quiet
from PIL import Image

from farm.claims import Claim
from farm.progress import Progress, ProgressBoard
from farm.settings import Settings
from farm.states import Stage
from worker import stages
from worker.pipelines import LoadedPipeline
from worker.previews import MAX_EDGE, PREVIEW_SECONDS, Reporter, Seen, previews

SMALL = {"width": 64, "height": 64, "num_inference_steps": 5}
CLAIM = Claim(11, 1, Stage.BASE, 7, {}, None, None, ())


def opened(data: bytes) -> Image.Image:
    picture = Image.open(BytesIO(data))
    picture.load()
    return picture


def test_each_image_gets_a_small_picture_of_its_own_shape() -> None:
    generator = torch.Generator().manual_seed(1)
    wide = previews(torch.randn((2, 4, 128, 512), generator=generator, dtype=torch.bfloat16) * 14.6)
    assert [opened(data).size for data in wide] == [(MAX_EDGE, MAX_EDGE // 4)] * 2
    assert opened(wide[0]).format == "JPEG"
    assert max(map(len, wide)) < 20_000
    assert wide[0] != wide[1]
    assert opened(previews(torch.zeros(1, 4, 8, 12))[0]).size == (12, 8)


def test_noise_does_not_drown_what_is_there() -> None:
    """A left half and a right half can be told apart, however far a scheduler's noise scales the latents."""
    halves = torch.zeros(1, 4, 32, 32)
    halves[..., :16] += 1.5
    for scale in (1, 10):
        picture = opened(previews(halves * scale)[0]).convert("L")
        left, right = picture.getpixel((4, 16)), picture.getpixel((28, 16))
        assert abs(left - right) > 20
        assert min(left, right) > 0
        assert max(left, right) < 255


def test_broken_latents_break_no_preview() -> None:
    assert opened(previews(torch.full((1, 4, 8, 8), float("nan")))[0]).size == (8, 8)


@pytest.fixture
def board(settings: Settings) -> ProgressBoard:
    return ProgressBoard(settings)


def report(reporter: Reporter, step: int, latents: torch.Tensor) -> None:
    reporter.step(Progress(Stage.BASE, step, 9), [Seen(CLAIM, [3, 5], [0, 1])], latents)


def test_previews_are_written_only_while_somebody_watches(
    board: ProgressBoard, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr("worker.previews.time.monotonic", lambda: now)
    reporter = Reporter(board)
    latents = torch.randn(2, 4, 8, 8)
    reporter.begin()
    report(reporter, 1, latents)
    assert board.previewed(7, [3, 5]) == []
    board.watch(7)
    assert board.is_watched(7)
    now += 1
    report(reporter, 2, latents)
    assert board.previewed(7, [3, 4, 5]) == [3, 5]
    first = board.read_preview(7, 3)
    assert first is not None
    # At most so many a second, whatever the steps.
    now += PREVIEW_SECONDS * 0.9
    report(reporter, 3, -latents)
    assert board.read_preview(7, 3) == first
    now += PREVIEW_SECONDS
    report(reporter, 4, -latents)
    assert board.read_preview(7, 3) != first
    assert board.previewed(8, [3]) == []


def test_nothing_stays_for_ever(board: ProgressBoard, settings: Settings) -> None:
    board.watch(7)
    board.write_previews(7, {3: b"x"})
    with redis.Redis.from_url(settings.broker_url or "") as client:
        assert 0 < client.ttl("farm:watched:7") <= 15
        assert 0 < client.ttl("farm:preview:7:3") <= 30


def test_a_broker_that_is_away_costs_nothing_but_the_previews() -> None:
    reporter = Reporter(ProgressBoard(Settings(broker_url="redis://127.0.0.1:1/0")))
    report(reporter, 1, torch.zeros(2, 4, 8, 8))


def test_watching_changes_no_bit_of_a_picture(pipeline: LoadedPipeline) -> None:
    images = [parameters("a fox", 1, **SMALL), parameters("an owl", 2, **SMALL)]
    unseen = stages.render_base(pipeline, images, {}, quiet)
    seen: list[tuple[list[int], list[bytes]]] = []

    def look(step: stages.Step) -> None:
        seen.append(([images.index(image) for image in step.images], previews(step.latents)))

    assert torch.equal(stages.render_base(pipeline, images, {}, look), unseen)
    assert [indices for indices, _ in seen] == [[0, 1]] * 4
    assert all(len(shown) == 2 for _, shown in seen)
    assert seen[0][1] != seen[-1][1]
    pictures = stages.render_refiner(pipeline, images, {}, unseen, quiet)
    watched = stages.render_refiner(pipeline, images, {}, unseen, look)
    assert [picture.tobytes() for picture in watched] == [picture.tobytes() for picture in pictures]
