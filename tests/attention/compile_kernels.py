"""Compiles every kernel for GPUs that need not be there; prints a line of JSON for each. test_compile.py runs it, uninterpreted."""

from __future__ import annotations

import json
import sys

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from gafcore.attention import kernels, launch

KERNELS = {
    "forward": (kernels.forward_kernel, {"HAS_REF": True}),
    "query_gradient": (kernels.query_gradient_kernel, {"HAS_REF": True}),
    "key_gradient": (kernels.key_gradient_kernel, {"IS_REF": True}),
}
NAMES = {torch.float16: "fp16", torch.bfloat16: "bf16", torch.float32: "fp32"}
WHOLE = ("n_batch", "n_heads", "n_queries", "n_keys", "n_ref")


def signature(kernel, dtype: torch.dtype, constants: dict) -> dict[str, str]:
    special = {"ref_index_ptr": "*i64", "lse_ptr": "*fp32", "delta_ptr": "*fp32", "softmax_scale": "fp32"}
    kinds = dict.fromkeys(constants, "constexpr") | special
    return {n: kinds.get(n, f"*{NAMES[dtype]}" if n.endswith("_ptr") else "i32") for n in kernel.arg_names}


def compile_for(arch: int, dtype: torch.dtype, head_dim: int, name: str) -> dict:
    kernel, flags = KERNELS[name]
    sizes = launch._sizes(head_dim, launch.default_blocks(head_dim, dtype))
    options = {key: sizes.pop(key) for key in ("num_warps", "num_stages")}
    constants = {key: value for key, value in (sizes | flags).items() if key in kernel.arg_names}
    kinds = signature(kernel, dtype, constants)
    number = kernel.arg_names.index
    aligned = [n for n, kind in kinds.items() if kind not in ("constexpr", "fp32") and n not in WHOLE]
    source = ASTSource(
        fn=kernel,
        signature=kinds,
        constexprs={(number(n),): value for n, value in constants.items()},
        attrs={(number(n),): [["tt.divisibility", 16]] for n in aligned},
    )
    made = triton.compile(source, target=GPUTarget("cuda", arch, 32), options=options)
    return dict(kernel=name, arch=arch, cubin=len(made.asm["cubin"]), shared=made.metadata.shared, wgmma="wgmma" in made.asm["ptx"])


if __name__ == "__main__":
    cases = [(80, torch.bfloat16, 64, "key_gradient"), (90, torch.float16, 128, "key_gradient")]
    for case in cases + [(90, torch.bfloat16, 64, name) for name in KERNELS]:
        print(json.dumps(compile_for(*case)))
    sys.exit(0)
