import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save

from farm.errors import ObjectCorruptError
from worker.latents import FORMAT, pack, unpack

GOOD = pack(torch.arange(512, dtype=torch.float32).reshape(2, 4, 8, 8), [3, 5])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_what_is_unpacked_is_what_was_packed(dtype: torch.dtype) -> None:
    latents = torch.randn(3, 4, 8, 12).to(dtype)
    received = unpack(pack(latents, [0, 7, 9]))
    assert received.dtype == dtype
    assert torch.equal(received, latents)
    assert torch.equal(unpack(pack(latents.transpose(2, 3), [0, 7, 9])), latents.transpose(2, 3))


def test_the_metadata_tell_format_and_images() -> None:
    length = int.from_bytes(GOOD[:8], "little")
    assert json.loads(GOOD[8 : 8 + length])["__metadata__"] == {
        "format": FORMAT,
        "indices": "3,5",
        "memory": "contiguous",
    }


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"nonsense",
        b"\xff" * 64,
        GOOD[:-1],
        GOOD + b"\0",
        GOOD.replace(b"latents 2", b"latents 1"),
        pack(torch.zeros(1, 3, 8, 8), [0]),
        pack(torch.zeros(4, 8, 8), [0]),
        pack(torch.zeros(0, 4, 8, 8), []),
        pack(torch.zeros(2, 4, 8, 8), [0]),
        pack(torch.zeros(1, 4, 8, 8, dtype=torch.int64), [0]),
        save({"latents": torch.zeros(1, 4, 8, 8)}),
        save({"other": torch.zeros(1, 4, 8, 8)}, {"format": FORMAT, "indices": "0"}),
    ],
    ids=range(13),
)
def test_bytes_that_are_no_latents_are_refused(data: bytes) -> None:
    with pytest.raises(ObjectCorruptError):
        unpack(data)


@given(st.binary(max_size=200), st.integers(0, 200))
def test_damage_is_refused_or_harmless_and_never_another_error(noise: bytes, position: int) -> None:
    data = GOOD[:position] + noise + GOOD[position + len(noise) :]
    try:
        latents = unpack(data)
    except ObjectCorruptError:
        return
    assert latents.ndim == 4
    assert latents.shape[1] == 4
    assert latents.is_floating_point()
