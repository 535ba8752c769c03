"""A filmed head whose pose is known, and detections of it that nod when it does not."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from scipy.spatial.transform import Rotation

from gafcore import cameras
from gafcore.captures.synthetic.motion import random_identity
from gafcore.rigs import load_rig
from gafcore.rigs.skinning import axis_angle_to_matrix
from gafcore.tracking.detections import N_LANDMARKS, Detections
from tests.reference.tracking_truth import film

SIDE, FRAMES, FOCAL = 288, 8, 900.0
NOD_RAD, NODS = math.radians(2.0), [2, 5]


def detections_of(rig, params, camera, cuts=()) -> Detections:
    """Landmarks exactly where a pinhole sees them; those that the rig does not have lie in the middle of the face. All is person."""
    embedding = rig.landmarks["mediapipe"]
    points = rig.posed_landmarks(params, "mediapipe") @ camera.viewmat[:3, :3].T + camera.viewmat[:3, 3]
    pixels = (points @ camera.K.T)[..., :2] / points[..., 2:]
    landmarks = pixels.mean(1, keepdim=True).repeat(1, N_LANDMARKS, 1)
    landmarks[:, embedding.indices] = pixels
    n = len(params)
    return Detections(
        landmarks=landmarks,
        scores=torch.zeros(n, 0),
        score_names=(),
        found=torch.ones(n, dtype=torch.bool),
        n_faces=torch.ones(n, dtype=torch.long),
        person=torch.full((n, 64, 64), 255, dtype=torch.uint8),
        cuts=cuts,
        times_s=torch.arange(n) / 5.0,
        width=camera.width,
        height=camera.height,
    )


def nodding_head():
    """(rig, clip, true motion, detections): a head that turns, and detections of the same head with a nod of two degrees in two frames."""
    rig = load_rig("procedural")
    camera = cameras.from_angles(0.0, 0.0, 0.8, focal_px=FOCAL, width=SIDE, height=SIDE)
    motion = rig.neutral(FRAMES)
    motion.rotation[:, 1] = torch.linspace(-0.25, 0.25, FRAMES)
    clip, _ = film(rig, motion, camera, seed=4, fps=5.0, hair="bald", samples=2, page_px=384)
    nod = torch.zeros(FRAMES, 3)
    nod[NODS, 0] = NOD_RAD
    wrong = rotated(replace(motion, shape=random_identity(rig, 4)), nod)
    return rig, clip, motion, detections_of(rig, wrong, camera)


def rotated(params, turn):
    """`params` with each head turned by a further axis-angle."""
    matrix = axis_angle_to_matrix(turn.double()) @ axis_angle_to_matrix(params.rotation.double())
    return replace(params, rotation=torch.from_numpy(Rotation.from_matrix(matrix.numpy()).as_rotvec()).float())


def pitch_errors(params, truth) -> torch.Tensor:
    """Degrees about the picture's horizontal axis, their median taken out: a constant is the identity's, not the pose's."""
    turn = axis_angle_to_matrix(params.rotation.double()) @ axis_angle_to_matrix(truth.rotation.double()).mT
    pitch = torch.rad2deg(torch.atan2(turn[:, 2, 1], turn[:, 2, 2]))
    return pitch - pitch.median()
