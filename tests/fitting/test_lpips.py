from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from gafcore.errors import InputError, MissingError
from gafcore.fitting.lpips import expected_shapes, load_lpips


def vgg16_features() -> nn.Sequential:
    """VGG16's configuration D (Simonyan and Zisserman 2015, table 1), numbered as torchvision numbers it."""
    layers: list[nn.Module] = []
    previous = 3
    for item in (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M"):
        if item == "M":
            layers.append(nn.MaxPool2d(2, 2))
            continue
        layers += [nn.Conv2d(previous, item, 3, padding=1), nn.ReLU()]
        previous = item
    return nn.Sequential(*layers)


class Oracle(nn.Module):
    """LPIPS written module by module, in double precision, as its paper's equation 1 and released network describe it."""

    taps = (3, 8, 15, 22, 29)

    def __init__(self) -> None:
        super().__init__()
        self.features = vgg16_features()
        for i, channels in enumerate((64, 128, 256, 512, 512)):
            lin = nn.Module()
            lin.model = nn.Sequential(nn.Dropout(), nn.Conv2d(channels, 1, 1, bias=False))
            setattr(self, f"lin{i}", lin)

    def forward(self, x, y):
        shift, scale = torch.tensor([-0.030, -0.088, -0.188]).double(), torch.tensor([0.458, 0.448, 0.450]).double()
        x, y = (((2 * z - 1 - shift) / scale).permute(0, 3, 1, 2) for z in (x.double(), y.double()))
        total = 0
        for i, layer in enumerate(self.features):
            x, y = layer(x), layer(y)
            if i in self.taps:
                a, b = (z / z.norm(dim=1, keepdim=True).clamp(min=1e-10) for z in (x, y))
                total = total + getattr(self, f"lin{self.taps.index(i)}").model((a - b) ** 2).mean((1, 2, 3))
        return total


@pytest.fixture(scope="module")
def oracle() -> Oracle:
    torch.manual_seed(0)
    model = Oracle().double().eval()
    with torch.no_grad():
        for i in range(5):
            getattr(model, f"lin{i}").model[1].weight.abs_()
    return model


def state(oracle: Oracle) -> dict[str, torch.Tensor]:
    return {k: v.float().contiguous() for k, v in oracle.state_dict().items()}


def pictures() -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(1)
    return torch.rand(2, 33, 40, 3, generator=g), torch.rand(2, 33, 40, 3, generator=g)


def test_distance_and_gradient_match_the_oracle(oracle, tmp_path):
    save_file(state(oracle), tmp_path / "w.safetensors")
    lpips = load_lpips(tmp_path / "w.safetensors")
    x, y = pictures()
    x.requires_grad_()
    got = lpips(x, y)
    (grad,) = torch.autograd.grad(got.sum(), x)
    want = oracle(x, y)
    (want_grad,) = torch.autograd.grad(want.sum(), x)
    torch.testing.assert_close(got.double(), want, rtol=2e-5, atol=1e-7)
    torch.testing.assert_close(grad, want_grad, rtol=1e-2, atol=1e-3 * float(want_grad.abs().max()))
    assert float(lpips(x, x).detach().abs().max()) == 0


def test_weights_in_two_pickles_in_a_folder(oracle, tmp_path):
    """torchvision's file of VGG16 (with its classifier) beside the lpips package's own few weights."""
    weights = state(oracle)
    torch.save(
        {k: v for k, v in weights.items() if k.startswith("features")} | {"classifier.0.bias": torch.zeros(1)}, tmp_path / "vgg16.pth"
    )
    torch.save({k: v for k, v in weights.items() if k.startswith("lin")}, tmp_path / "vgg.pth")
    x, y = pictures()
    torch.testing.assert_close(load_lpips(tmp_path)(x, y).double(), oracle(x, y), rtol=2e-5, atol=1e-7)


def test_a_whole_lpips_model(oracle, tmp_path):
    slices = {n: i + 1 for i, block in enumerate(((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))) for n in block}
    weights = {}
    for name, x in state(oracle).items():
        parts = name.split(".")
        weights[f"net.slice{slices[int(parts[1])]}.{parts[1]}.{parts[2]}" if parts[0] == "features" else name] = x
    torch.save(weights, tmp_path / "lpips.pt")
    assert set(load_lpips(tmp_path / "lpips.pt").weights) == set(expected_shapes())


def test_messages_say_what_is_wrong(oracle, tmp_path):
    with pytest.raises(MissingError, match="no such file or folder"):
        load_lpips(tmp_path / "gone.pth")
    with pytest.raises(MissingError, match="holds no weight file"):
        load_lpips(tmp_path)
    weights = state(oracle)
    del weights["lin3.model.1.weight"]
    torch.save(weights, tmp_path / "w.pth")
    with pytest.raises(InputError, match=r"'lin3.model.1.weight' is missing"):
        load_lpips(tmp_path / "w.pth")
    torch.save(weights | {"lin3.model.1.weight": torch.zeros(1, 3, 1, 1)}, tmp_path / "w.pth")
    with pytest.raises(InputError, match=r"'lin3.model.1.weight' must be \[1, 512, 1, 1\], got \[1, 3, 1, 1\]"):
        load_lpips(tmp_path / "w.pth")
    (tmp_path / "w.pth").write_bytes(b"not weights")
    with pytest.raises(InputError, match="w.pth: not readable as weights"):
        load_lpips(tmp_path)
    torch.save([1, 2], tmp_path / "w.pth")
    with pytest.raises(InputError, match="must hold a dictionary of tensors, got list"):
        load_lpips(tmp_path / "w.pth")


def test_code_in_a_pickle_is_not_run(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    torch.save({"features.0.weight": Bomb()}, tmp_path / "w.pth")
    with pytest.raises(InputError, match="not readable as weights"):
        load_lpips(tmp_path / "w.pth")
    assert not (tmp_path / "ran").exists()
