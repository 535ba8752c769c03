"""Points of the head, hair included, followed from a few key frames into all others: what the poses are adjusted to (`bundle.py`).

The hair's crown is twice as far from the neck as the mouth is and has no expressions, so it says more about a nod than any landmark. Each
frame is compared with the key frames of the most similar poses directly (Lucas and Kanade, from where the poses of now expect a point),
not with the frame before it: nothing drifts.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

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
from gafcore.types import Camera

_FACE_PX = 150  # faces are scaled to this size
_KEYS, _NEAR = 12, 4  # key frames of a shot; those that a frame is compared with
_KEY_APART_RAD = 0.03  # key frames of more similar poses say the same
_HAIR, _SKIN = 80, 40  # points of each in a key frame
_QUALITY, _APART_PX = 0.02, 4  # of the corners
_CONTRAST = 4.0  # limit of the adaptive histogram equalisation
_WINDOW, _LEVELS = 11, 2  # of Lucas and Kanade's method, px and halvings
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

    def frames(self, chunk: slice) -> Tracks:
        return replace(self, near=self.near[chunk], pixels=self.pixels[chunk], seen=self.seen[chunk])


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
    size = face_size(detections, frames)
    chosen = key_frames(poses, frames)
    made = {t: _key(clip, detections, rig, solution, t, poses, _size(detections, size)) for t in sorted(chosen)}  # videos like order
    keys = [made[t] for t in chosen]
    most, n_near = max(len(k.points) for k in keys), min(_NEAR, len(keys))
    tracks = Tracks(
        near=_angles(poses.turn[frames], poses.turn[[k.frame for k in keys]]).argsort(dim=1, stable=True)[:, :n_near],
        pixels=torch.zeros(len(frames), n_near, most, 2, dtype=torch.float64),
        seen=torch.zeros(len(frames), n_near, most, dtype=torch.bool),
        start=torch.from_numpy(np.stack([np.pad(k.points, ((0, most - len(k.points)), (0, 0))) for k in keys])),
        skin=torch.from_numpy(np.stack([np.pad(k.skin, (0, most - len(k.skin))) for k in keys])),
    )
    centre = (detections.width / 2, detections.height / 2)
    for i, t in enumerate(progress(frames, f"{clip.name}: points of the head")):
        picture = _picture(clip, t, _size(detections, size))
        scale = np.array([picture.shape[1] / detections.width, picture.shape[0] / detections.height])
        for j, k in enumerate(tracks.near[i].tolist()):
            camera_space = poses[[t]].place(torch.from_numpy(keys[k].points)[None])
            expected = project(camera_space, torch.tensor(solution.focal_px), centre)[0].numpy()
            found, ok = _follow(keys[k], picture, expected * scale)
            found = found / scale
            ok &= np.abs(found - expected).max(1, initial=0) < _SEARCH * size
            ok &= _inside(detections.person[t].numpy(), found, detections)
            tracks.pixels[i, j, : len(ok)], tracks.seen[i, j, : len(ok)] = torch.from_numpy(found), torch.from_numpy(ok)
    return tracks


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
    """Width and height at which points are followed: faces of `_FACE_PX`, or as they are."""
    scale = min(1.0, _FACE_PX / face_px)
    return max(1, round(scale * detections.width)), max(1, round(scale * detections.height))


def _picture(clip: Clip, t: int, size: tuple[int, int]) -> np.ndarray:
    """Frame `t` in grey at `size`, contrast evened out: hair is dark."""
    cv2 = import_opencv()
    grey = cv2.cvtColor(np.ascontiguousarray(clip.image(t)), cv2.COLOR_RGB2GRAY)
    if (grey.shape[1], grey.shape[0]) != size:
        grey = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
    return cv2.createCLAHE(_CONTRAST, (8, 8)).apply(grey)


def _key(clip: Clip, detections: Detections, rig: Rig, solution: Solution, t: int, poses: Poses, size: tuple[int, int]) -> _Key:
    """Corners on the head in frame `t`, of hair and of skin, and where they are in head space by the rig's depth."""
    picture = _picture(clip, t, size)
    depth, skin, hair = _surface(rig, solution, t, detections, size)
    (head,) = head_masks(detections, rig, solution, [t])
    cv2 = import_opencv()
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


def _follow(key: _Key, picture: np.ndarray, expected: Float[np.ndarray, "P 2"]) -> tuple[np.ndarray, np.ndarray]:
    """Where the points of `key` are in `picture`, near `expected`, and which of them were found: there and back again."""
    if len(expected) == 0:
        return expected, np.zeros(0, bool)
    cv2 = import_opencv()
    options = {
        "winSize": (_WINDOW, _WINDOW),
        "maxLevel": _LEVELS,
        "flags": cv2.OPTFLOW_USE_INITIAL_FLOW,
        "criteria": (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, _STEPS, _STILL_PX),
    }
    here, start = ((x - 0.5).astype(np.float32)[:, None] for x in (key.pixels, expected))  # OpenCV's pixel centres are at 0
    there, found, _ = cv2.calcOpticalFlowPyrLK(key.picture, picture, here, start.copy(), **options)
    back, returned, _ = cv2.calcOpticalFlowPyrLK(picture, key.picture, there, here + there - start, **options)
    near = np.abs(back - here).max((1, 2)) < _RETURN_PX
    return there[:, 0].astype(np.float64) + 0.5, near & (found[:, 0] > 0) & (returned[:, 0] > 0)


def _inside(person: np.ndarray, pixels: Float[np.ndarray, "P 2"], detections: Detections) -> Bool[np.ndarray, "P"]:
    height, width = person.shape
    at = np.nan_to_num(pixels * (width / detections.width, height / detections.height), nan=-1.0).astype(int)
    within = (at >= 0).all(1) & (at < (width, height)).all(1)
    at = np.clip(at, 0, (width - 1, height - 1))
    return within & (person[at[:, 1], at[:, 0]] > _INSIDE)
