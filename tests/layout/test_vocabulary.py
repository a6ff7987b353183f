"""One word for each concept (docs/explanation/glossary.rst): words that lost are not used for it any more."""

import io
import re
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# Names in code that stand for a concept which has another word now.
LOST = {
    **dict.fromkeys(("kept", "n_kept", "y_kept", "X_kept", "alive", "_alive"), "retained"),
    **dict.fromkeys(("forget", "forgets", "_forget", "forget_through"), "delete"),
    **dict.fromkeys(("discount", "_discount", "uncount", "uncounted", "minus", "count_in"), "subtract, add"),
    **dict.fromkeys(("release_metric", "release_metric_", "WideRelease", "LeafRelease"), "noise_metric_, NoiseMetric"),
    **dict.fromkeys(("max_subjects", "structure_size"), "sample_size"),
    **dict.fromkeys(("feature_types",), "categorical_features"),
    **dict.fromkeys(("Stable", "StableTransformer", "Passive", "Chain"), "ExactStep, StatelessStep, StepSequence"),
    **dict.fromkeys(("Renewal", "Mirror", "Inherited", "Grove", "GroveModel"), "a word that says what it is"),
    **dict.fromkeys(("ridged", "gauge", "steepest", "by_theorem2"), "the field's term"),
}
EXEMPT = {
    ("certified/impute.py", "kept"): "features that an imputer keeps, not rows",
    ("certified/additive/_release.py", "kept"): "categories with a bin of their own, not rows",
    ("certified/_trees/compile.py", "kept"): "compiled code in a cache, not rows",
    ("certified/ensemble/_boosting/estimators.py", "feature_types"): "of a model of XGBoost",
    ("certified/ensemble/_boosting/structure.py", "feature_types"): "of a model of XGBoost",
    ("tests/ensemble/test_boosting_leaf_lookup.py", "feature_types"): "of a model of XGBoost",
}
# Phrases in prose, in docstrings and in messages.
PHRASES = {
    r"\b([Kk]ept|[Hh]eld|[Aa]live) rows?\b": "retained rows",
    r"\brows (that are |then )?(kept|held|alive)\b": "retained rows",
    r"\brelease metric\b": "noise metric",
    r"\btheorem-[12]\b": "measured, predicted",
    r"\b(max_subjects|structure_size)\b": "sample_size",
    r"``feature_types``": "categorical_features",
    r"\brows that join\b": "rows that are added",
    r"\b(removed rows|rows removed)\b": "deleted rows",
    r"\b(cannot|can|that) forget\b": "delete",
}
CODE = sorted(p for folder in ("certified", "tests", "models", "benchmarks") for p in (ROOT / folder).rglob("*.py"))
PROSE = [
    *sorted((ROOT / "docs").rglob("*.rst")),
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")),
]


def lost_names(source: str) -> set[str]:
    """Names of a source file that lost."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {token.string for token in tokens if token.type == tokenize.NAME and token.string in LOST}


def lost_phrases(text: str) -> list[str]:
    """Phrases of a text that lost, with the words to use."""
    return [f"{m.group(0)!r}: {better}" for phrase, better in PHRASES.items() for m in re.finditer(phrase, text)]


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", [p for p in CODE if p.name != Path(__file__).name], ids=name_of)
def test_code_uses_the_words_of_the_glossary(path):
    source = path.read_text(encoding="utf-8")
    found = {name for name in lost_names(source) if (name_of(path), name) not in EXEMPT}
    assert found == set(), {name: LOST[name] for name in found}
    assert lost_phrases(source) == []


@pytest.mark.parametrize("path", PROSE, ids=name_of)
def test_prose_uses_the_words_of_the_glossary(path):
    assert lost_phrases(path.read_text(encoding="utf-8")) == []


def test_a_lost_word_is_found():
    assert lost_names("def f(kept):\n    return kept") == {"kept"}
    assert lost_phrases("over the kept rows") == ["'kept rows': retained rows"]
