"""Pictures that go in: checked, written anew, stored once under the hash of that, and named by it.

What is stored is a plain PNG of the pixels that a worker reads, never what was sent: files may hold places, names, or
something else than a picture besides it. Names of what was sent are kept, so that the same bytes are sent only once.

Those that no job names are removed in time (``producer.retention``): whoever asks for one here uses it, and keeps it.
"""

import io
import warnings
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import timedelta

from PIL import Image as Pictures
from PIL import ImageOps, UnidentifiedImageError
from sqlalchemy import Connection, Engine, func, literal, select, tuple_, update
from sqlalchemy.dialects.postgresql import array, insert

from farm.doomed import spare_objects
from farm.errors import InvalidSubmissionError, Problem
from farm.keys import input_key
from farm.models import Batch, Image, Input, InputName, JobInput
from farm.spec import INPUT_REF, WHOLE_JOB, job_picture
from farm.storage import ObjectStore, sha256
from producer.expand import InputSize

#: Larger pictures are made smaller before rendering anyway; their decoding would cost every worker.
MAX_INPUT_PIXELS = 64_000_000
#: Formats that Pillow reads without calling other programs.
FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "AVIF")
MEDIA_TYPE = "image/png"
_PREFIX = "sha256:"
#: Key of an advisory lock ("inpt" in ASCII).
_INPUTS_LOCK = 0x696E7074


@dataclass(frozen=True, slots=True)
class StoredInput:
    """A picture in the store."""

    ref: str
    """``sha256:`` and its hash: the name under which a spec speaks of it."""
    width: int
    height: int
    size: int
    media_type: str


def accept_input(engine: Engine, store: ObjectStore, data: bytes) -> StoredInput:
    """Store a picture, if it is not there yet; raises InvalidSubmissionError when it is none.

    The object is written before its row: what has a row can be rendered from. It may be doomed, as one that was removed
    or that had no row: before it is written nobody may be about to remove it, and afterwards nobody may begin.
    """
    sent = sha256(data)
    known = find_input(engine, store, _PREFIX + sent)
    if known is not None:
        return known
    picture = open_picture(data)
    width, height = picture.size
    kept = plain_png(picture)
    digest = sha256(kept)
    with engine.begin() as connection:
        spare_objects(connection, [input_key(digest)])
    store.put(input_key(digest), kept, MEDIA_TYPE)
    row = {"sha256": digest, "width": width, "height": height, "size": len(kept), "media_type": MEDIA_TYPE}
    with engine.begin() as connection:
        lock_inputs(connection)
        connection.execute(insert(Input).values(row).on_conflict_do_nothing())
        # Another version of Pillow may write other bytes of the same pixels: what was stored last is what is there.
        name = insert(InputName).values(sent=sent, sha256=digest)
        connection.execute(name.on_conflict_do_update(index_elements=[InputName.sent], set_={"sha256": digest}))
        spare_objects(connection, [input_key(digest)])
    return StoredInput(_PREFIX + digest, width, height, len(kept), MEDIA_TYPE)


def open_picture(data: bytes) -> Pictures.Image:
    """The picture as it is seen (EXIF may turn it); raises InvalidSubmissionError if it is none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Pictures.DecompressionBombWarning)
            picture = Pictures.open(io.BytesIO(data), formats=FORMATS)
            if picture.width * picture.height > MAX_INPUT_PIXELS:
                raise _refusal(f"has {picture.width}x{picture.height} pixels; at most {MAX_INPUT_PIXELS:,} are taken")
            # Decoding finds what is cut short.
            return ImageOps.exif_transpose(picture)
    except (Pictures.DecompressionBombWarning, Pictures.DecompressionBombError):
        raise _refusal(f"has too many pixels; at most {MAX_INPUT_PIXELS:,} are taken") from None
    except UnidentifiedImageError:
        raise _refusal(f"is no picture; send one of {', '.join(FORMATS)}") from None
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise _refusal(f"is damaged ({error}); save it anew") from None


def plain_png(picture: Pictures.Image) -> bytes:
    """A PNG of the pixels that ``load_image`` of diffusers gives, of one channel if they are grey, and nothing else."""
    pixels = picture.convert("L" if picture.mode == "L" else "RGB")
    # Writers carry over what stands here: profiles, transparency, comments.
    pixels.info.clear()
    buffer = io.BytesIO()
    pixels.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def find_input(engine: Engine, store: ObjectStore, ref: str) -> StoredInput | None:
    """The picture called ``ref``, or that was sent as bytes of this hash; None if it or its object is not there."""
    sent = ref.removeprefix(_PREFIX)
    with engine.begin() as connection:
        digest = connection.scalar(select(InputName.sha256).where(InputName.sent == sent)) or sent
        # Before it is looked for: what is used is not removed.
        _use(connection, [digest])
        columns = Input.width, Input.height, Input.size, Input.media_type
        row = connection.execute(select(*columns).where(Input.sha256 == digest)).one_or_none()
    if row is None or not store.has(input_key(digest)):
        return None
    return StoredInput(_PREFIX + digest, *row)


def find_inputs(engine: Engine, refs: Collection[str]) -> Mapping[str, InputSize]:
    """Sizes of those of the pictures that are in the store, or that some job makes.

    For a whole job (``job:12``) all its pictures are found, under their own names too.
    """
    uploaded = [ref for ref in refs if ref.startswith(_PREFIX)]
    whole = {int(ref.removeprefix("job:")) for ref in refs if WHOLE_JOB.fullmatch(ref)}
    places = {place for ref in refs if INPUT_REF.fullmatch(ref) and (place := job_picture(ref)) is not None}
    found: dict[str, InputSize] = {}
    if not refs:
        return found
    with engine.begin() as connection:
        if uploaded:
            _use(connection, uploaded)
            digests = [ref.removeprefix(_PREFIX) for ref in uploaded]
            query = select(Input.sha256, Input.width, Input.height).where(Input.sha256.in_(digests))
            for digest, width, height in connection.execute(query):
                found[_PREFIX + digest] = InputSize(width, height)
        if whole or places:
            made = (
                select(Image.job_id, Image.index, Batch.parameters["width"], Batch.parameters["height"])
                .join(Batch, Batch.id == Image.batch_id)
                .where(Image.job_id.in_(whole) | tuple_(Image.job_id, Image.index).in_(places))
            )
            for job_id, index, width, height in connection.execute(made):
                found[f"job:{job_id}/{index}"] = InputSize(width, height)
                if job_id in whole:
                    found.setdefault(f"job:{job_id}", InputSize(width, height))
    return found


def note_inputs(connection: Connection, job_id: int, refs: Collection[str]) -> None:
    """Write down which pictures a job names, so that they are there as long as the job."""
    if refs:
        digests = func.unnest(array([ref.removeprefix(_PREFIX) for ref in sorted(refs)])).column_valued("sha256")
        connection.execute(insert(JobInput).from_select(["job_id", "sha256"], select(literal(job_id), digests)))


def lock_inputs(connection: Connection, *, alone: bool = False) -> None:
    """For this transaction, keep apart those who write rows of inputs from whoever dooms objects that have none."""
    lock = func.pg_advisory_xact_lock if alone else func.pg_advisory_xact_lock_shared
    connection.execute(select(lock(_INPUTS_LOCK)))


def _use(connection: Connection, refs: Collection[str]) -> None:
    """Note that these are used. Seldom enough, so that those who only look write nothing."""
    connection.execute(
        update(Input)
        .where(
            Input.sha256.in_([ref.removeprefix(_PREFIX) for ref in refs]),
            Input.used_at < func.now() - timedelta(hours=1),
        )
        .values(used_at=func.now())
    )


def _refusal(message: str) -> InvalidSubmissionError:
    return InvalidSubmissionError([Problem("file", message)])
