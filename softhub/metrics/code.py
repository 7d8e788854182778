"""Metrics of generated Python: whether it is a program, and whether it passes its tests."""

import ast
import warnings
from collections.abc import Sequence

from softhub.errors import TaskError
from softhub.metrics.base import Floats
from softhub.metrics.classification import Accuracy

OUTCOMES = ("passed", "failed", "exited", "timeout")
"""How a program that was run with its tests can end; see `softhub.evaluation.sandbox.runner`."""

PASSED = OUTCOMES[0]

# Python's parser may overrun its stack on long nested input; generated programs are short.
_LONGEST_PROGRAM = 20_000


class ValidPython(Accuracy):
    """Share of answers that are Python programs; the references do not matter."""

    name = "valid_python"
    title = "valid Python"
    description = "Share of generated programs that parse, with no function left empty."
    kinds = ("generation",)
    judges = "code"

    def _right(self, prediction: str, reference: str) -> bool:
        return is_program(prediction)


class PassAt1(Accuracy):
    """Share of programs that pass their tests at the first try (Chen et al. 2021, pass@1)."""

    name = "pass_at_1"
    title = "pass@1"
    description = "Share of generated programs that pass their tests."
    kinds = ("generation",)
    judges = "outcomes"

    def statistics(self, predictions: Sequence[str], references: Sequence[str]) -> Floats:
        """Return `[N, 2]`: passed or not, and 1.

        Args:
            predictions: N of `OUTCOMES`.
            references: N times `passed`.
        """
        for outcome in predictions:
            if outcome not in OUTCOMES:
                raise TaskError(
                    f"pass_at_1 judges how programs end ({', '.join(OUTCOMES)}); found the text "
                    f"{outcome!r:.60}. Run them first: pipeline.evaluate(…, run_code=True)."
                )
        return super().statistics(predictions, references)


def is_program(text: str) -> bool:
    """Whether a text parses as Python and does something, each of its functions too.

    What holds nothing but comments, strings, `pass` and `...` does nothing: a signature with its
    docstring is what was asked, not an answer.
    """
    if len(text) > _LONGEST_PROGRAM:
        return False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the parser's own, about the program's style
            tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    bodies = [node.body for node in ast.walk(tree) if isinstance(node, functions)]
    return all(any(map(_does_something, body)) for body in [tree.body, *bodies])


def _does_something(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.Pass):
        return False
    empty = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
    return not empty
