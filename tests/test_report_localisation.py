import csv

import numpy as np
import pytest
from made_up_localisation import detections, localisation
from PIL import Image

from nic_jax import progress
from nic_jax.evaluation.free_response import RATES, free_response
from nic_jax.evaluation.localisation_summary import by_lesion_size, summarise
from nic_jax.report import localisation as report
from nic_jax.report.pictures import COLOURS, new_figure

STYLES = {
    name: {'color': colour, 'marker': 'o', 'linestyle': '-'}
    for name, colour in zip(('grad_cam', 'attention'), COLOURS, strict=False)
}


@pytest.fixture(scope='module')
def rows():
    kinds = [
        {'encoder': encoder, 'method': method, 'skill': skill}
        for encoder, method, skill in (
            ('vae', 'grad_cam', 0.5),
            ('vae', 'attention', 0.2),
            ('bigan [16]', 'grad_cam', 0.6),
        )
    ]
    found = [row for each in kinds for row in localisation(**each)]
    found += [row for each in kinds for row in localisation(**{**each, 'skill': 1}, subset='valid')]
    curves = [row for each in kinds[:2] for row in detections(**each)]
    return found, curves


@pytest.fixture(scope='module')
def made(rows, tmp_path_factory):
    folder = tmp_path_factory.mktemp('report')
    with progress.console.capture() as capture:
        files = report.write_tables(*rows, folder, rounds=60)
    return folder, files, capture.get()


def lines_of(folder, name):
    with (folder / name).open(newline='', encoding='utf-8') as file:
        return list(csv.DictReader(file))


def test_all_files_are_written(made):
    folder, files, _ = made
    names = ['localisation.csv', 'localisation_comparisons.csv']
    names += ['localisation_tumour.png', 'froc_tumour.png']
    assert files == [folder / name for name in names]
    assert sorted(folder.iterdir()) == sorted(files)
    for path in files[2:]:
        with Image.open(path) as picture:
            assert len(picture.convert('RGB').getcolors(1 << 24)) > 20


def test_the_table_holds_means_intervals_and_curves(made, rows):
    folder, _, shown = made
    lines = lines_of(folder, 'localisation.csv')
    assert [(line['encoder'], line['method']) for line in lines] == [
        ('vae', 'grad_cam'),
        ('vae', 'attention'),
        ('bigan [16]', 'grad_cam'),
    ]
    curves = free_response(rows[1], rounds=60)
    for line, record in zip(lines, summarise(rows[0], rounds=60), strict=True):
        for name in ('slides', 'jaccard', 'jaccard_low', 'jaccard_high', 'pointing'):
            assert float(line[name]) == record[name]
        assert f'{record["jaccard"]:.3f} [{record["jaccard_low"]:.3f}, ' in shown
    for line, curve in zip(lines, curves, strict=False):
        assert float(line['froc']) == curve['score']
        assert float(line['froc_high']) == curve['high']
        assert (int(line['froc_slides']), int(line['lesions'])) == (20, 30)
        assert f'{curve["score"]:.3f} [{curve["low"]:.3f}, {curve["high"]:.3f}]' in shown
    assert lines[2]['froc'] == 'nan'
    assert 'bigan [16]' in shown
    assert '–' in shown
    assert 'with 2nd region' not in shown  # there is none
    compared = lines_of(folder, 'localisation_comparisons.csv')
    assert [(line['first'], line['second'], line['verdict']) for line in compared] == [
        ('grad_cam', 'attention', 'better'),
        ('vae', 'bigan [16]', 'worse'),
    ]


def test_without_hold_outs_nothing_is_written(rows, tmp_path):
    valid = [row for row in rows[0] if row['subset'] == 'valid']
    assert report.write_tables(valid, rows[1], tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_tables_need_no_detections_and_labels_may_have_any_name(rows, tmp_path):
    named = [{**row, 'label_name': '../a b', 'jaccard_both': 0.25} for row in rows[0][:24]]
    with progress.console.capture() as capture:
        files = report.write_tables(named, [], tmp_path / 'report', rounds=20)
    assert [path.name for path in files] == ['localisation.csv', 'localisation_..%2Fa b.png']
    assert 'with 2nd region' in capture.get()
    assert '0.250 [0.250, 0.250]' in capture.get()
    assert 'FROC' not in capture.get()


def test_means_are_drawn_over_lesion_area(rows):
    records = [each for each in by_lesion_size(rows[0], rounds=20) if each['encoder'] == 'vae']
    lines = {
        name: [record for record in records if record['method'] == name]
        for name in ('grad_cam', 'attention')
    }
    axis = new_figure(1, 1, size=(4, 4)).axes[0]
    report.lesion_size(axis, lines, STYLES)
    drawn = {each.get_label(): each.lines[0] for each in axis.containers}
    assert set(drawn) == set(lines)
    for name, found in lines.items():
        x, y = (np.asarray(each, float) for each in drawn[name].get_data())
        np.testing.assert_allclose(x, [record['area'] for record in found], rtol=0.04)
        np.testing.assert_allclose(y, [record['value'] for record in found])
        assert drawn[name].get_color() == STYLES[name]['color']
    assert (drawn['grad_cam'].get_xdata() != drawn['attention'].get_xdata()).all()
    assert 'cells' in axis.get_xlabel()


def test_curves_are_drawn_over_false_positives(rows):
    records = {record['method']: [record] for record in free_response(rows[1], rounds=20)}
    axis = new_figure(1, 1, size=(4, 4)).axes[0]
    report.free_response_curves(axis, records, STYLES)
    markers = {each.get_label(): each.lines[0] for each in axis.containers}
    curves = [line for line in axis.lines if len(line.get_xdata()) > len(RATES)]
    for curve, (name, (record,)) in zip(curves, records.items(), strict=True):
        np.testing.assert_allclose(markers[name].get_ydata(), record['sensitivities'])
        np.testing.assert_allclose(markers[name].get_xdata(), RATES, rtol=0.04)
        x, y = curve.get_data()
        np.testing.assert_allclose(y, np.interp(x, *record['curve']))
        assert x[0] < RATES[0]
        assert x[-1] == pytest.approx(RATES[-1])
        assert curve.get_color() == STYLES[name]['color']
    assert axis.get_xscale() == 'log'


def test_a_method_has_one_colour_in_all_figures(rows, monkeypatch, tmp_path):
    figures = []
    monkeypatch.setattr(report, 'save', lambda figure, path: figures.append(figure))
    records = by_lesion_size(rows[0], rounds=10)
    report.draw_lesion_size(records, tmp_path / 'all.png')
    report.draw_lesion_size(
        [record for record in records if record['method'] == 'attention'], tmp_path / 'one.png'
    )
    colours = [
        container.lines[0].get_color()
        for figure in figures
        for container in figure.axes[0].containers
        if container.get_label() == 'attention'
    ]
    assert len(colours) == 2
    assert colours[0] == colours[1]
    assert [axis.get_title(loc='left') for axis in figures[0].axes] == ['vae', 'bigan [16]']
