"""Puts adapters on a pipeline and takes them off again, so that each call finds exactly those that it asked for.

The modules are shared by all modes of a pipeline, and the second text encoder by base and refiner. What is loaded once
stays until memory is wanted, switched off: then the pictures are bit for bit those of a pipeline that never saw it.
"""

from collections import OrderedDict
from collections.abc import Collection, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from diffusers import ControlNetModel
from diffusers.models.attention_processor import AttnProcessor2_0, FusedAttnProcessor2_0
from peft.tuners.tuners_utils import BaseTunerLayer
from PIL import Image
from safetensors import SafetensorError
from transformers import CLIPVisionModelWithProjection

from farm.adapters import Adapter, ControlNet, IpAdapter, Lora, TextualInversion
from farm.errors import FarmError

#: LoRAs beyond so many bytes are dropped, the one first that was longest out of use.
LORA_MEMORY = 2 * 2**30
#: ControlNets are large: an SDXL one takes 2.5 GB in half precision.
MAX_CONTROLNETS = 3


class AdapterError(FarmError):
    """An adapter that cannot be loaded, or does not fit its pipeline."""


def take_embeds_as_given(pipe: Any) -> None:
    """Let the pipeline's calls take one row of ``ip_adapter_image_embeds`` for each image.

    diffusers takes them for those of one picture, and repeats them for each image of the batch.
    """

    def as_given(
        _pictures: None, embeds: list[torch.Tensor], _device: object, _number: int, _guided: bool
    ) -> list[torch.Tensor]:
        return embeds

    pipe.prepare_ip_adapter_image_embeds = as_given


class Adapters:
    """The adapters of one loaded checkpoint, base or refiner, of which ``pipe`` is a pipeline."""

    def __init__(self, pipe: Any, models_directory: Path, *, fused: bool = False) -> None:
        """``fused``: the UNet has fused projections, to be used where nothing acts on the single ones."""
        self._pipe = pipe
        self._fused = fused
        self._models = models_directory
        self._loras: OrderedDict[str, int] = OrderedDict()
        """Bytes of those that are loaded, the latest used last."""
        self._acting = False
        """Whether any of them acts."""
        self._tokens: tuple[TextualInversion, ...] = ()
        self._ip_adapter: IpAdapter | None = None
        self._controlnets: OrderedDict[str, Any] = OrderedDict()

    def use_loras(self, wanted: Sequence[tuple[Lora, float]]) -> None:
        """Make exactly these LoRAs act, with these weights. Raises AdapterError."""
        for lora, _ in wanted:
            if lora.name not in self._loras:
                self._load_lora(lora)
            self._loras.move_to_end(lora.name)
        if wanted:
            self._pipe.set_adapters([_module_name(lora.name) for lora, _ in wanted], [weight for _, weight in wanted])
            self._drop_idle({lora.name for lora, _ in wanted})
        self._acting = bool(wanted)
        for module in self._modules():
            for layer in module.modules():
                if isinstance(layer, BaseTunerLayer):
                    layer.enable_adapters(enabled=self._acting)

    def use_textual_inversions(self, wanted: Sequence[TextualInversion]) -> None:
        """Make exactly these words known; any other text is read as text. Raises AdapterError."""
        if tuple(wanted) == self._tokens:
            return
        encoders = [
            ("clip_l", self._pipe.tokenizer, self._pipe.text_encoder),
            ("clip_g", self._pipe.tokenizer_2, self._pipe.text_encoder_2),
        ]
        encoders = [encoder for encoder in encoders if encoder[2] is not None]
        for key, tokenizer, text_encoder in encoders:
            if self._tokens:
                tokens = [inversion.token for inversion in self._tokens]
                self._pipe.unload_textual_inversion(tokens=tokens, tokenizer=tokenizer, text_encoder=text_encoder)
            for inversion in wanted:
                try:
                    vectors = _vectors(inversion, self._models)[key]
                    self._pipe.load_textual_inversion(
                        vectors, token=inversion.token, tokenizer=tokenizer, text_encoder=text_encoder
                    )
                except (KeyError, ValueError, RuntimeError, OSError) as error:
                    raise _misfit(inversion, error) from error
        self._tokens = tuple(wanted)

    def use_ip_adapter(self, wanted: IpAdapter | None, scale: float) -> None:
        """Make exactly this IP-Adapter act, with this scale. Raises AdapterError."""
        if wanted != self._ip_adapter:
            if self._ip_adapter is not None:
                self._pipe.unload_ip_adapter()
                self._ip_adapter = None
            if wanted is not None:
                folder, file = wanted.located(self._models)
                try:
                    # Not left to load_ip_adapter, which would take a pickled encoder as well.
                    encoder = _image_encoder(folder, wanted, self._pipe.dtype).to(self._pipe.device)
                    self._pipe.register_modules(image_encoder=encoder)
                    self._pipe.load_ip_adapter(folder, subfolder=wanted.subfolder, weight_name=file)
                except (KeyError, ValueError, RuntimeError, OSError) as error:
                    raise _misfit(wanted, error) from error
                self._ip_adapter = wanted
        if wanted is not None:
            self._pipe.set_ip_adapter_scale(scale)

    def choose_projections(self) -> None:
        """Fused projections where the UNet has them, single ones while a LoRA acts: its matrices belong to these."""
        if not self._fused:
            return
        wanted = AttnProcessor2_0 if self._acting else FusedAttnProcessor2_0
        # Those of an IP-Adapter are its own.
        other = FusedAttnProcessor2_0 if self._acting else AttnProcessor2_0
        processors = self._pipe.unet.attn_processors
        if any(type(processor) is other for processor in processors.values()):
            self._pipe.unet.set_attn_processor(
                {name: wanted() if type(one) is other else one for name, one in processors.items()}
            )

    def image_embeds(self, pictures: Sequence[Image.Image], *, guided: bool) -> list[torch.Tensor]:
        """``ip_adapter_image_embeds`` for a call that renders n images, each of which follows its own picture.

        One tensor for the one adapter: (n, 1, d) or (n, 1, tokens, d), as the adapter reads pictures; when ``guided``
        n negative rows come before. Each picture is encoded alone, so that it does not depend on its batch. The
        pipeline must have been told to ``take_embeds_as_given``.
        """
        prepare = type(self._pipe).prepare_ip_adapter_image_embeds
        alone = [prepare(self._pipe, [picture], None, self._pipe.device, 1, guided)[0] for picture in pictures]
        if not guided:
            return [torch.cat(alone)]
        return [torch.cat([rows[:1] for rows in alone] + [rows[1:] for rows in alone])]

    def controlnets(self, wanted: Sequence[ControlNet], dtype: torch.dtype) -> list[Any]:
        """These ControlNets, loaded on the pipeline's device. Raises AdapterError."""
        for entry in wanted:
            if entry.name not in self._controlnets:
                path, _ = entry.located(self._models)
                try:
                    net = ControlNetModel.from_pretrained(
                        path, dtype=dtype, variant=entry.variant, use_safetensors=True
                    )
                except (ValueError, RuntimeError, OSError) as error:
                    raise _misfit(entry, error) from error
                self._controlnets[entry.name] = net.to(self._pipe.device)
            self._controlnets.move_to_end(entry.name)
        while len(self._controlnets) > max(MAX_CONTROLNETS, len(wanted)):
            self._controlnets.popitem(last=False)
        return [self._controlnets[entry.name] for entry in wanted]

    def _load_lora(self, lora: Lora) -> None:
        folder, file = lora.located(self._models)
        name = _module_name(lora.name)
        try:
            weights, _ = self._pipe.lora_state_dict(
                folder, weight_name=file, use_safetensors=True, unet_config=self._pipe.unet.config
            )
            self._pipe.load_lora_weights(folder, weight_name=file, adapter_name=name, use_safetensors=True)
            found = self._matrices(name)
            # Of those that did not find their layer diffusers only writes to its log.
            wanted = sum("lora" in key and key.endswith(".weight") for key in weights)
            if not wanted or len(found) != wanted:
                raise ValueError(f"only {len(found)} of its {wanted} matrices have a layer here")
        except (KeyError, ValueError, RuntimeError, OSError, SafetensorError) as error:
            self._pipe.delete_adapters(name)
            raise _misfit(lora, error) from error
        self._loras[lora.name] = sum(matrix.numel() * matrix.element_size() for matrix in found)

    def _drop_idle(self, in_use: Collection[str]) -> None:
        """Drop the LoRAs that were longest out of use, while all together take more than their memory."""
        for name in [name for name in self._loras if name not in in_use]:
            if sum(self._loras.values()) <= LORA_MEMORY:
                return
            self._pipe.delete_adapters(_module_name(name))
            del self._loras[name]

    def _modules(self) -> list[torch.nn.Module]:
        parts = (self._pipe.unet, self._pipe.text_encoder, self._pipe.text_encoder_2)
        return [module for module in parts if module is not None]

    def _matrices(self, name: str) -> list[torch.Tensor]:
        """The matrices of a LoRA in the modules that know it as ``name``."""
        return [
            weight
            for module in self._modules()
            for key, weight in module.named_parameters()
            if ".lora_" in key and f".{name}." in key
        ]


def _image_encoder(folder: str, adapter: IpAdapter, dtype: torch.dtype) -> torch.nn.Module:
    named = adapter.image_encoder_folder
    # diffusers' rule for where it stands.
    subfolder = named if "/" in named else (PurePosixPath(adapter.subfolder) / named).as_posix()
    encoder: torch.nn.Module = CLIPVisionModelWithProjection.from_pretrained(
        folder, subfolder=subfolder, dtype=dtype, use_safetensors=True
    )
    return encoder


def _vectors(inversion: TextualInversion, models_directory: Path) -> dict[str, torch.Tensor]:
    from huggingface_hub import hf_hub_download
    from safetensors.torch import load_file

    folder, file = inversion.located(models_directory)
    if file is None:
        raise ValueError("it has no weight_name")
    local = Path(folder) / file
    return load_file(local if local.is_file() else hf_hub_download(folder, file))


def _module_name(name: str) -> str:
    """Names of modules have no dots."""
    return name.replace(".", "_")


def _misfit(entry: Adapter, error: object) -> AdapterError:
    kind = type(entry).__name__
    return AdapterError(
        f"{kind} {entry.name} cannot be used: it is not there, or was made for another architecture ({error}). "
        f"Correct its path or its pipelines in the catalog."
    )
