import io

import numpy as np
import PIL.Image
import pytest

from nic_jax.evaluation import survival
from nic_jax.report import survival_curves
from nic_jax.report.pictures import new_figure


def _case(count=80, seed=0):
    rng = np.random.default_rng(seed)
    high = np.arange(count) % 2 == 0
    times = rng.exponential(np.where(high, 12, 40)).round(1) + 0.1
    return times, rng.random(count) < 0.7, high


def _drawn(*case, **further):
    figure = new_figure(1, 1, size=(6, 4))
    survival_curves.draw_on(figure.axes[0], *case, **further)
    return figure, figure.axes[0]


def test_the_curves_are_those_of_the_groups():
    times, events, high = _case()
    _, axis = _drawn(times, events, high, time_label='months')
    for line, who in zip(axis.get_lines()[::2], (~high, high), strict=True):
        curve = survival.kaplan_meier(times[who], events[who])
        np.testing.assert_array_equal(line.get_xdata(), curve.times)
        np.testing.assert_array_equal(line.get_ydata(), curve.survival)
        assert line.get_drawstyle() == 'steps-post'
    assert len(axis.collections) == 2  # the bands
    assert axis.get_xlabel() == 'months'
    labels = [text.get_text() for text in axis.get_legend().get_texts()]
    assert labels == [
        f'{name} risk: {who.sum()}, of whom {events[who].sum()} died'
        for name, who in (('low', ~high), ('high', high))
    ]


def test_ticks_of_the_censored_lie_on_their_curve():
    times, events, high = np.array([1.0, 2.0, 2.0, 4.0]), np.array([1, 1, 0, 0]), np.zeros(4, bool)
    _, axis = _drawn(times, events, high)
    marks = axis.get_lines()[1]
    assert marks.get_xdata().tolist() == [2, 4]
    assert marks.get_ydata() == pytest.approx([0.5, 0.5])  # those of time 2 after its death


def test_numbers_at_risk_and_p():
    times, events, high = _case()
    _, axis = _drawn(times, events, high)
    texts = [text.get_text() for text in axis.texts]
    ticks = axis.get_xticks()
    for who in (~high, high):
        left = [str((times[who] >= tick).sum()) for tick in ticks]
        assert left[0] == '40'
        assert any(texts[i : i + len(left)] == left for i in range(len(texts)))
    p = survival.log_rank(times[high], events[high], times[~high], events[~high]).p
    assert 0.001 < p < 0.01
    assert axis.get_legend().get_title().get_text() == f'log-rank p = {p:.3f}'


def test_a_file_with_everything_inside(tmp_path):
    path = tmp_path / 'curves.png'
    survival_curves.draw(*_case(), path, title='BiGAN, abmil', time_label='months')
    pixels = np.asarray(PIL.Image.open(io.BytesIO(path.read_bytes())).convert('L'))
    assert pixels.std() > 10
    for edge in (pixels[:3], pixels[-3:], pixels[:, :3], pixels[:, -3:]):
        assert (edge == 255).all()  # nothing is cut off


@pytest.mark.parametrize('high', [np.zeros(6, bool), np.ones(6, bool)])
def test_one_group_alone_and_no_deaths(high, tmp_path):
    times = np.arange(1.0, 7)
    figure, axis = _drawn(times, np.zeros(6), high)
    assert axis.get_legend().get_title().get_text() == 'log-rank p: not to be had'
    assert len(axis.collections) == 1
    figure.savefig(tmp_path / 'one.png')
