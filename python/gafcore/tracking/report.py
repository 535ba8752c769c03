"""What tracking reached, as numbers."""

from __future__ import annotations

from typing import Any

import torch

from gafcore.tracking.assemble import yaw_degrees
from gafcore.tracking.detections import Detections
from gafcore.tracking.solve import Solution


def percentiles(errors_px: torch.Tensor) -> dict[str, float]:
    """Median and 95th percentile of the errors that are known, pixels."""
    known = errors_px[torch.isfinite(errors_px)].double()
    return {"median_px": round(float(known.median()), 3), "p95_px": round(float(known.quantile(0.95)), 3)}


def report(detections: Detections, solution: Solution, seconds: dict[str, float]) -> dict[str, Any]:
    """The report as JSON: held-out landmarks, detection, focal length, milliseconds a frame by stage.

    Held-out landmarks tell how well the rig predicts what the fit did not see; they do not tell how well the mesh lies on the face,
    because the detector's idea of a landmark and the mesh's differ by more.
    """
    n, found = len(detections), detections.found
    yaw = yaw_degrees(solution.params)[found]
    return {
        "frames": n,
        "detected_frames": int(found.sum()),
        "missed_frames": torch.nonzero(~found)[:, 0].tolist(),
        "frames_with_several_faces": torch.nonzero(detections.n_faces > 1)[:, 0].tolist(),
        "cuts": list(detections.cuts),
        "size": [detections.width, detections.height],
        "face_px": round(float(_face_px(detections)), 1),
        "yaw_deg": [round(float(yaw.min()), 1), round(float(yaw.max()), 1)],
        "held_out_landmarks": {"count": int(solution.held_out.sum()), **percentiles(solution.errors_px[:, solution.held_out])},
        "fitted_landmarks": {"count": int((~solution.held_out).sum()), **percentiles(solution.errors_px[:, ~solution.held_out])},
        "focal_px": round(solution.focal_px, 2),
        "focal_sigma_px": None if solution.focal_sigma_px is None else round(solution.focal_sigma_px, 2),
        "focal_is": "given" if solution.focal_sigma_px is None else "estimated",
        "solver_steps": list(solution.steps),
        "ms_a_frame": {name: round(1e3 * value / n, 2) for name, value in seconds.items()},
    }


def _face_px(detections: Detections) -> torch.Tensor:
    landmarks = detections.landmarks[detections.found]
    extent = landmarks.nan_to_num(-torch.inf).amax(1) - landmarks.nan_to_num(torch.inf).amin(1)
    return extent.prod(-1).sqrt().median()
