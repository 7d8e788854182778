"""Distillation: a long prompt, or any teacher, turned into a short soft prompt without labels."""

from softhub.experiments.distillation.distilling import distill
from softhub.experiments.distillation.retention import (
    Retention,
    agreement,
    evaluate_student,
    request_tokens,
)
from softhub.experiments.distillation.teachers import (
    BiasCorrectedTeacher,
    FewShotTeacher,
    ModelTeacher,
    Teacher,
)

__all__ = [
    "BiasCorrectedTeacher",
    "FewShotTeacher",
    "ModelTeacher",
    "Retention",
    "Teacher",
    "agreement",
    "distill",
    "evaluate_student",
    "request_tokens",
]
