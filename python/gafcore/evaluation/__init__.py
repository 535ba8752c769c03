"""Measuring avatars."""

from gafcore.evaluation.color import color_of, stored_color
from gafcore.evaluation.metrics import compare, error_picture
from gafcore.evaluation.protocols import Evaluation, FrameScore, Sample, evaluate
from gafcore.evaluation.report import write_report

__all__ = ["Evaluation", "FrameScore", "Sample", "color_of", "compare", "error_picture", "evaluate", "stored_color", "write_report"]
