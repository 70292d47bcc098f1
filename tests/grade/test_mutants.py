"""Small faults in a right submission: each gets its share of the points and says what is wrong."""

import pytest

from tests.grade.conftest import changed, right
from tests.grade.mutants import MUTANTS

FILES = {"1": "q1_solution", "2": "gan", "3": "solution"}
# The quick ones: two of each question, and none that must run into a limit.
QUICK = [mutant for n, mutant in enumerate(MUTANTS) if n % 8 == 0 and mutant.name not in ("endless", "48 GB")]


def check(mutant, verdict_of):
    text = changed(right("vectorised", FILES[mutant.question[0]]), mutant.function, mutant.old, mutant.new)
    verdict = verdict_of(mutant.question, text, 4 if mutant.name == "endless" else 60)
    assert verdict.points == pytest.approx(mutant.share * verdict.max, abs=0.01), verdict
    assert mutant.says in " ".join([verdict.hint, *verdict.notes]), verdict


@pytest.mark.parametrize("mutant", QUICK, ids=lambda mutant: f"{mutant.question}-{mutant.name}")
def test_a_mutant_gets_its_verdict(mutant, verdict_of):
    check(mutant, verdict_of)


@pytest.mark.slow
@pytest.mark.parametrize("mutant", [m for m in MUTANTS if m not in QUICK], ids=lambda m: f"{m.question}-{m.name}")
def test_every_mutant_gets_its_verdict(mutant, verdict_of):
    check(mutant, verdict_of)


def test_there_are_enough_mutants_of_every_question():
    assert len(MUTANTS) >= 60
    assert {mutant.question for mutant in MUTANTS} == {
        *["1.1", "1.2", "1.3", "1.4", "1.5", "2.1", "2.2", "2.3", "2.4", "2.5", "3.1", "3.4", "3.6", "3.8"]
    }
