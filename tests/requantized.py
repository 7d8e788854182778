"""Weights as a GGUF file of another type would give them back."""

import copy

import gguf
import numpy as np
import torch


def requantize(model, kind):
    """A copy whose matrices went through a GGUF block format and back; norms stay as they are."""
    result = copy.deepcopy(model)
    block = gguf.GGML_QUANT_SIZES[kind][0]
    with torch.no_grad():
        for weight in result.parameters():
            if weight.dim() == 2:
                assert weight.shape[1] % block == 0
                packed = gguf.quants.quantize(weight.float().numpy().astype(np.float32), kind)
                weight.copy_(torch.from_numpy(gguf.quants.dequantize(packed, kind)))
    return result
