"""The small prior's training step as a CUDA graph."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from gafcore.diffusion.small.people import N_VIEWS
from gafcore.diffusion.small.resident import ResidentPeople
from gafcore.diffusion.small.timed import train_timed
from gafcore.diffusion.small.training import TrainConfig
from tests.cases.small_prior import TINY
from tests.kernels import gpu_obstacle

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(bool(gpu_obstacle()), reason=f"no GPU to run on: {gpu_obstacle()}")]


@pytest.mark.parametrize("condition", ["rig", "pose"])
@pytest.mark.parametrize("task", ["regression", "diffusion"])
def test_replayed_steps_are_the_eager_ones(tmp_path, capsys, task, condition):
    """The same weights but for rounding in bfloat16, after steps of which all but four are replayed."""
    rng, s = np.random.default_rng(0), 16
    shapes = {"image": (s, s, 4), "targets": (N_VIEWS, s, s, 4), "fill": (N_VIEWS, s, s, 3), "visibility": (N_VIEWS, s, s)}
    arrays = {name: rng.integers(0, 255, (4, *shape), dtype=np.uint8) for name, shape in shapes.items()}
    normals = {"image_normals": (s, s, 3), "normals": (N_VIEWS, s, s, 3)}
    arrays |= {name: rng.integers(-127, 127, (4, *shape), dtype=np.int8) for name, shape in normals.items()}
    arrays["placements"] = rng.normal(size=(4, N_VIEWS, 4)).astype(np.float32)
    weights = []
    for graph in (True, False):
        people = ResidentPeople(tmp_path, 4, torch.device("cuda"))
        people.add(arrays)
        path = tmp_path / f"{graph}.safetensors"
        config = TrainConfig(task=task, steps=30, batch=2, warmup=2, ema=0.5, network=replace(TINY, condition=condition))
        assert train_timed(people, config, path, 600, graph=graph) == 30
        weights.append(load_file(path))
    assert "no CUDA graph" not in capsys.readouterr().out
    if task == "regression":  # diffusion's noise is drawn elsewhere in a graph
        assert all(torch.allclose(x, weights[1][name], atol=5e-3) for name, x in weights[0].items())
    assert all(bool(x.isfinite().all()) for x in weights[0].values())
