"""The length of texts: in words, or in characters where a script has no spaces between words."""

import re
from collections.abc import Iterable

# Thai, Lao, Burmese, Khmer, kana, and Chinese characters.
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003ffff]"
)


def count_words(text: str) -> int:
    """Return the number of words; each character of an unspaced script counts as one."""
    return len(_UNSPACED.sub(" x ", text).split())


def word_unit(texts: Iterable[str]) -> str:
    """Return what `count_words` mostly counts: `characters` in an unspaced script, or `words`."""
    joined = "".join("".join(text.split()) for text in texts)
    return "characters" if len(_UNSPACED.findall(joined)) > len(joined) / 2 else "words"
