"""Full-size alpha by colour where the person mask is unsure, and pictures of the head without the old background's colour in its rim.

The network's mask is made at 256 px: hanging hair is off by up to a tenth of the face there, and differently in every frame. What it is
sure of, though, says what colours head and background have near by. A pixel between the two is alpha F + (1 - alpha) B with a local
foreground colour F and a local background colour B, so alpha is where it lies on the line from B to F. Where the two colours are hardly
further apart than each of them varies (clutter, hair as dark as the wall) that says nothing, and the network's probability stays.

A frame is worked on by itself: cameras may move. What is kept of it is the alpha of the head's box, packed, and the background's colour on
a grid a hundred times coarser: 40 kB a frame at 512 px, where floats for alpha and picture would be 4 MB. Keeping the colours and
evaluating alpha when a frame is asked for would keep no less (the colours of both sides, the mask and its limits), and the stage's figure
would not tell what it costs.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8

from gafcore.captures.video import Clip
from gafcore.progress import track as progress
from gafcore.tracking.detections import Detections
from gafcore.tracking.mask import HeadLimits
from gafcore.tracking.models import import_opencv
from gafcore.tracking.resize import resized
from gafcore.tracking.threads import as_they_come, one_thread, workers

# Lengths are in face sizes.
_INNER, _OUTER = 0.03, 0.10  # how far inside and outside of its edge the network's mask is not trusted
_BEYOND = 0.3  # width of the background about that from which colours are taken
_NEAR_F, _NEAR_B = 0.05, 0.10  # standard deviations of the smoothing of head and background; where there is nothing so near, 4 and 16 times
_FARTHER = 1e-3  # weight of each smoothing relative to the one before it

_SURE = 0.9  # probability of a sure person; 1 - this of sure background
_SEEN = 0.02  # of 1: least probability that the head's box contains
_APART = 12.0  # squared distance of F and B, in variances, at which colour and network count alike
_NOISE = 0.12  # of the way from B to F: colours so near to either end are that end's; more where colours vary ...
_MAX_NOISE = 0.7  # ... but both ends together take no more than this
_MIN_VARIANCE = 1e-4  # of colours in 0..1: noise of the camera
_FACE_PX, _MAX_PX = 64, 512  # regions are made at this size of the face, but no larger than this
_EVEN = 8  # the box's edges are multiples of this: halving is fast
_COARSE = 2  # colours are smoothed at a size smaller by this
_PACK_EFFORT = 1  # of 9: the higher ones save a twentieth and take twice as long


@dataclass(frozen=True)
class Matte:
    """The head in one frame of `size` (width, height). Nothing of it is outside of `box` (left, top, right, bottom), pixels.

    `packed` is the alpha in the box, nothing where the box is empty; `background` the local background's RGB x 255, and how far (x 255) it
    is to be believed.
    """

    size: tuple[int, int]
    box: tuple[int, int, int, int]
    packed: bytes
    background: UInt8[np.ndarray, "h w 4"]

    def alpha(self) -> UInt8[np.ndarray, "H W"]:
        """How much of a pixel is head, x 255."""
        left, top, right, bottom = self.box
        alpha = np.zeros(self.size[::-1], np.uint8)
        if self.packed:
            values = np.frombuffer(zlib.decompress(self.packed), np.uint8)
            alpha[top:bottom, left:right] = values.reshape(bottom - top, right - left)
        return alpha

    def composite(self, picture: UInt8[np.ndarray, "H W 3"], color: Sequence[float]) -> Float[np.ndarray, "H W 3"]:
        """The head of `picture` on `color` (0..1), float32. The old background is taken out of the colours of the rim."""
        cv2, alpha, beyond = import_opencv(), self.alpha(), np.asarray(color, np.float32)
        left, top, right, bottom = self.box
        image = cv2.copyTo(picture.astype(np.float32) / 255, alpha, np.broadcast_to(beyond, picture.shape).copy())
        if self.packed:
            within = image[top:bottom, left:right]
            soft = alpha[top:bottom, left:right]
            at = np.nonzero((soft > 0) & (soft < 255))
            a, mixed = soft[at][:, None].astype(np.float32) / 255, within[at]
            old = resized(self.background, (right - left, bottom - top))[at].astype(np.float32) / 255
            plain = a * mixed
            clean = np.clip(mixed - (1 - a) * old[:, :3], 0, a)  # alpha F, and F is a colour
            within[at] = plain + old[:, 3:] * (clean - plain) + (1 - a) * beyond
        return image


def head_mattes(clip: Clip, detections: Detections, limits: Sequence[HeadLimits]) -> list[Matte]:
    """One matte a frame of `detections`, frames side by side; `limits` are `mask.head_limits` of all of them.

    Raises:
        MissingError: OpenCV is absent.
    """
    import_opencv()
    sizes, person = face_sizes(detections), detections.person.numpy()

    def matte(item: tuple[int, np.ndarray]) -> Matte:
        t, picture = item
        return frame_matte(picture, person[t], limits[t], float(sizes[t]))

    frames = progress(range(len(detections)), f"{clip.name}: mattes")
    with one_thread(), workers(len(detections)) as pool:
        return list(as_they_come(pool, matte, ((t, clip.image(t)) for t in frames)))


def face_sizes(detections: Detections) -> Float[np.ndarray, "T"]:
    """The face's size in every frame, pixels; between its neighbours where there is no face."""
    found = np.flatnonzero(detections.found.numpy())
    landmarks = detections.landmarks[found].numpy()
    extent = np.nanmax(landmarks, axis=1) - np.nanmin(landmarks, axis=1)
    return np.interp(np.arange(len(detections)), found, np.sqrt(extent.prod(-1)))


def frame_matte(picture: UInt8[np.ndarray, "H W 3"], person: UInt8[np.ndarray, "h w"], limits: HeadLimits, face_px: float) -> Matte:
    """The matte of one frame. `person` is the network's probability x 255, of the same view; `face_px` is the face's size in `picture`."""
    cv2, (height, width) = import_opencv(), picture.shape[:2]
    box = _box(limits.apply(person), (width, height), (_OUTER + _BEYOND) * face_px)
    left, top, right, bottom = box
    full = (right - left, bottom - top)
    if not all(full):
        return Matte((width, height), (0, 0, 0, 0), b"", np.zeros((1, 1, 4), np.uint8))
    scale = min(1.0, _FACE_PX / max(face_px, 1.0), _MAX_PX / max(full))
    size = (max(1, round(full[0] * scale)), max(1, round(full[1] * scale)))
    crop = picture[top:bottom, left:right]
    within = lambda mask, to: _part(mask, box, (width, height), to)  # noqa: E731
    ceiling = within(limits.ceiling, size)
    head, wall = _sure(cv2.max(within(person, size), within(limits.floor, size)), face_px * scale)
    small = resized(crop, size).astype(np.float32) / 255
    far = face_px * scale / _COARSE
    weights, offset, believed, background = _colors(small, cv2.multiply(head, ceiling, scale=1 / 255), wall, ceiling, far)

    probability = within(person, full).astype(np.float32)
    alpha = _along(crop, resized(weights, full), resized(255 * offset, full))
    alpha -= probability  # in place, here and in `_along`: new arrays of this size cost as much as the sums
    alpha *= resized(believed, full)
    alpha += probability
    alpha = cv2.convertScaleAbs(alpha)  # rounds to 8 bits
    alpha = cv2.multiply(cv2.max(alpha, resized(head, full)), 255 - resized(wall, full), scale=1 / 255)
    alpha = cv2.max(cv2.multiply(alpha, within(limits.ceiling, full), scale=1 / 255), within(limits.floor, full))
    return Matte((width, height), box, zlib.compress(alpha.tobytes(), _PACK_EFFORT), background)


def _box(head: np.ndarray, size: tuple[int, int], margin_px: float) -> tuple[int, int, int, int]:
    """The part of a picture of `size` (width, height) that holds all of the head mask and a margin."""
    seen = head > _SEEN * 255
    if not seen.any():
        return 0, 0, 0, 0
    edges = []
    for axis, n in ((0, size[0]), (1, size[1])):
        at, px = np.flatnonzero(seen.any(axis)), n / seen.shape[1 - axis]
        low, high = at[0] * px - margin_px, (at[-1] + 1) * px + margin_px
        edges.append((max(0, int(low // _EVEN) * _EVEN), min(n, int(-(-high // _EVEN)) * _EVEN)))
    (left, right), (top, bottom) = edges
    return left, top, right, bottom


def _part(mask: np.ndarray, box: tuple[int, int, int, int], size: tuple[int, int], to: tuple[int, int]) -> UInt8[np.ndarray, "h w"]:
    """`box` of a mask (of a picture of `size`) at the size `to`."""
    cv2 = import_opencv()
    (left, top, right, bottom), (height, width) = box, mask.shape
    px, py = width / size[0], height / size[1]
    sx, sy = (right - left) / to[0] * px, (bottom - top) / to[1] * py
    place = np.array([[sx, 0, 0.5 * sx + left * px - 0.5], [0, sy, 0.5 * sy + top * py - 0.5]])  # pixel centres are at +0.5
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(mask, place, to, flags=flags, borderMode=cv2.BORDER_REPLICATE).reshape(to[::-1])


def _sure(person: UInt8[np.ndarray, "h w"], face_px: float) -> tuple[UInt8[np.ndarray, "h w"], UInt8[np.ndarray, "h w"]]:
    """Where there are surely people and surely none, 0 or 255."""
    cv2 = import_opencv()
    disc = lambda r: cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * r + 1, 2 * r + 1))  # noqa: E731
    inner, outer = max(1, round(_INNER * face_px)), max(2, round(_OUTER * face_px))
    head = cv2.erode(np.where(person > _SURE * 255, np.uint8(255), np.uint8(0)), disc(inner))
    near = cv2.dilate(np.where(person > (1 - _SURE) * 255, np.uint8(255), np.uint8(0)), disc(outer))
    return head, 255 - near


def _colors(
    picture: np.ndarray, head: np.ndarray, wall: np.ndarray, ceiling: np.ndarray, face_px: float
) -> tuple[Float[np.ndarray, "h w 3"], Float[np.ndarray, "h w"], Float[np.ndarray, "h w"], UInt8[np.ndarray, "h w 4"]]:
    """Local colours of head and wall, coarser than `picture`, as what alpha and compositing need of them.

    First the weights w and offset c with which alpha = w . color + c, and how far (0..1) to believe that; then the wall's colour, and how
    far to believe that. `face_px` is the face's size in what is returned.
    """
    cv2 = import_opencv()
    square = cv2.transform(picture * picture, np.ones((1, 3), np.float32)).reshape(head.shape)
    front = _local(picture, square, head, _NEAR_F * face_px)
    back = _local(picture, square, wall, _NEAR_B * face_px)
    # A wall that is plain here but not a little further is not to be relied upon behind the head. Heads are not plain, and are nearer.
    back_variance = np.maximum(back.variance, back.wide_variance)
    line = front.mean - back.mean
    apart = np.einsum("hwc,hwc->hw", line, line)
    ratio = apart / (front.variance + back_variance + _MIN_VARIANCE)
    believed = np.where(front.seen & back.seen, ratio / (ratio + _APART), np.float32(0))
    front_end, back_end = _ends(front.variance, back_variance, apart + _MIN_VARIANCE)
    between = 1 - front_end - back_end
    weights = line / (between * (apart + _MIN_VARIANCE))[..., None]
    offset = -np.einsum("hwc,hwc->hw", weights, back.mean) - back_end / between
    # Where the limits thin the head out, its colour holds nothing of the wall. A grid point reaches as far as the next one.
    whole = cv2.erode(np.where(ceiling == 255, np.float32(1), np.float32(0)), np.ones((3 * _COARSE + 1,) * 2, np.uint8))
    background = np.concatenate([np.clip(back.mean, 0, 1), (believed * resized(whole, believed.shape[::-1]))[..., None]], -1)
    return weights, offset, believed, (background * 255 + 0.5).astype(np.uint8)


def _ends(front_variance: np.ndarray, back_variance: np.ndarray, apart: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How much of the line counts as head and as wall: a standard deviation of the colours, at least the camera's noise."""
    front, back = (np.maximum(np.sqrt(variance / apart), np.float32(_NOISE)) for variance in (front_variance, back_variance))
    shrink = np.minimum(1, np.float32(_MAX_NOISE) / (front + back))
    return front * shrink, back * shrink


@dataclass(frozen=True)
class _Local:
    """Colours near by: their mean [h, w, 3], variance summed over channels (and that four times as far about), whether there are any."""

    mean: np.ndarray
    variance: np.ndarray
    wide_variance: np.ndarray
    seen: np.ndarray


def _local(picture: np.ndarray, square: np.ndarray, where: np.ndarray, sigma_px: float) -> _Local:
    """Colours of the pixels that are in `where` (x 255), coarser than `picture`; `square` are the colours' squared lengths."""
    cv2, weight = import_opencv(), where.astype(np.float32) / 255
    colors = _spread(cv2.merge([*cv2.split(picture * weight[..., None]), weight]), sigma_px)
    squares = _spread(square * weight, sigma_px)
    seen, means, variances = colors[0][..., 3] > _FARTHER**3, [], []
    for color, sum_of_squares in zip(colors, squares, strict=True):
        count = np.where(seen, color[..., 3], np.float32(1))
        means.append(color[..., :3] / count[..., None])
        variances.append(np.maximum(sum_of_squares / count - np.einsum("hwc,hwc->hw", means[-1], means[-1]), 0))
    return _Local(means[0], variances[0], variances[1], seen)


def _spread(x: np.ndarray, sigma_px: float) -> tuple[np.ndarray, np.ndarray]:
    """`x` [h, w] or [h, w, 4], smaller and smoothed at three scales, of which each counts where those before it are empty; then
    the same without the first scale."""
    cv2, levels = import_opencv(), []
    for shrink in (_COARSE, 4, 4):
        x = resized(x, (-(-x.shape[1] // shrink), -(-x.shape[0] // shrink)))
        levels.append(cv2.GaussianBlur(x, (0, 0), max(sigma_px, 0.5), borderType=cv2.BORDER_CONSTANT).reshape(x.shape))
    near, far, farthest = (resized(level, levels[0].shape[1::-1]) for level in levels)
    wide = far + np.float32(_FARTHER) * farthest
    return near + np.float32(_FARTHER) * wide, wide


def _along(crop: UInt8[np.ndarray, "H W 3"], weights: np.ndarray, offset: np.ndarray) -> Float[np.ndarray, "H W"]:
    """Where the colours lie on their lines, 0 (wall) to 255 (head)."""
    cv2 = import_opencv()
    colors = crop.astype(np.float32)
    along = cv2.transform(cv2.multiply(colors, weights, dst=colors), np.ones((1, 3), np.float32)).reshape(offset.shape)
    along += offset
    return np.clip(along, 0, 255, out=along)
