"""Points of the head, hair included, followed from a few key frames into all others: what the poses are adjusted to (`bundle.py`).

The hair's crown is twice as far from the neck as the mouth is and has no expressions, so it says more about a nod than any landmark. Each
frame is compared with the key frames of the most similar poses directly (Lucas and Kanade, from where the poses of now expect a point),
not with the frame before it: nothing drifts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy import ndimage
from torch import Tensor

from gafcore.captures.video import Clip
from gafcore.mesh import rasterize
from gafcore.progress import track as progress
from gafcore.rigs.base import Rig
from gafcore.tracking.detections import Detections, face_boxes
from gafcore.tracking.mask import head_masks
from gafcore.tracking.models import import_opencv
from gafcore.tracking.points import project
from gafcore.tracking.poses import Poses
from gafcore.tracking.solve import Solution
from gafcore.tracking.threads import as_they_come, workers
from gafcore.types import Camera

_FACE_PX = 150  # faces are scaled to about this size: 100 to 225
_KEYS, _NEAR = 12, 4  # key frames of a shot; those that a frame is compared with
_KEY_APART_RAD = 0.03  # key frames of more similar poses say the same
_HAIR, _SKIN = 80, 40  # points of each in a key frame
_QUALITY, _APART_PX = 0.02, 4  # of the corners
_CONTRAST = 4.0  # limit of the adaptive histogram equalisation
_WINDOW, _LEVELS = 11, 1  # of Lucas and Kanade's method, px and halvings: a second one finds no more (docs/tracking.md)
_STEPS, _STILL_PX = 10, 0.03  # of it on each level, and the move at which it stops
_RETURN_PX = 0.5  # at that size; a point that does not come back to where it came from is lost
_SEARCH = 0.08  # in face sizes: further from where it is expected it is another point
_INSIDE = 230  # of 255: person
_EXPRESSIVE = ("mouth", "lips", "eyes", "eyelids")  # these move by themselves
_RIM = 0.03  # in face sizes: no points this near to the outline of head or skin


@dataclass(frozen=True)
class Tracks:
    """Where points of K key frames, at most P each, are seen in the T frames of one shot; pixels of the clip.

    `near` [T, N] are the key frames that a frame was compared with; `pixels` and `seen` are of their points there.
    `start` are points in head space (before the head's rotation), metres, on the rig's surface or, beside it, as deep as its
    nearest outline; `skin` says which of them the rig's face shows.
    """

    near: Int[Tensor, "T N"]
    pixels: Float[Tensor, "T N P 2"]
    seen: Bool[Tensor, "T N P"]
    start: Float[Tensor, "K P 3"]
    skin: Bool[Tensor, "K P"]


@dataclass(frozen=True)
class _Key:
    frame: int
    picture: np.ndarray  # as `_picture` gives it
    pixels: Float[np.ndarray, "P 2"]  # of `picture`, centres at +0.5
    points: Float[np.ndarray, "P 3"]  # in head space
    skin: Bool[np.ndarray, "P"]


def follow_points(clip: Clip, detections: Detections, rig: Rig, solution: Solution, frames: list[int], poses: Poses) -> Tracks:
    """Points of the head through `frames`, all of one shot.

    Args:
        clip: The pictures.
        detections: Where the face is, and who is person.
        rig: With the regions "face" and, where there is one, "neck": a neck does not turn with the head.
        solution: The rig's parameters, which with its depth say where a point is, and the focal length.
        frames: All of them show the face.
        poses: Of all frames, from `solution`.
    """
    keys = _keys(clip, detections, rig, solution, frames, poses)
    most, n_near = max(len(k.points) for k in keys), min(_NEAR, len(keys))
    pad = lambda x: np.pad(x, ((0, most - len(x)), *((0, 0),) * (x.ndim - 1)))  # noqa: E731
    near = _angles(poses.turn[frames], poses.turn[[k.frame for k in keys]]).argsort(dim=1, stable=True)[:, :n_near]
    start = torch.from_numpy(np.stack([pad(k.points) for k in keys]))
    camera_space = poses[frames].place(start[near].flatten(1, 2))
    centre = (detections.width / 2, detections.height / 2)
    expected = project(camera_space, torch.tensor(solution.focal_px), centre).unflatten(1, (n_near, most)).numpy()
    face_px = face_size(detections, frames)

    def look(item: tuple[int, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        i, image = item
        compared = [keys[k] for k in near[i].tolist()]
        points = [x[: len(k.points)] for x, k in zip(expected[i], compared, strict=True)]
        found, ok = _follow_all(compared, image, points, detections.person[frames[i]].numpy(), detections, face_px)
        return np.stack([pad(x) for x in found]), np.stack([pad(x) for x in ok])

    images = ((i, clip.image(t)) for i, t in enumerate(progress(frames, f"{clip.name}: points of the head")))
    with workers(len(frames)) as pool:
        seen: list[tuple[np.ndarray, np.ndarray]] = list(as_they_come(pool, look, images))
    return Tracks(
        near=near,
        pixels=torch.from_numpy(np.stack([pixels for pixels, _ in seen])),
        seen=torch.from_numpy(np.stack([ok for _, ok in seen])),
        start=start,
        skin=torch.from_numpy(np.stack([pad(k.skin) for k in keys])),
    )


def key_frames(poses: Poses, frames: list[int]) -> list[int]:
    """At most twelve of `frames` whose poses differ most: the one nearest to the mean first, then always the furthest from all chosen."""
    turn = poses.turn[frames]
    chosen = [int(torch.einsum("tij,ij->t", turn, turn.mean(0)).argmax())]
    distance = _angles(turn, turn[chosen])[:, 0]
    while len(chosen) < _KEYS and float(distance.max()) > _KEY_APART_RAD:
        chosen.append(int(distance.argmax()))
        distance = torch.minimum(distance, _angles(turn, turn[chosen[-1:]])[:, 0])
    return [frames[i] for i in chosen]


def _angles(a: Float[Tensor, "A 3 3"], b: Float[Tensor, "B 3 3"]) -> Float[Tensor, "A B"]:
    """Between rotations, radians."""
    return torch.arccos(((torch.einsum("aij,bij->ab", a, b) - 1) / 2).clamp(-1, 1))


def face_size(detections: Detections, frames: list[int]) -> float:
    """Median size of the face in `frames`, px: the geometric mean of its width and height."""
    sizes = torch.from_numpy(face_boxes(detections.landmarks[frames].numpy())[1])
    return max(1.0, float(sizes.median()))


def _size(detections: Detections, face_px: float) -> tuple[int, int]:
    """Width and height at which points are followed: the clip's by a whole number, which is fast, and exact where it divides both."""
    shrink = max(1, round(face_px / _FACE_PX))
    return max(1, round(detections.width / shrink)), max(1, round(detections.height / shrink))


def _picture(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A frame in grey at `size`, contrast evened out: hair is dark."""
    cv2 = import_opencv()
    grey = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, size, interpolation=cv2.INTER_AREA) if grey.shape[1::-1] != size else grey
    return cv2.createCLAHE(_CONTRAST, (8, 8)).apply(small)


def _keys(clip: Clip, detections: Detections, rig: Rig, solution: Solution, frames: list[int], poses: Poses) -> list[_Key]:
    """The key frames of `frames`, in the order in which they were chosen."""
    size, chosen = _size(detections, face_size(detections, frames)), key_frames(poses, frames)
    order = sorted(chosen)  # decoders like it
    heads = dict(zip(order, head_masks(detections, rig, solution, order), strict=True))

    def key(item: tuple[int, np.ndarray]) -> _Key:
        t, image = item
        return _key(_picture(image, size), heads[t], detections, rig, solution, t, poses)

    with workers(len(order)) as pool:
        made: list[_Key] = list(as_they_come(pool, key, ((t, clip.image(t)) for t in order)))
    return [made[order.index(t)] for t in chosen]


def _key(picture: np.ndarray, head: np.ndarray, detections: Detections, rig: Rig, solution: Solution, t: int, poses: Poses) -> _Key:
    """Corners on the head in frame `t`, of hair and of skin, and where they are in head space by the rig's depth."""
    cv2, size = import_opencv(), (picture.shape[1], picture.shape[0])
    depth, skin, hair = _surface(rig, solution, t, detections, size)
    hair &= cv2.resize(head, size, interpolation=cv2.INTER_LINEAR) > _INSIDE
    rim = max(1, round(_RIM * face_size(detections, [t]) * size[0] / detections.width))
    corners = [_corners(picture, hair, _HAIR, rim), _corners(picture, skin, _SKIN, rim)]
    pixels = np.concatenate(corners)
    at = np.clip(pixels.astype(int), 0, (size[0] - 1, size[1] - 1))
    scale = np.array(size) / (detections.width, detections.height)
    ray = (pixels / scale - (detections.width / 2, detections.height / 2)) / solution.focal_px
    camera_space = depth[at[:, 1], at[:, 0], None] * np.stack([ray[:, 0], -ray[:, 1], -np.ones(len(ray))], 1)
    points = (camera_space - poses.shift[t].numpy()) @ poses.turn[t].numpy()
    return _Key(t, picture, pixels, points, np.arange(len(pixels)) >= len(corners[0]))


def _surface(
    rig: Rig, solution: Solution, t: int, detections: Detections, size: tuple[int, int]
) -> tuple[Float[np.ndarray, "h w"], Bool[np.ndarray, "h w"], Bool[np.ndarray, "h w"]]:
    """Depth of the rig in frame `t`, beside it that of its nearest outline; where calm skin of the face is; where hair may be."""
    width, height = size
    k = torch.tensor(
        [
            [solution.focal_px * width / detections.width, 0, width / 2],
            [0, solution.focal_px * height / detections.height, height / 2],
            [0, 0, 1],
        ]
    )
    camera = Camera(torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0])), k, width, height)
    shown = rasterize(rig.vertices(solution.params[t]), rig.faces, camera)
    faces, depth = shown.triangle_ids[0].numpy(), shown.depth[0].double().numpy()
    if bool((faces < 0).all()):
        nothing = np.zeros((height, width), dtype=bool)
        return depth, nothing, nothing.copy()
    nearest = ndimage.distance_transform_edt(faces < 0, return_distances=False, return_indices=True)

    def shows(*names: str) -> np.ndarray:
        vertices = torch.zeros(rig.n_vertices, dtype=torch.bool)
        for name in names:
            if name in rig.regions:
                vertices |= rig.regions[name]
        return (faces >= 0) & vertices[rig.faces].any(1).numpy()[np.maximum(faces, 0)]

    face = shows("face")
    return depth[tuple(nearest)], face & ~shows(*_EXPRESSIVE), ~face & ~shows("neck", *_EXPRESSIVE)


def _corners(picture: np.ndarray, mask: Bool[np.ndarray, "h w"], n: int, rim: int) -> Float[np.ndarray, "P 2"]:
    """At most `n` corners, more than `rim` px inside `mask`; pixel centres at +0.5."""
    cv2 = import_opencv()
    inside = cv2.erode(mask.astype(np.uint8), np.ones((2 * rim + 1, 2 * rim + 1), np.uint8), borderValue=0)
    found = cv2.goodFeaturesToTrack(picture, n, _QUALITY, _APART_PX, mask=inside)
    return np.zeros((0, 2)) if found is None else found[:, 0].astype(np.float64) + 0.5


def _follow_all(
    keys: list[_Key], image: np.ndarray, expected: list[np.ndarray], person: np.ndarray, detections: Detections, face_px: float
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Where the points of each key frame are in `image`, pixels of the clip, near `expected`; and which of them were found."""
    size = _size(detections, face_px)
    picture, scale = _picture(image, size), np.array(size) / (detections.width, detections.height)
    here = [(k.pixels - 0.5).astype(np.float32) for k in keys]  # OpenCV's pixel centres are at 0
    start = [(x * scale - 0.5).astype(np.float32) for x in expected]
    there, ok = zip(*(_flow(k.picture, picture, a, b) for k, a, b in zip(keys, here, start, strict=True)), strict=True)
    found, wanted = (np.concatenate(there).astype(np.float64) + 0.5) / scale, np.concatenate(expected)
    ends = np.cumsum([len(x) for x in expected])[:-1]
    near = (np.abs(found - wanted).max(1, initial=0) < _SEARCH * face_px) & _inside(person, found, detections)
    ok = [a & b for a, b in zip(ok, np.split(near, ends), strict=True)]
    for key, a, b, c, good in zip(keys, here, start, there, ok, strict=True):  # and back again
        back, returned = _flow(picture, key.picture, c[good], (a + c - b)[good])
        good[good] = returned & (np.abs(back - a[good]).max(1, initial=0) < _RETURN_PX)
    return np.split(found, ends), ok


def _flow(one: np.ndarray, other: np.ndarray, points: np.ndarray, start: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where `points` [P, 2] of one picture are in the other, looked for from `start`; and which were found."""
    if len(points) == 0:
        return start, np.zeros(0, bool)
    cv2 = import_opencv()
    options = {
        "winSize": (_WINDOW, _WINDOW),
        "maxLevel": _LEVELS,
        "flags": cv2.OPTFLOW_USE_INITIAL_FLOW,
        "criteria": (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, _STEPS, _STILL_PX),
    }
    there, found, _ = cv2.calcOpticalFlowPyrLK(one, other, points[:, None], start[:, None].copy(), **options)
    return there[:, 0], found[:, 0] > 0


def _inside(person: np.ndarray, pixels: Float[np.ndarray, "P 2"], detections: Detections) -> Bool[np.ndarray, "P"]:
    height, width = person.shape
    at = np.nan_to_num(pixels * (width / detections.width, height / detections.height), nan=-1.0).astype(int)
    within = (at >= 0).all(1) & (at < (width, height)).all(1)
    at = np.clip(at, 0, (width - 1, height - 1))
    return within & (person[at[:, 1], at[:, 0]] > _INSIDE)
