"""What IFEval's checks need besides the harness: a sentence splitter, and a language detector that repeats itself.

Two of its instructions count sentences and words with nltk, whose English model (``punkt_tab``) is a download. Where
that is not there and cannot be had, `SENTENCES` stands in for it: the same algorithm with a short list of
abbreviations and nothing learned. Scores then say so, for a sentence more or less can change one.
"""

from __future__ import annotations

from pathlib import Path

#: A folder laid out like nltk's data; the harness's own command line finds it by ``NLTK_DATA``.
SENTENCES = Path(__file__).parent / "sentences"


def prepare(offline: bool) -> str:
    """Make both ready before the harness imports its checks; returns the splitter: ``punkt_tab`` or ``sdft``."""
    import langdetect
    import nltk

    langdetect.DetectorFactory.seed = 0  # else it draws at random, and the same text has two languages
    if _model() is None and not offline:
        nltk.download("punkt_tab", quiet=True)  # where that fails it says so by its result, and raises nothing
    if _model() is None:
        nltk.data.path.append(str(SENTENCES))
    found = _model()
    return "sdft" if found and found.is_relative_to(SENTENCES) else "punkt_tab"


def _model() -> Path | None:
    import nltk

    try:
        return Path(str(nltk.data.find("tokenizers/punkt_tab/english/")))
    except LookupError:
        return None
