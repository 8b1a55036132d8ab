"""What IFEval's checks need besides the harness: a sentence splitter and a deterministic language detector.

Two of its instructions count sentences and words with nltk, whose English model (``punkt_tab``) is a download. If that
is missing and cannot be downloaded, `SENTENCES` replaces it: the same algorithm with a short list of abbreviations and
no trained parameters. The settings of the scores record which one was used, as one sentence can change a score.
"""

from __future__ import annotations

from pathlib import Path

#: A folder laid out like nltk's data; the harness's own command line finds it through ``NLTK_DATA``.
SENTENCES = Path(__file__).parent / "sentences"


def prepare(offline: bool) -> str:
    """Prepare both before the harness imports its checks; returns the splitter's name: ``punkt_tab`` or ``sdft``."""
    import langdetect
    import nltk

    langdetect.DetectorFactory.seed = 0  # unseeded, it samples: one text can get two languages
    if _model() is None and not offline:
        nltk.download("punkt_tab", quiet=True)  # a failure is its return value, not an exception
    if _model() is None:
        nltk.data.path.append(str(SENTENCES))
    model = _model()
    return "sdft" if model and model.is_relative_to(SENTENCES) else "punkt_tab"


def _model() -> Path | None:
    import nltk

    try:
        return Path(str(nltk.data.find("tokenizers/punkt_tab/english/")))
    except LookupError:
        return None
