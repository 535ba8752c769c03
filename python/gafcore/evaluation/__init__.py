"""Measuring avatars."""

from gafcore.evaluation.metrics import compare, error_picture
from gafcore.evaluation.protocols import Evaluation, FrameScore, Sample, evaluate
from gafcore.evaluation.report import write_report

__all__ = ["Evaluation", "FrameScore", "Sample", "compare", "error_picture", "evaluate", "write_report"]
