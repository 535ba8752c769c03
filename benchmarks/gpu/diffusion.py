"""The full-size prior on a GPU: memory and time of a refresh. `python -m benchmarks.gpu.diffusion --out FILE.json`.

Stable Diffusion 2.1's sizes with random weights: what a refresh costs does not depend on what the weights say.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from benchmarks.gpu.facts import header
from benchmarks.gpu.measure import first_line
from gafcore.attention import use_backend
from gafcore.diffusion import LatentUpsampler, MultiViewHeadPipeline, MultiViewUNet
from gafcore.files import write_json

LEVELS = (0.02, 0.5, 0.98)  # t, as a share of the schedule: GAF draws it uniformly from the first to the last


def full_size(dtype: torch.dtype) -> MultiViewHeadPipeline:
    """GAF's models: SD 2.1's UNet and autoencoder, CLIP ViT-H/14, the upsampler."""
    with torch.device("cuda"):
        vae = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4, block_out_channels=(128, 256, 512, 512),
            layers_per_block=2, latent_channels=4, sample_size=512,
        )  # fmt: skip
        clip = CLIPVisionModelWithProjection(
            CLIPVisionConfig(hidden_size=1280, intermediate_size=5120, projection_dim=1024, num_hidden_layers=32, num_attention_heads=16,
                             patch_size=14, image_size=224, hidden_act="gelu")
        )  # fmt: skip
        unet, upsampler = MultiViewUNet(), LatentUpsampler()
    scheduler = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False)
    pipeline = MultiViewHeadPipeline(vae, clip, unet, scheduler, upsampler).to("cuda", dtype)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def seconds(call: Callable[[], Any], runs: int) -> list[float]:
    call()
    found = []
    for _ in range(runs):
        torch.cuda.synchronize()
        start = time.perf_counter()
        call()
        torch.cuda.synchronize()
        found.append(time.perf_counter() - start)
    return found


def measured(name: str, call: Callable[[], Any], runs: int = 3, **facts: object) -> dict[str, Any]:
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    try:
        found = seconds(call, runs)
    except Exception as error:
        return {"name": name, **facts, "error": first_line(error)}
    row = {"name": name, **facts, "median_s": statistics.median(found), "spread_s": max(found) - min(found)}
    row |= {"peak_gb": torch.cuda.max_memory_allocated() / 2**30, "runs": runs}
    print(row, flush=True)
    return row


def refresh_rows(pipeline: MultiViewHeadPipeline) -> Iterator[dict[str, Any]]:
    """A refresh: four views of 256 x 256 encoded, noised to t, denoised with guidance in strides of 20, upsampled, decoded at 512 x 512."""
    g = torch.Generator().manual_seed(0)
    image, renders = torch.rand(3, 256, 256, generator=g), torch.rand(4, 3, 256, 256, generator=g)
    normals = torch.nn.functional.normalize(torch.randn(4, 3, 256, 256, generator=g), dim=1)
    for graph, backend in ((False, "sdpa"), (True, "sdpa"), (True, "triton")):
        pipeline.enable_graphs() if graph else pipeline.disable_graphs()
        use_backend(backend)
        for level in LEVELS:
            call = lambda: pipeline(image, normals, renders, level, generator=torch.Generator().manual_seed(1), output_type="pt")  # noqa: B023, E731
            yield measured("refresh", call, attention=backend, graph=graph, strength=level, dtype=str(pipeline.unet.dtype))
    use_backend(None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    report = header("diffusion") | {"results": []}
    pipeline = full_size(torch.bfloat16)
    report["parameters"] = {
        k: sum(p.numel() for p in m.parameters()) for k, m in pipeline.components.items() if isinstance(m, torch.nn.Module)
    }
    for row in refresh_rows(pipeline):
        report["results"].append(row)
        write_json(args.out, report)  # after each, so that a run that is cut off leaves what it has
    write_json(args.out, report | {"complete": True})
    print(f"wrote {args.out}")


if __name__ == "__main__":
    main()
