"""Pictures and masks at another size."""

from __future__ import annotations

import numpy as np

from gafcore.tracking.models import import_opencv

_SHARP = 1.25  # shrinking by less than this, linear interpolation leaves nothing out that would be seen


def resized(x: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """`x` [h, w] or [h, w, C], C at most 4, at `size` (width, height): means where both sides shrink, else linear.

    Raises:
        MissingError: OpenCV is absent.
    """
    cv2, out, (width, height) = import_opencv(), x, size
    while out.shape[1] >= 2 * width and out.shape[0] >= 2 * height:  # several times as fast as any factor at once
        out = cv2.resize(out, (out.shape[1] // 2, out.shape[0] // 2), interpolation=cv2.INTER_AREA)
    if out.shape[1::-1] != size:
        factors = (out.shape[1] / width, out.shape[0] / height)
        shrinks = min(factors) >= 1 and max(factors) > _SHARP
        out = cv2.resize(out, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    return out.reshape(height, width, *x.shape[2:])
