from __future__ import annotations

import json

import pytest
import torch

from gafcore.cli.main import main
from gafcore.errors import InputError
from gafcore.fitting import Execution, FitConfig, config, fit
from gafcore.fitting.execution import own_stream
from gafcore.native import has_cuda
from tests.cases.ball import ball_capture


def test_it_is_no_part_of_what_a_checkpoint_compares(tmp_path):
    capture, settings = ball_capture(), FitConfig(iterations=2)
    fit(capture, settings, out=tmp_path, progress=False, execution=Execution(device="cpu", picture_mb=7, graph=False))
    pointer = json.loads((tmp_path / "checkpoints" / "latest.json").read_text())
    assert not {"device", "picture_mb", "graph"} & {*pointer["config"], *config.to_json(settings)}
    again = fit(capture, settings, out=tmp_path, progress=False, resume=True, execution=Execution(device="cpu"))
    assert again.iterations == 0


def test_a_limit_below_zero_is_refused():
    with pytest.raises(InputError, match="picture_mb must be at least 0, got -1"):
        Execution(picture_mb=-1)


def test_on_the_cpu_there_is_no_stream():
    with own_stream(torch.device("cpu")):
        assert torch.zeros(1).device.type == "cpu"


@pytest.mark.skipif(has_cuda() and torch.cuda.is_available(), reason="a GPU can be used here")
def test_a_gpu_that_is_not_there_is_wrong_input(tmp_path, capsys):
    with pytest.raises(InputError, match="device cuda cannot be used"):
        fit(ball_capture(), FitConfig(iterations=1), execution=Execution(device="cuda"))
    for command in (
        ["fit", str(tmp_path), "--out", str(tmp_path / "x")],
        ["render", str(tmp_path), "--out", str(tmp_path / "x.mp4")],
        ["eval", str(tmp_path), str(tmp_path), "--out", str(tmp_path / "x")],
        ["demo", "--out", str(tmp_path / "x")],
    ):
        assert main([*command, "--device", "cuda"]) == 2
        assert "gafcore: device cuda cannot be used: " in capsys.readouterr().err
    assert not (tmp_path / "x").exists()
