"""How much of a prompt vLLM's prefix cache can reuse."""

BLOCK_SIZES = (16, 32, 64, 128)
"""The usual sizes in tokens; 16 is the default on GPUs and 128 on CPUs, where 16 is refused."""


def reusable_tokens(virtual_tokens: int, block_size: int) -> int:
    """Return how many virtual tokens lie in full blocks, which vLLM computes once.

    A block that also has tokens of the text is computed again for each other text.

    Args:
        virtual_tokens: Number of virtual tokens P.
        block_size: vLLM's `--block-size`.
    """
    return virtual_tokens // block_size * block_size


def describe_reuse(virtual_tokens: int) -> str:
    """Return for each usual block size how many virtual tokens are computed once."""
    first, *others = (
        (reusable_tokens(virtual_tokens, size), f"with blocks of {size}") for size in BLOCK_SIZES
    )
    rest = (f"{count} {blocks}" for count, blocks in others)
    shown = f"{first[0]} of {virtual_tokens} virtual tokens {first[1]}"
    return f"reuses {', '.join([shown, *rest])}"
