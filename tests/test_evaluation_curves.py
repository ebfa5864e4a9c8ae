import numpy as np
import pytest
from made_up_predictions import classification

from nic_jax.evaluation.calibration import calibration
from nic_jax.evaluation.lesion_size import by_lesion_size
from nic_jax.evaluation.tables import table
from nic_jax.report import evaluation_curves
from nic_jax.report.pictures import new_figure

STYLES = {
    'cnn': {'color': '#0072B2', 'marker': 'o', 'linestyle': '-'},
    'mean': {'color': '#E69F00', 'marker': 's', 'linestyle': '-'},
}


def axis():
    return new_figure(1, 1, size=(4, 4)).axes[0]


def lines_of(drawn):
    """Label to the x and y of each line with intervals."""
    return {
        container.get_label(): tuple(
            np.asarray(each, float) for each in container.lines[0].get_data()
        )
        for container in drawn.containers
    }


@pytest.mark.parametrize(
    ('points', 'scale'), [((100, 200, 400, 800), 'log'), ((100, 200, 400), 'linear')]
)
def test_a_sweep_is_drawn_where_its_points_are(points, scale):
    rows = [
        row
        for number, point in enumerate(points)
        for model in ('cnn', 'mean')
        for row in classification(slides=30, point=float(point), model=model, skill=number)
    ]
    records = table(rows, rounds=50)
    drawn = axis()
    lines = {model: [r for r in records if r['model'] == model] for model in ('cnn', 'mean')}
    evaluation_curves.sweep(drawn, lines, STYLES, swept='training slides')
    assert drawn.get_xscale() == scale
    assert drawn.get_xlabel() == 'training slides'
    assert [text.get_text() for text in drawn.get_xticklabels()] == [f'{p:g}' for p in points]
    for model, (x, y) in lines_of(drawn).items():
        np.testing.assert_allclose(x, points, rtol=0.1)  # side by side, not on one another
        assert y.tolist() == [record['mean']['auc'] for record in lines[model]]


def test_reliability_is_drawn_as_it_was_found():
    records = calibration(classification(slides=100, model='cnn'), rounds=50)
    drawn = axis()
    evaluation_curves.reliability(drawn, {'cnn': records}, STYLES)
    ((x, y),) = lines_of(drawn).values()
    assert x.tolist() == [record['probability'] for record in records]
    assert y.tolist() == [record['frequency'] for record in records]


def test_lesion_size_is_drawn_over_area_with_the_others_beside():
    rows = classification(slides=100, model='cnn')
    for row in rows:
        number = int(row['slide_id'].split()[-1])
        row['lesion_area'] = 1.0 + number if row['label'] == 'tumour' else ''
    records = by_lesion_size(rows, rounds=50)
    for metric in ('probability', 'auc'):
        drawn = axis()
        evaluation_curves.lesion_size(drawn, {'cnn': records}, STYLES, metric=metric)
        ((x, y),) = lines_of(drawn).values()
        of_metric = [record for record in records if record['metric'] == metric]
        assert x.tolist() == [record['area'] for record in of_metric]
        assert y.tolist() == [record['value'] for record in of_metric]
        assert drawn.get_xscale() == 'log'
        (others,) = (r['value'] for r in records if r['metric'] == 'probability_of_others')
        heights = [line.get_ydata()[0] for line in drawn.lines if len(line.get_ydata()) == 2]
        assert (others in heights) == (metric == 'probability')


@pytest.mark.parametrize(
    ('encoders', 'models', 'panels', 'lines'),
    [
        (['vae'], ['cnn', 'mean'], ['vae'], ['cnn', 'mean']),
        (['vae', 'bigan'], ['cnn'], ['cnn'], ['vae', 'bigan']),
        (['vae', 'bigan'], ['cnn', 'mean'], ['vae', 'bigan'], ['cnn', 'mean']),
    ],
)
def test_pictures_have_a_panel_an_encoder_and_a_line_a_model(
    tmp_path, monkeypatch, encoders, models, panels, lines
):
    rows = [
        {**row, 'lesion_area': index + 1.0 if row['label'] == 'tumour' else 0.0}
        for encoder in encoders
        for model in models
        for point in (16.0, 128.0)
        for index, row in enumerate(
            classification(slides=30, seeds=(0,), encoder=encoder, model=model, point=point)
        )
    ]
    figures = []
    save = evaluation_curves.save
    monkeypatch.setattr(
        evaluation_curves, 'save', lambda figure, path: (figures.append(figure), save(figure, path))
    )
    at_one_point = [row for row in rows if row['point'] == 16]
    evaluation_curves.draw_reliability(calibration(at_one_point, rounds=20), tmp_path / 'a.png')
    evaluation_curves.draw_lesion_size(by_lesion_size(at_one_point, rounds=20), tmp_path / 'b.png')
    evaluation_curves.draw_sweep(table(rows, rounds=20), tmp_path / 'c.png', swept='code size')
    for figure, columns in zip(figures, (1, 2, 1), strict=True):
        assert len(figure.axes) == columns * len(panels)
        if len(panels) > 1:
            titles = [axis.get_title(loc='left') for axis in figure.axes]
            assert list(dict.fromkeys(titles)) == panels
        else:
            assert figure.get_suptitle().startswith(f'label, {panels[0]}: ')
        legend = [text.get_text() for text in figure.legends[0].get_texts()]
        assert legend == lines + (['other class'] if columns == 2 else [])
        heights = {axis.get_ylim() for axis in figure.axes[::columns]}
        assert len(heights) == 1  # panels are to be compared
    for path in tmp_path.iterdir():
        assert path.read_bytes().startswith(b'\x89PNG')
