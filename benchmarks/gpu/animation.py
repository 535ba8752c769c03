"""Frames a second of an animated avatar: a moving face before a moving camera, from new numbers to a picture on the device."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from benchmarks.gpu.measure import Memory, Row, failed, row
from benchmarks.heads import bare_head, with_count
from gafcore.avatars import RiggedAvatar
from gafcore.cameras import from_angles
from gafcore.render import CompiledRenderer
from gafcore.types import Camera, RigParams

SIZES = {"512x512": (512, 512), "802x550": (550, 802), "768x768": (768, 768)}  # width, height
N_GAUSSIANS = (10_000, 50_000, 100_000, 300_000)
DEVICE = "cuda"
KINDS = ((False, False), (True, False), (True, True))  # graph, half-precision harmonics
MOMENTS = 64  # of the motion: cameras and poses differ from frame to frame
FRAMES, RUNS = 256, 7


def motion(avatar: RiggedAvatar, width: int, height: int) -> tuple[list[Camera], list[RigParams]]:
    """Cameras from side to side, expressions and jaws that open and close; on the avatar's device."""
    device, g = avatar.means.device, torch.Generator().manual_seed(0)
    cameras, poses = [], []
    for i in range(MOMENTS):
        turn = torch.tensor(2 * torch.pi * i / MOMENTS)
        camera = from_angles(0.5 * float(turn.sin()), 0.1, 1.0, focal_px=2.2 * min(width, height), width=width, height=height)
        cameras.append(camera.to(device))
        params = avatar.rig.neutral(1)
        expr = params.expr + 0.5 * torch.randn(params.expr.shape, generator=g).to(device)
        poses.append(replace(params, expr=expr, jaw_pose=params.jaw_pose + 0.1 * turn.cos().to(device)))
    return cameras, poses


def frames_a_second(draw: Callable[[int], Any], n: int = FRAMES) -> tuple[float, float]:
    """Median and interquartile range of whole runs of `n` by the wall clock, the device waited for at the end of each."""
    found = []
    for _ in range(RUNS):
        torch.cuda.synchronize()
        begin = time.perf_counter()
        for i in range(n):
            draw(i)
        torch.cuda.synchronize()
        found.append(n / (time.perf_counter() - begin))
    quarters = statistics.quantiles(found, n=4)
    return statistics.median(found), quarters[2] - quarters[0]


def animated_row(avatar: RiggedAvatar, size: str, graph: bool, half: bool) -> Row:
    """`median_ms` is the device's time of single frames; `frames_per_s` is counted by the host over many, Python included."""
    name = "animated avatar: skin, bind, draw"
    facts = dict(gaussians=len(avatar), size=size, graph=graph, half=half)
    width, height = SIZES[size]
    try:
        cameras, poses = motion(avatar, width, height)
        memory = Memory()
        renderer = CompiledRenderer(avatar, width, height, graph=graph, half=half)
        draw = lambda i: renderer([cameras[i % MOMENTS]], poses[i % MOMENTS])  # noqa: E731
        for i in range(MOMENTS):  # the room for pairs becomes known
            draw(i)
        found = row(name, lambda: draw(7), memory=memory, **facts)
        if "error" not in found:
            found["frames_per_s"], found["frames_per_s_iqr"] = frames_a_second(draw, FRAMES if graph else FRAMES // 8)
            print(f"    {found['frames_per_s']:.0f} frames a second", flush=True)
    except Exception as error:
        return failed(name, error, **facts)
    return found


def animation_rows() -> list[Row]:
    head = bare_head()
    avatars = (with_count(head, n).to(DEVICE) for n in N_GAUSSIANS)
    return [animated_row(avatar, size, graph, half) for avatar in avatars for size in SIZES for graph, half in KINDS]
