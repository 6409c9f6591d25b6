"""Tensors between a device and the host: with a GPU by way of pinned memory, which the bus copies at its full rate."""

import torch


def to_host(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor on the CPU, in the memory format that it has."""
    if tensor.device.type != "cuda":
        return tensor.cpu()
    pinned = torch.empty_like(tensor, device="cpu", pin_memory=True)
    pinned.copy_(tensor, non_blocking=True)
    torch.cuda.current_stream(tensor.device).synchronize()
    return pinned


def to_device(tensor: torch.Tensor, device: str) -> torch.Tensor:
    """The tensor on the device; on its way there, in a GPU's order of work, when this returns."""
    if not device.startswith("cuda"):
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
