"""The token that generation puts before every answer of some encoder-decoders, such as BART's."""

from __future__ import annotations

from softhub.model.base import BaseModel


def forced_ids(base: BaseModel) -> tuple[int, ...]:
    """Return what the base's generation config forces a decoder to write after its start token.

    Every generated answer follows it, so answers are scored and trained after it too. It costs
    nothing, because it has no alternative.

    Args:
        base: The base model.

    Returns:
        One token; none for a decoder without an encoder, whose answers follow a text.
    """
    forced = getattr(base.model.generation_config, "forced_bos_token_id", None)
    return () if forced is None or not base.is_encoder_decoder else (int(forced),)
