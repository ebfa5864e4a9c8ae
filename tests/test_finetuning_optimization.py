"""Steps of two networks: rates that are held, rise and fall; gradients that are clipped apart."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from nic_jax.finetuning.optimization import make_optimizer
from nic_jax.finetuning.settings import FinetuneSettings

SETTINGS = FinetuneSettings(
    steps=10, hold=3, warmup=2, encoder_rate=0.5, classifier_rate=0.25, weight_decay=0.0, clip=1.0
)


full = functools.partial(np.full, dtype=np.float32)


def steps_of(settings, gradient, *, weight=0.0):
    """By how much each step moves a weight of each network: Adam moves by the rate at first."""
    trained = {name: {'kernel': full((2, 1), weight)} for name in gradient}
    optimizer = make_optimizer(settings)
    moments, moved = optimizer.init(trained), {name: [] for name in gradient}
    for _ in range(settings.steps):
        changes, moments = optimizer.update(
            {name: {'kernel': full((2, 1), value)} for name, value in gradient.items()},
            moments,
            trained,
        )
        for name in moved:
            moved[name].append(-float(changes[name]['kernel'][0, 0]))
    return moved


def test_rates_are_held_rise_and_fall():
    moved = steps_of(SETTINGS, {'encoder': 1.0, 'classifier': 1.0})
    # An equal gradient every time: each step of Adam is its rate.
    falling = 0.5 * 0.5 * (1 + np.cos(np.pi * np.arange(5) / 5))
    expected = [0, 0, 0, 0, 0.25, *falling]
    np.testing.assert_allclose(moved['encoder'], expected, rtol=1e-4, atol=1e-7)
    falling = 0.25 * 0.5 * (1 + np.cos(np.pi * np.arange(8) / 8))
    np.testing.assert_allclose(moved['classifier'], [0, 0.125, *falling], rtol=1e-4, atol=1e-7)


def test_each_network_is_clipped_by_itself():
    """A gradient's length counts against others of its own network alone."""

    def second_step(first, second):
        """The classifier's second step, which Adam weighs against the first."""
        trained = {'encoder': {'kernel': full(1, 0.0)}, 'classifier': {'kernel': full(1, 0.0)}}
        optimizer = make_optimizer(dataclasses.replace(SETTINGS, warmup=0, hold=0))
        moments = optimizer.init(trained)
        for gradient in (first, second):
            tree = {'encoder': {'kernel': full(1, 1e6)}, 'classifier': {'kernel': gradient}}
            changes, moments = optimizer.update(jax.tree.map(np.asarray, tree), moments, trained)
        return float(changes['classifier']['kernel'][0])

    small, one, large = full(1, 0.01), full(1, 1.0), full(1, 100.0)
    assert second_step(large, small) == pytest.approx(second_step(one, small), rel=1e-6)
    assert second_step(one, small) != pytest.approx(second_step(small, small), rel=1e-2)


def test_kernels_decay_and_adapters_do_not():
    settings = dataclasses.replace(SETTINGS, weight_decay=0.1)
    plain = steps_of(SETTINGS, {'encoder': 1.0, 'classifier': 1.0}, weight=2.0)
    decayed = steps_of(settings, {'encoder': 1.0, 'classifier': 1.0}, weight=2.0)
    # Of the rate, times 0.1 of a weight of 2.
    np.testing.assert_allclose(decayed['encoder'], 1.2 * np.array(plain['encoder']), rtol=1e-4)
    optimizer = make_optimizer(settings)
    trained = {name: {'down': full((2, 1), 2.0)} for name in ('encoder', 'classifier')}
    nothing = jax.tree.map(np.zeros_like, trained)
    moments = optimizer.init(trained)
    for _ in range(6):
        changes, moments = optimizer.update(nothing, moments, trained)
        assert not any(np.any(leaf) for leaf in jax.tree.leaves(changes))


@pytest.mark.parametrize('hold', [9, 10, 50])
def test_an_encoder_that_would_never_be_trained_is_refused(hold):
    with pytest.raises(ValueError, match=f'hold={hold} of steps=10 .* set hold to 8 at most'):
        dataclasses.replace(SETTINGS, hold=hold)
    moved = steps_of(dataclasses.replace(SETTINGS, hold=8), {'encoder': 1.0, 'classifier': 1.0})
    assert moved['encoder'][-1] > 0


@pytest.mark.parametrize('rates', [{'encoder_rate': 0.0}, {'classifier_rate': -1.0}])
def test_rates_that_cannot_be_are_refused(rates):
    with pytest.raises(ValueError, match=next(iter(rates))):
        dataclasses.replace(SETTINGS, **rates)
