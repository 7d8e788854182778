"""Distillation: a long prompt, or any teacher, turned into a short soft prompt without labels."""

from softhub.distillation.distilling import distill
from softhub.distillation.kept import Kept, judge_student
from softhub.distillation.teachers import (
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
    "distill",
    "judge_student",
]
