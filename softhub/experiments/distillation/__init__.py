"""Distillation: a long prompt, or any teacher, turned into a short soft prompt without labels."""

from softhub.experiments.distillation.distilling import distill
from softhub.experiments.distillation.retention import Kept, agreement, judge_student, tokens_beside
from softhub.experiments.distillation.teachers import (
    CalibratedTeacher,
    FewShotTeacher,
    ModelTeacher,
    TableTeacher,
    Teacher,
)

__all__ = [
    "CalibratedTeacher",
    "FewShotTeacher",
    "Kept",
    "ModelTeacher",
    "TableTeacher",
    "Teacher",
    "agreement",
    "distill",
    "judge_student",
    "tokens_beside",
]
