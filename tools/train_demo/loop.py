"""Training that can be stopped at any moment and goes on where it was: weights, their averages, optimizer, step."""

import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

#: Each step's weight in the averages that are kept in the end.
AVERAGE = 0.999
SAVE_SECONDS = 120.0
WARM_UP = 100
#: The rate is the same until this share of the steps is left, and then falls to nothing in a line: what was trained
#: to its end may be given more steps later, and goes on as if it had been meant so.
FALL = 0.2


class Training:
    """Modules that are trained together by AdamW for so many ``steps``."""

    def __init__(self, file: Path, modules: Mapping[str, nn.Module], steps: int, rate: float, seed: int) -> None:
        """What ``file`` holds is gone on with."""
        self.file, self.steps, self.rate = file, steps, rate
        self.step = 0
        self._seed = seed
        self._parameters = {
            f"{name}.{key}": parameter
            for name, module in modules.items()
            for key, parameter in module.named_parameters()
        }
        self._averages = {key: parameter.detach().clone() for key, parameter in self._parameters.items()}
        self._optimizer = torch.optim.AdamW(self._parameters.values(), lr=rate, betas=(0.9, 0.99), weight_decay=0.01)
        self._modules = modules
        if file.exists():
            self._load()

    def run(self, name: str, loss_of: Callable[[torch.Generator], torch.Tensor]) -> None:
        """Train to the end; ``loss_of`` makes one batch's loss from the randomness that it is given.

        Ctrl-C saves what there is.
        """
        if self.step >= self.steps:
            return
        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
        saved, smooth = time.monotonic(), math.nan
        with Progress(*columns) as progress:
            bar = progress.add_task(name, total=self.steps, completed=self.step)
            try:
                while self.step < self.steps:
                    value = self._take_step(loss_of)
                    smooth = value if math.isnan(smooth) else 0.99 * smooth + 0.01 * value
                    progress.update(bar, completed=self.step, description=f"{name}, loss {smooth:.4f}")
                    if time.monotonic() - saved > SAVE_SECONDS:
                        self._save()
                        saved = time.monotonic()
                        # Where there is no terminal, no bar is to be seen.
                        if not progress.console.is_terminal:
                            progress.console.print(f"{name}: {self.step} of {self.steps}, loss {smooth:.4f}")
            finally:
                self._save()

    def finish(self) -> None:
        """Give the modules the averages of their weights."""
        with torch.no_grad():
            for key, parameter in self._parameters.items():
                parameter.copy_(self._averages[key])

    def _take_step(self, loss_of: Callable[[torch.Generator], torch.Tensor]) -> float:
        """Returns the loss before it."""
        # By its number: what was stopped and went on saw the same batches as what was not.
        loss = loss_of(torch.Generator().manual_seed(self._seed * 1_000_003 + self.step))
        self._optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(self._parameters.values(), 1.0)
        for group in self._optimizer.param_groups:
            group["lr"] = self._rate()
        self._optimizer.step()
        self.step += 1
        self._average()
        return float(loss.detach())

    def _rate(self) -> float:
        warm = (self.step + 1) / WARM_UP
        fall = (self.steps - self.step) / (FALL * self.steps)
        return self.rate * min(1.0, warm, fall)

    @torch.no_grad()
    def _average(self) -> None:
        # At first the averages would remember the beginning for too long.
        keep = min(AVERAGE, (1 + self.step) / (10 + self.step))
        averages: list[torch.Tensor] = [*self._averages.values()]
        parameters: list[torch.Tensor] = [*self._parameters.values()]
        torch._foreach_lerp_(averages, parameters, 1 - keep)

    def _save(self) -> None:
        state = {"step": torch.tensor(self.step)}
        for key, parameter in self._parameters.items():
            state |= {f"weight.{key}": parameter.detach(), f"average.{key}": self._averages[key]}
            moments = self._optimizer.state.get(parameter, {})
            state |= {f"{kind}.{key}": moments[kind] for kind in ("exp_avg", "exp_avg_sq") if kind in moments}
        temporary = self.file.with_suffix(".part")
        self.file.parent.mkdir(parents=True, exist_ok=True)
        save_file({key: value.contiguous() for key, value in state.items()}, temporary)
        temporary.rename(self.file)

    @torch.no_grad()
    def _load(self) -> None:
        with safe_open(self.file, "pt") as state:
            self.step = int(state.get_tensor("step"))
            stored = set(state.keys())
            for key, parameter in self._parameters.items():
                parameter.copy_(state.get_tensor(f"weight.{key}"))
                self._averages[key].copy_(state.get_tensor(f"average.{key}"))
                # Of the first text encoder the last layer is not used: it has no gradients, and no moments.
                if f"exp_avg.{key}" in stored:
                    self._optimizer.state[parameter] = {
                        "step": torch.tensor(float(self.step)),
                        **{kind: state.get_tensor(f"{kind}.{key}") for kind in ("exp_avg", "exp_avg_sq")},
                    }
