"""Encoded examples."""

from softhub.training.data import EncodedExamples


def test_rows_are_sorted_with_their_answers():
    rows = EncodedExamples(((1,), (2, 3), (4, 5, 6)), (0, 1, 2), truncated=1)
    assert rows.by_length() == EncodedExamples(((4, 5, 6), (2, 3), (1,)), (2, 1, 0), truncated=1)
