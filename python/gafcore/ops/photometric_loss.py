"""L1 and structural similarity of two images, in one pass."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from gafcore.native import check, launch
from gafcore.ops.registry import apply, define, new_like, once, ordinary

_RADIUS_PX = 5  # kSsimRadius of csrc/math/ssim.h
_BORDER_PX = {"zeros": 0, "valid": _RADIUS_PX}

_forward_op = define(
    "photometric_loss(Tensor image, Tensor target, Tensor? mask, int border, bool needs_gradient) -> (Tensor, Tensor, Tensor, Tensor)"
)
_backward_op = define(
    "photometric_loss_backward(Tensor image, Tensor target, Tensor? mask, Tensor weights, Tensor ssim_gradient, Tensor v_l1, "
    "Tensor v_ssim) -> Tensor"
)


def _sizes(image: Tensor) -> dict[str, int]:
    height, width, channels = image.shape[-3:]
    return dict(n_images=image.shape[:-3].numel(), height=height, width=width, channels=channels)


@_forward_op.native
def _forward(image, target, mask, border, needs_gradient):
    image, target, mask = image.contiguous(), target.contiguous(), None if mask is None else mask.contiguous()
    l1, ssim, weights, ssim_gradient = _outputs(image, needs_gradient)
    launch(
        "photometric_loss_fwd",
        image,
        **_sizes(image),
        border=border,
        image=image,
        target=target,
        mask=mask,
        l1=l1,
        ssim=ssim,
        weights=weights,
        ssim_gradient=ssim_gradient,
    )
    return l1, ssim, weights, ssim_gradient


def _outputs(image: Tensor, needs_gradient: bool) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    new = image.new_empty
    return new(()), new(()), new(2), new_like(image) if needs_gradient else None


@_forward_op.fake
def _forward_fake(image, target, mask, border, needs_gradient):  # noqa: ARG001
    return _outputs(image, needs_gradient)


@_backward_op.native
def _backward(image, target, mask, weights, ssim_gradient, v_l1, v_ssim):
    image, target, mask = image.contiguous(), target.contiguous(), None if mask is None else mask.contiguous()
    weights, ssim_gradient, v_l1, v_ssim = weights.contiguous(), ssim_gradient.contiguous(), v_l1.contiguous(), v_ssim.contiguous()
    v_image = _backward_fake(image, target, mask, weights, ssim_gradient, v_l1, v_ssim)
    launch(
        "photometric_loss_bwd",
        image,
        **_sizes(image),
        border=0,
        image=image,
        target=target,
        mask=mask,
        weights=weights,
        ssim_gradient=ssim_gradient,
        v_l1=v_l1,
        v_ssim=v_ssim,
        v_image=v_image,
    )
    return v_image


@_backward_op.fake
def _backward_fake(image, target, mask, weights, ssim_gradient, v_l1, v_ssim):  # noqa: ARG001
    return new_like(image)


class _PhotometricLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx, eager, image, target, mask, border):
        l1, ssim, weights, ssim_gradient = _forward_op(image, target, mask, border, True, eager=eager)
        ctx.eager = eager
        ctx.save_for_backward(image, target, mask, weights, ssim_gradient)
        return l1, ssim

    @staticmethod
    @once
    def backward(ctx, v_l1, v_ssim):
        return None, _backward_op(*ctx.saved_tensors, v_l1, v_ssim, eager=ctx.eager and ordinary(v_l1, v_ssim)), None, None, None


def photometric_loss(
    image: Float[Tensor, "*B H W C"],
    target: Float[Tensor, "*B H W C"],
    mask: Float[Tensor, "*B H W"] | None = None,
    *,
    padding: Literal["zeros", "valid"] = "zeros",
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Mean absolute difference and mean structural similarity (SSIM) of images in 0..1.

    SSIM is Wang et al.'s (2004): a Gaussian window of 11 x 11 pixels, sigma 1.5; population covariances; c1 = 0.01^2, c2 = 0.03^2; each
    channel by itself; mean over pixels, channels and images. With "zeros" the images continue as zero outside, as in 3D Gaussian
    splatting's loss; with "valid" only windows within the image count, as in scikit-image.

    Args:
        image: Channels last, any number of channels.
        target: What `image` should be; constant, no gradient goes to it.
        mask: Weights of pixels, >= 0: both means become weighted ones. The SSIM of a pixel still looks at its whole window, so pixels just
            outside the mask count a little; composite both images onto one background where that is not wanted.
        padding: What SSIM does at the border.

    Returns:
        `(l1, ssim)`, differentiable in `image`. The loss of 3D Gaussian splatting is `0.8 * l1 + 0.2 * (1 - ssim)`. Where no pixel has
        weight they are 0 and 1, and the gradient is zero.

    Raises:
        ValueError: A shape, dtype or device does not fit, `padding` is unknown, or "valid" is asked of images smaller than the window.
    """
    if isinstance(image, Tensor) and image.dim() > 3:
        batch: tuple[int, ...] = tuple(image.shape[:-3])
    else:
        batch = ()
    sizes = check.tensor("image", image, (*batch, "H", "W", "C"))
    check.tensor("target", target, (*batch, "H", "W", "C"), sizes, like=image)
    if mask is not None:
        check.tensor("mask", mask, (*batch, "H", "W"), sizes, like=image)
    if padding not in _BORDER_PX:
        raise ValueError(f'padding must be "zeros" or "valid", got {padding!r}')
    border = _BORDER_PX[padding]
    if image.numel() and min(sizes["H"], sizes["W"]) <= 2 * border:
        raise ValueError(f'padding="valid" needs images of at least 11 x 11 pixels, got {sizes["H"]} x {sizes["W"]}')
    eager = ordinary(image, target, mask)
    if torch.is_grad_enabled() and image.requires_grad:
        return apply(_PhotometricLoss, eager, image, target, mask, border, eager=eager)
    l1, ssim, *_ = _forward_op(image, target, mask, border, False, eager=eager)
    return l1, ssim
