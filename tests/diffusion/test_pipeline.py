"""The pipeline by the checks that diffusers makes of its own: batches, saving, half precision, callbacks, offloading, formats."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("diffusers", reason="the extra `diffusion` is not installed")
from gafcore.diffusion.encode import encode_pixels
from gafcore.diffusion.pipeline import MultiViewHeadPipeline

SIZE, VIEWS = 16, 4


@pytest.fixture
def pipeline(tiny_parts):
    def make(**parts):
        pipe = MultiViewHeadPipeline(**tiny_parts(**parts))
        pipe.set_progress_bar_config(disable=True)
        return pipe

    return make


def call_inputs(n_heads: int | None = None, seed: int = 0, **changes):
    g = torch.Generator().manual_seed(seed)
    lead = () if n_heads is None else (n_heads,)
    image = torch.rand(*lead, 3, SIZE, SIZE, generator=g)
    normals = torch.nn.functional.normalize(torch.randn(*lead, VIEWS, 3, SIZE, SIZE, generator=g), dim=-3)
    generators = torch.Generator().manual_seed(7) if n_heads is None else [torch.Generator().manual_seed(7 + i) for i in range(n_heads)]
    return dict(image=image, normal_maps=normals, generator=generators, num_inference_steps=3, output_type="pt") | changes


def test_shapes_and_formats(pipeline):
    pipe = pipeline()
    pt = pipe(**call_inputs()).images
    assert pt.shape == (VIEWS, 3, 2 * SIZE, 2 * SIZE) and float(pt.min()) >= 0 and float(pt.max()) <= 1
    assert pipe(**call_inputs(), upsample=False).images.shape == (VIEWS, 3, SIZE, SIZE)
    assert pipe(**call_inputs(output_type="latent"), upsample=False).images.shape == (VIEWS, 4, 8, 8)
    array = pipe(**call_inputs(output_type="np")).images
    np.testing.assert_array_equal(array, pt.permute(0, 2, 3, 1).numpy())
    images = pipe(**call_inputs(output_type="pil")).images
    assert [im.size for im in images] == [(2 * SIZE, 2 * SIZE)] * VIEWS
    np.testing.assert_allclose(np.asarray(images[1]) / 255, array[1], atol=0.5 / 255 + 1e-6)
    assert torch.equal(pipe(**call_inputs(), return_dict=False)[0], pt)


@pytest.mark.parametrize("mode", ["frame", "reference"])
def test_a_head_in_a_batch_is_the_head_alone(mode, pipeline):
    pipe = pipeline(input_mode=mode)
    inputs = call_inputs(2)
    both = pipe(**inputs).images
    assert both.shape[:2] == (2, VIEWS)
    for i in range(2):
        one = inputs | dict(image=inputs["image"][i], normal_maps=inputs["normal_maps"][i], generator=torch.Generator().manual_seed(7 + i))
        torch.testing.assert_close(pipe(**one).images, both[i], atol=2e-5, rtol=0)


def test_saved_and_loaded(pipeline, tmp_path):
    pipe = pipeline()
    pipe.save_pretrained(tmp_path)
    loaded = MultiViewHeadPipeline.from_pretrained(tmp_path)
    loaded.set_progress_bar_config(disable=True)
    assert torch.equal(loaded(**call_inputs()).images, pipe(**call_inputs()).images)


def test_upsampler_is_optional(pipeline, tmp_path):
    pipe = pipeline(upsampler=False)
    pipe.save_pretrained(tmp_path)
    loaded = MultiViewHeadPipeline.from_pretrained(tmp_path)
    loaded.set_progress_bar_config(disable=True)
    assert loaded.upsampler is None
    out = loaded(**call_inputs()).images
    assert out.shape[-1] == SIZE and torch.equal(out, pipe(**call_inputs()).images)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype, pipeline, tmp_path):
    pipe = pipeline(input_mode="reference")
    full = pipe(**call_inputs(), upsample=False, guidance_scale=1.0).images
    pipe.save_pretrained(tmp_path)
    half = MultiViewHeadPipeline.from_pretrained(tmp_path, torch_dtype=dtype)
    half.set_progress_bar_config(disable=True)
    assert half.unet.dtype == dtype
    out = half(**call_inputs(), upsample=False, guidance_scale=1.0).images
    assert float((out - full).abs().mean()) < (0.002 if dtype == torch.float16 else 0.02)
    assert half(**call_inputs()).images.isfinite().all()


def test_callback_sees_and_changes_every_step(pipeline):
    pipe, seen = pipeline(), []

    def watch(p, i, t, tensors):
        seen.append((i, t, tensors["latents"].shape))

    plain = pipe(**call_inputs(), callback_on_step_end=watch).images
    assert [(i, t) for i, t, _ in seen] == [(0, 999), (1, 666), (2, 333)]
    assert seen[0][2] == (1, VIEWS, 4, 8, 8)
    assert torch.equal(plain, pipe(**call_inputs()).images)

    def zero_at_the_end(p, i, t, tensors):
        return {"latents": torch.zeros_like(tensors["latents"]) if i == 2 else tensors["latents"]}

    latents = pipe(**call_inputs(output_type="latent"), upsample=False, callback_on_step_end=zero_at_the_end).images
    assert not latents.any()
    with pytest.raises(ValueError, match="may be latents, got prompt"):
        pipe(**call_inputs(), callback_on_step_end=watch, callback_on_step_end_tensor_inputs=["prompt"])


def test_offload_order_names_every_part(pipeline):
    pipe = pipeline()
    modules = {name for name, part in pipe.components.items() if isinstance(part, torch.nn.Module)}
    assert set(pipe.model_cpu_offload_seq.split("->")) == modules


def test_offload_hooks_need_only_forward(pipeline, monkeypatch):
    """Offloading hooks sit on `forward`: a part whose other methods ran first would still be on the CPU then."""
    from accelerate.hooks import ModelHook, add_hook_to_module

    pipe, ran = pipeline(input_mode="reference"), []

    class Note(ModelHook):
        def pre_forward(self, module, *args, **kwargs):
            ran.append(type(module).__name__)
            return args, kwargs

    want = pipe(**call_inputs()).images
    for name in ("unet", "upsampler", "image_encoder"):
        add_hook_to_module(getattr(pipe, name), Note())
    original = pipe.unet.make_references
    monkeypatch.setattr(pipe.unet, "make_references", lambda c: ran.append("references") or original(c))
    assert torch.equal(pipe(**call_inputs()).images, want)
    assert ran.index("MultiViewUNet") < ran.index("references") and ran.count("references") == 1


def test_progress_bar(pipeline, capsys):
    pipe = pipeline()
    pipe.set_progress_bar_config()
    pipe(**call_inputs())
    assert "3/3" in capsys.readouterr().err
    pipe.set_progress_bar_config(disable=True)
    pipe(**call_inputs())
    assert "3/3" not in capsys.readouterr().err


def test_pictures_may_come_as_pil_or_arrays(pipeline):
    pipe, inputs = pipeline(upsampler=False), call_inputs()
    levels = (255 * inputs["image"]).round()
    encoded = (255 * (inputs["normal_maps"] + 1) / 2).round()
    as_pil = inputs | dict(
        image=Image.fromarray(levels.permute(1, 2, 0).byte().numpy()),
        normal_maps=[Image.fromarray(n.permute(1, 2, 0).byte().numpy()) for n in encoded],
    )
    as_arrays = inputs | dict(
        image=(levels / 255).permute(1, 2, 0).numpy(), normal_maps=(2 * encoded / 255 - 1).permute(0, 2, 3, 1).numpy()
    )
    as_pil["generator"] = torch.Generator().manual_seed(7)
    torch.testing.assert_close(pipe(**as_pil).images, pipe(**as_arrays).images, atol=1e-6, rtol=0)


@pytest.mark.parametrize("strength, steps", [(0.02, 1), (0.04, 2), (0.045, 3), (0.5, 25), (1.0, 50)])
def test_steps_from_a_render(strength, steps, pipeline, monkeypatch):
    pipe, times = pipeline(upsampler=False), []
    renders = torch.rand(VIEWS, 3, SIZE, SIZE)
    monkeypatch.setattr(pipe, "denoise", lambda x, t, prepared, guidance_scale: torch.zeros_like(x))
    pipe(
        **call_inputs(num_inference_steps=50, output_type="latent"), renders=renders, strength=strength,
        callback_on_step_end=lambda p, i, t, x: times.append(t),
    )  # fmt: skip
    assert len(times) == steps and times[0] == min(999, round(1000 * strength))
    assert [a - b for a, b in itertools.pairwise(times)] == [20] * (steps - 1)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("strength", [0.04, 0.333, 0.98])
def test_an_oracle_network_gives_the_render_back(prediction, strength, pipeline, monkeypatch):
    """GAF's loop with a network that knows the clean latents: what comes out is what was noised, also from multiples of 20."""
    pipe = pipeline(upsampler=False, prediction=prediction)
    renders = torch.rand(VIEWS, 3, SIZE, SIZE)
    clean = encode_pixels(pipe.vae, 2 * renders[None] - 1).double()
    schedule = pipe.schedule

    def oracle(x, t, prepared, guidance_scale):
        a = schedule.alphas_cumprod[t]
        return schedule.target(clean, (x.double() - a.sqrt() * clean) / (1 - a).sqrt(), t).to(x)

    monkeypatch.setattr(pipe, "denoise", oracle)
    out = pipe(**call_inputs(num_inference_steps=50, output_type="latent"), renders=renders, strength=strength).images
    torch.testing.assert_close(out.double(), clean[0].detach(), atol=2e-4, rtol=0)


def test_guidance_extrapolates_from_the_dropped_picture(pipeline):
    pipe = pipeline(upsampler=False)
    inputs = call_inputs()
    prepared = pipe.prepare(inputs["image"][None], inputs["normal_maps"][None])
    x = torch.randn(1, VIEWS, 4, 8, 8)
    one, three = pipe.denoise(x, 500, prepared, 1.0), pipe.denoise(x, 500, prepared, 3.0)
    none = pipe.denoise(x, 500, prepared, 0.0)
    torch.testing.assert_close(three, none + 3 * (one - none), atol=1e-5, rtol=1e-5)
    assert float((one - none).abs().max()) > 1e-4


def test_same_generator_same_picture_at_any_thread_count(pipeline, threads):
    pipe, outs = pipeline(), []
    for n in (1, 2):
        threads(n)
        outs.append(pipe(**call_inputs()).images)
    torch.testing.assert_close(outs[0], outs[1], atol=1e-5, rtol=0)
    assert not torch.equal(outs[0], pipe(**call_inputs(generator=torch.Generator().manual_seed(8))).images)


@pytest.mark.parametrize("condition", ["warp", "pose", "none"])
def test_other_conditions(condition, pipeline):
    pipe = pipeline(condition=condition, upsampler=False)
    extras = dict(
        warp=torch.rand(VIEWS, 3, SIZE, SIZE), visibility=torch.ones(VIEWS, SIZE, SIZE), viewmats=torch.eye(4).repeat(VIEWS, 1, 1)
    )
    assert pipe(**call_inputs(), **extras).images.shape == (VIEWS, 3, SIZE, SIZE)
    if condition != "none":
        with pytest.raises(ValueError, match="conditioned on"):
            pipe(**call_inputs())


def test_wrong_calls_say_what_is_wrong(pipeline):
    pipe = pipeline()
    for changes, message in [
        (dict(strength=0.5), "renders and strength go together"),
        (dict(renders=torch.rand(4, 3, 16, 16), strength=1.5), r"strength must be in \(0, 1\], got 1.5"),
        (dict(output_type="tiff"), "output_type must be one of pil, np, pt, latent, got 'tiff'"),
        (dict(image=torch.rand(3, 12, 12)), "one size, a multiple of 4"),
        (dict(image="me.png"), "image must be a tensor, an array, PIL images"),
        (dict(normal_maps=torch.rand(3, 16, 16)), r"normal_maps must be \[N, 3, H, W\]"),
        (dict(latents=torch.rand(1, 4, 4, 4, 4)), r"latents must be \[1, 4, 4, 8, 8\]"),
        (dict(num_inference_steps=0), "num_inference_steps must be in 1..1000, got 0"),
    ]:
        with pytest.raises(ValueError, match=message):
            pipe(**(call_inputs() | changes))
