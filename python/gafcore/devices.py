"""Which device a command computes on, and what drawing reserves on a GPU."""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch

from gafcore.errors import InputError
from gafcore.native import cuda_obstacle, has_cuda
from gafcore.ops import pair_room, photometric_loss

DeviceName = Literal["auto", "cpu", "cuda"]


def cuda_missing() -> str:
    """What keeps gafcore from computing on a GPU here, and what to do about it; empty where nothing does."""
    if not has_cuda():
        return (
            "gafcore was compiled without CUDA; put nvcc (CUDA 12 or later) on PATH, or set CUDACXX to it, and install again: "
            "pip install --no-cache-dir . -C cmake.define.GAF_CUDA=ON (`gafcore doctor` says where to get nvcc)"
        )
    if obstacle := cuda_obstacle():
        return f"its CUDA kernels cannot run here: {obstacle}"
    if not torch.cuda.is_available():
        return f"there is a GPU, but torch {torch.__version__} does not see it; install a build of torch with CUDA"
    if reason := _refusal():
        name, (major, minor) = torch.cuda.get_device_name(), torch.cuda.get_device_capability()
        return f"its CUDA kernels do not run on {name} (sm_{major}{minor}): {reason}; install again on this machine"
    return ""


def resolve(name: str = "auto") -> torch.device:
    """The device of a name: "cpu", "cuda" (the current GPU), or "auto": the GPU where torch sees one and gafcore's kernels run on it.

    Raises:
        InputError: Another name, or a GPU is asked for and something is missing; the message says what, and what to do.
    """
    if name not in get_args(DeviceName):
        raise InputError(f"device must be one of {', '.join(get_args(DeviceName))}, got {name!r}")
    missing = "" if name == "cpu" else cuda_missing()
    if name == "cuda" and missing:
        raise InputError(f"device cuda cannot be used: {missing}; or go on with --device cpu")
    return torch.device("cpu") if name == "cpu" or missing else torch.device("cuda", torch.cuda.current_device())


def _refusal() -> str:
    """The first line of what a small kernel says on the current GPU, for example when it was not compiled for this architecture."""
    try:
        pixel = torch.zeros(1, 1, 1, device="cuda")
        photometric_loss(pixel, pixel)
        torch.cuda.synchronize()
    except torch.OutOfMemoryError:
        return ""  # kernels run there; what is full is said where memory is asked for
    except RuntimeError as error:
        return (str(error).splitlines() or [type(error).__name__])[0]
    return ""


def workspaces() -> list[dict[str, Any]]:
    """What `gafcore.rasterization` reserves on GPUs, a dict for each kind of frames that is remembered (the 64 used last).

    Returns:
        `device`, `n_cameras`, `n_gaussians`, `width` and `height` (pixels) say which frames. `capacity` is how many pairs of splats and
        tiles the next one gets room for, `n_pairs` how many an earlier one had, as last heard of. Of the last frame: `kept_bytes` from
        forward to backward (0 without gradients), `scratch_bytes` for the time of forward's kernels, and `backward_scratch_bytes` for that
        of backward's. Between frames all of it is in torch's cache. What CUDA graphs hold is not in it (`CompiledRenderer.report`).
    """
    return pair_room.report()


def free_workspaces() -> None:
    """Forget what is reserved for frames, and give torch's unused memory on the current GPU back to the driver.

    The next frame of each kind is waited for once, as its first was. Where a graph was captured it stays as it is.
    """
    pair_room.forget()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
