"""Hold-outs whose labels an encoder knows by fine-tuning are refused, and the rest is let pass."""

import dataclasses

import numpy as np
import pytest

from nic_jax.cohort import CohortError, SlideEntry
from nic_jax.encoders.mean_rgb import mean_rgb
from nic_jax.hold_outs import check_unseen

# Two slides of each of three patients.
ENTRIES = [SlideEntry(f's{n}', f's{n}.tif', case_id=f'p{n // 2}') for n in range(6)]
SOURCES = [f'content of s{n}' for n in range(6)]
TESTED = [np.array([0, 1]), np.array([2, 3, 4]), np.array([], int)]


def check(known, only_folds=(), tested=TESTED):
    encoder = dataclasses.replace(mean_rgb(), learned_from=tuple(known))
    check_unseen(encoder, ENTRIES, SOURCES, tested, only_folds)


def test_what_it_has_not_seen_is_tested():
    check([])
    check([SOURCES[5], 'content of a slide of elsewhere'], tested=TESTED[:1])
    check([SOURCES[2]], only_folds=(0,))
    check(SOURCES, only_folds=(2,))  # tests nothing


def test_a_slide_that_it_has_seen_is_refused_and_other_folds_are_named():
    with pytest.raises(CohortError, match='fold 0 tests 2 slides') as refused:
        check([SOURCES[0]])
    assert 'cases of 2 of them, such as s0' in str(refused.value)
    assert '--config.cohort.only_folds="(1,)"' in str(refused.value)
    with pytest.raises(CohortError, match='fold 1 tests') as refused:
        check([SOURCES[0], SOURCES[4]], only_folds=(1,))
    assert 'only_folds' not in str(refused.value)


def test_another_slide_of_a_patient_that_it_has_seen_is_refused():
    with pytest.raises(CohortError, match='1 of them, such as s4'):
        check([SOURCES[5]])
