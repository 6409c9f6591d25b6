"""The schedulers on offer, by name: which class of diffusers stands behind each, and what it can do.

Names are those that people know from the web UIs, as diffusers' own table maps them
(https://huggingface.co/docs/diffusers/api/schedulers/overview). Nothing here needs torch: the door checks with it.
"""

import re
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class Spacing(Enum):
    """How a class places its timesteps: what ``timestep_spacing`` is applied to."""

    STEPS = "n strides"
    """Euler, DDIM and their kin."""
    STEPS_AND_ONE = "n + 1 strides, the last left out"
    """Multistep solvers."""
    DISTILLED = "a choice of the 50 timesteps that the model was distilled for"


class SchedulerOptions(BaseModel):
    """Options of a scheduler, under diffusers' names; None leaves the checkpoint's own."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    timestep_spacing: Literal["leading", "linspace", "trailing"] | None = None
    use_karras_sigmas: bool | None = None
    use_exponential_sigmas: bool | None = None
    algorithm_type: Literal["dpmsolver++", "sde-dpmsolver++"] | None = None
    solver_order: int | None = Field(default=None, ge=1, le=3)
    solver_type: Literal["midpoint", "heun", "bh1", "bh2", "logrho"] | None = None
    lower_order_final: bool | None = None
    euler_at_final: bool | None = None
    final_sigmas_type: Literal["zero", "sigma_min"] | None = None
    rescale_betas_zero_snr: bool | None = None
    prediction_type: Literal["epsilon", "v_prediction"] | None = None
    clip_sample: bool | None = None
    set_alpha_to_one: bool | None = None

    def given(self) -> dict[str, Any]:
        """Those that are not None."""
        return self.model_dump(exclude_none=True)


@dataclass(frozen=True, slots=True)
class Scheduler:
    """One entry of the table."""

    name: str
    label: str
    """What the web UIs call it."""
    class_name: str
    """The class in diffusers."""
    spacing: Spacing = Spacing.STEPS
    fixed: dict[str, Any] = field(default_factory=dict)
    """Options that make the name what it is."""
    options: frozenset[str] = frozenset()
    """Options that may be given."""
    solver_types: frozenset[str] = frozenset()
    takes_timesteps: bool = False
    takes_sigmas: bool = False
    takes_eta: bool = False
    can_split: bool = True
    """Whether the refiner can take over in mid-schedule."""
    alone: bool = False
    """Whether its noise depends on the batch: then each image is rendered in a batch of its own."""
    max_steps: int = 1000


_SIGMAS = frozenset({"use_karras_sigmas", "use_exponential_sigmas"})
_COMMON = frozenset({"timestep_spacing", "prediction_type"})
_EULER = _COMMON | _SIGMAS | {"final_sigmas_type", "rescale_betas_zero_snr"}
_MULTISTEP = _COMMON | _SIGMAS | {"solver_order", "solver_type", "lower_order_final"}
_DPM = _MULTISTEP | {"algorithm_type", "euler_at_final", "final_sigmas_type", "rescale_betas_zero_snr"}
_DDIM = _COMMON | {"clip_sample", "rescale_betas_zero_snr"}
_DISTILLED = frozenset({"prediction_type", "clip_sample", "set_alpha_to_one", "rescale_betas_zero_snr"})
_TWO = frozenset({"midpoint", "heun"})
_SDE = {"algorithm_type": "sde-dpmsolver++"}
_KARRAS = {"use_karras_sigmas": True}


def _multistep(name: str, label: str, class_name: str, options: frozenset[str], **more: Any) -> Scheduler:
    return Scheduler(name, label, class_name, Spacing.STEPS_AND_ONE, options=options, **more)


def _dpm(name: str, label: str, fixed: dict[str, Any], options: frozenset[str]) -> Scheduler:
    return _multistep(
        name, label, "DPMSolverMultistepScheduler", options, fixed=fixed, solver_types=_TWO, takes_timesteps=True
    )


SCHEDULERS = {
    scheduler.name: scheduler
    for scheduler in (
        Scheduler("euler", "Euler", "EulerDiscreteScheduler", options=_EULER, takes_timesteps=True, takes_sigmas=True),
        Scheduler(
            "euler_a",
            "Euler a",
            "EulerAncestralDiscreteScheduler",
            options=_COMMON | {"rescale_betas_zero_snr"},
        ),
        _dpm("dpmpp_2m", "DPM++ 2M", {}, _DPM),
        _dpm("dpmpp_2m_karras", "DPM++ 2M Karras", _KARRAS, _DPM - _SIGMAS),
        _dpm("dpmpp_2m_sde", "DPM++ 2M SDE", _SDE, _DPM - {"algorithm_type"}),
        _dpm("dpmpp_2m_sde_karras", "DPM++ 2M SDE Karras", _SDE | _KARRAS, _DPM - _SIGMAS - {"algorithm_type"}),
        # Its Brownian tree draws one noise for the whole batch, from one seed.
        Scheduler("dpmpp_sde", "DPM++ SDE", "DPMSolverSDEScheduler", options=_COMMON | _SIGMAS, alone=True),
        Scheduler(
            "dpmpp_sde_karras",
            "DPM++ SDE Karras",
            "DPMSolverSDEScheduler",
            fixed=_KARRAS,
            options=_COMMON,
            alone=True,
        ),
        Scheduler("heun", "Heun", "HeunDiscreteScheduler", options=_COMMON | _SIGMAS, takes_timesteps=True),
        Scheduler("dpm2", "DPM2", "KDPM2DiscreteScheduler", options=_COMMON | _SIGMAS),
        Scheduler("dpm2_karras", "DPM2 Karras", "KDPM2DiscreteScheduler", fixed=_KARRAS, options=_COMMON),
        Scheduler("dpm2_a", "DPM2 a", "KDPM2AncestralDiscreteScheduler", options=_COMMON | _SIGMAS),
        Scheduler("lms", "LMS", "LMSDiscreteScheduler", options=_COMMON | _SIGMAS),
        Scheduler("lms_karras", "LMS Karras", "LMSDiscreteScheduler", fixed=_KARRAS, options=_COMMON),
        Scheduler("ddim", "DDIM", "DDIMScheduler", options=_DDIM | {"set_alpha_to_one"}, takes_eta=True),
        Scheduler("ddpm", "DDPM", "DDPMScheduler", options=_DDIM, takes_timesteps=True),
        _multistep(
            "unipc",
            "UniPC",
            "UniPCMultistepScheduler",
            _MULTISTEP | {"final_sigmas_type", "rescale_betas_zero_snr"},
            solver_types=frozenset({"bh1", "bh2"}),
        ),
        _multistep("deis", "DEIS", "DEISMultistepScheduler", _MULTISTEP, solver_types=frozenset({"logrho"})),
        # Its steps depend on how many were taken before: it cannot begin in the middle.
        Scheduler("pndm", "PLMS", "PNDMScheduler", fixed={"skip_prk_steps": True}, options=_COMMON, can_split=False),
        Scheduler(
            "lcm", "LCM", "LCMScheduler", Spacing.DISTILLED, options=_DISTILLED, takes_timesteps=True, max_steps=50
        ),
        Scheduler(
            "tcd",
            "TCD",
            "TCDScheduler",
            Spacing.DISTILLED,
            options=_DISTILLED,
            takes_timesteps=True,
            takes_eta=True,
            max_steps=50,
        ),
    )
}
#: What SDXL's checkpoints come with, and what ``scheduler: null`` is taken for when a schedule is counted.
SDXL_OWN = SCHEDULERS["euler"]


def normal_name(name: str) -> str:
    """The table's name for what people write: ``DPM++ 2M Karras``, ``EulerDiscreteScheduler``, ``Euler a``."""
    wanted = re.sub(r"[\s-]+", "_", name.strip().lower().replace("++", "pp"))
    for scheduler in SCHEDULERS.values():
        if scheduler.class_name.lower() == wanted and not scheduler.fixed:
            return scheduler.name
        if re.sub(r"[\s-]+", "_", scheduler.label.lower().replace("++", "pp")) == wanted:
            return scheduler.name
    return wanted
