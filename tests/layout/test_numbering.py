"""Theorems, lemmas and propositions have one numbering over all pages; what cites a number cites one that exists."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
THEORY = sorted((ROOT / "docs" / "theory").glob("*.rst"))
KINDS = "Theorem|Lemma|Proposition"
STATED = re.compile(rf"^(?:\*\*)?({KINDS})\b ?(\d+[a-z]?)?(?=\*\*|\.\*\*| \(|$)", re.MULTILINE)
CITED = re.compile(rf"\b({KINDS})s? (\d+[a-z]?)\b(?!\.\d)(?: and (\d+[a-z]?)\b)?", re.IGNORECASE)


def stated(text: str) -> list[tuple[str, str]]:
    """Kind and number of every statement; the number is empty where there is none."""
    return STATED.findall(text)


def cited(text: str) -> set[tuple[str, str]]:
    """Kind and number of every citation; a number with a point is a paper's."""
    return {
        (match[1].capitalize(), number) for match in CITED.finditer(text) for number in match.groups()[1:] if number
    }


ALL = [label for page in THEORY for label in stated(page.read_text(encoding="utf-8"))]


def test_every_statement_has_a_number_of_its_own():
    assert [label for label in ALL if not label[1]] == []
    assert [label for label in sorted(set(ALL)) if ALL.count(label) > 1] == []


@pytest.mark.parametrize("folder", ["certified", "docs"])
def test_what_is_cited_exists(folder):
    paths = (p for end in ("py", "rst") for p in (ROOT / folder).rglob(f"*.{end}"))
    missing = {
        str(path.relative_to(ROOT)): lost
        for path in paths
        if not {"_build", "generated", "gallery"} & set(path.parts)
        and (lost := cited(path.read_text(encoding="utf-8")) - set(ALL))
    }
    assert missing == {}


def test_a_number_given_twice_and_one_that_is_not_there_are_seen():
    assert stated("**Lemma 1.** A\n\nTheorem 2 (gap)\n----\n**Theorem.** B") == [
        ("Lemma", "1"),
        ("Theorem", "2"),
        ("Theorem", ""),
    ]
    assert cited("by theorems 1 and 77 and Rump 2006, theorem 2.3") == {("Theorem", "1"), ("Theorem", "77")}
