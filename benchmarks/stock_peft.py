"""The data collator for training with stock PEFT, as PEFT's documentation shows it."""

import torch
from torch.nn.utils.rnn import pad_sequence


def padded_on_the_right(batch):
    """Return rows of `input_ids` and `labels` as a batch, padded to the longest."""
    ids = [torch.tensor(row["input_ids"]) for row in batch]
    labels = [torch.tensor(row["labels"]) for row in batch]
    return {
        "input_ids": pad_sequence(ids, batch_first=True),
        "attention_mask": pad_sequence([torch.ones_like(i) for i in ids], batch_first=True),
        "labels": pad_sequence(labels, batch_first=True, padding_value=-100),
    }
