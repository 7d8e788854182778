"""Metrics of generated Python code: whether it parses, and whether it passes its tests."""

import ast
import warnings
from collections.abc import Sequence

from softhub.errors import TaskError
from softhub.metrics.base import Floats
from softhub.metrics.classification import Accuracy

OUTCOMES = ("passed", "failed", "exited", "timeout")
"""The ways in which a program can end; see `softhub.evaluation.sandbox.runner`."""

PASSED = OUTCOMES[0]

# Python's parser may overflow its stack on long nested input; generated programs are short.
_LONGEST_PROGRAM = 20_000


class ValidPython(Accuracy):
    """Share of answers that are Python programs; the references are ignored."""

    name = "valid_python"
    title = "valid Python"
    description = "Share of generated programs that parse and have no empty function."
    kinds = ("generation",)
    input_kind = "code"

    def _right(self, prediction: str, reference: str) -> bool:
        return is_program(prediction)


class PassAt1(Accuracy):
    """Share of programs that pass their tests at the first attempt (pass@1, Chen et al. 2021)."""

    name = "pass_at_1"
    title = "pass@1"
    description = "Share of generated programs that pass their tests."
    kinds = ("generation",)
    input_kind = "outcomes"

    def statistics(self, predictions: Sequence[str], references: Sequence[str]) -> Floats:
        """Return `[N, 2]`: passed or not, and 1.

        Args:
            predictions: N outcomes out of `OUTCOMES`.
            references: `passed`, N times.
        """
        for outcome in predictions:
            if outcome not in OUTCOMES:
                raise TaskError(
                    f"pass_at_1 scores how programs ended ({', '.join(OUTCOMES)}); found the text "
                    f"{outcome!r:.60}. Run the programs: evaluate(…, run_code=True)."
                )
        return super().statistics(predictions, references)


def is_program(text: str) -> bool:
    """Return whether a text parses as Python and neither it nor any of its functions is empty.

    Code that consists of comments, strings, `pass` and `...` counts as empty: a signature with a
    docstring only repeats the input.
    """
    if len(text) > _LONGEST_PROGRAM:
        return False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the parser, about the program's style
            tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    bodies = [node.body for node in ast.walk(tree) if isinstance(node, functions)]
    return all(any(map(_is_effective, body)) for body in [tree.body, *bodies])


def _is_effective(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.Pass):
        return False
    empty = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
    return not empty
