"""experiments/mosaic.py as a user runs it, on tiles whose classes differ by colour."""

import csv
import io
import json
import shutil

import numpy as np
import pytest
from mosaic_files import tile_image
from program import load_experiment

import nic_jax.grids
from nic_jax.classifiers.models import NETWORKS
from nic_jax.evaluation import detections, localisation
from nic_jax.explanation.stored import open_saliency
from nic_jax.patches.annotations import read_annotations
from nic_jax.stages import STAGES
from nic_jax.workdir import file_name


@pytest.fixture(scope='module')
def tiles(tmp_path_factory):
    """A folder of class folders within subsets: 96-px tiles."""
    home, seed = tmp_path_factory.mktemp('tiles'), 0
    for subset, count in (('train', 12), ('test', 6)):
        for label in '01':
            folder = home / subset / label
            folder.mkdir(parents=True)
            for number in range(count):
                image = tile_image(label, seed := seed + 1).resize((96, 96))
                image.save(folder / f'{number}.png')
    return home


@pytest.fixture(scope='module')
def finished(program, tiles, tmp_path_factory):
    workdir = tmp_path_factory.mktemp('mosaic')
    printed = program.run(workdir, 'mosaic.py:debug', f'--config.tiles.tiles={tiles}')
    return workdir, printed


def test_every_model_predicts_the_test_slides_of_both_labels(finished):
    workdir, _ = finished
    for label, classes in (
        ('presence', {'normal', 'tumour'}),
        ('arrangement', {'mass', 'scattered'}),
    ):
        for model in NETWORKS:
            path = workdir / 'mean_rgb-p64-s96-1mpp' / 'classifier' / label / model
            text = (path / 'predictions.csv').read_text(encoding='utf-8')
            rows = list(csv.DictReader(io.StringIO(text)))
            assert len(rows) == 4  # the test slides, once: the mean of both folds' networks
            assert {row['slide_id'] for row in rows} == {f'{label}/test_000{k}' for k in range(4)}
            assert {row['label'] for row in rows} == classes
            assert {row['fold'] for row in rows} == {''}
            areas = {row['label']: float(row['lesion_area']) for row in rows}
            assert areas.pop('normal', 0) == 0
            assert all(area >= 1 for area in areas.values())


def test_the_report_has_tables_and_figures(finished):
    workdir, printed = finished
    report = workdir / 'report'
    for name in ('table.csv', 'comparisons.csv', 'lesion_size.csv', 'lesion_size_presence.png'):
        assert (report / name).stat().st_size
        assert name in printed
    with (report / 'table.csv').open(encoding='utf-8') as file:
        assert {row['model'] for row in csv.DictReader(file)} == set(NETWORKS)


@pytest.mark.parametrize(('label', 'target'), [('presence', 'tumour'), ('arrangement', None)])
@pytest.mark.parametrize('model', ['spatial', 'cnn', 'attention_cnn', 'abmil'])
def test_every_test_slide_is_explained_for_the_tools_that_people_have(
    finished, label, target, model
):
    workdir, _ = finished
    encoder = workdir / 'mean_rgb-p64-s96-1mpp'
    folder = encoder / 'explain' / label / model
    for number in range(4):
        slide_id = f'{label}/test_000{number}'
        place = folder / file_name(slide_id)
        record = json.loads((place / 'explained.json').read_text(encoding='utf-8'))
        assert record['slide_id'] == slide_id
        assert record['folds'] == [0, 1]  # both, since neither has seen it
        assert record['target'] == target or record['prediction']
        assert record['pixels']
        grid = nic_jax.grids.open(encoder / 'grids' / f'{slide_id}.zarr')
        maps, attributes = open_saliency(place / 'saliency.zarr')
        assert list(maps) == ['grad_cam']
        np.testing.assert_array_equal(np.isnan(maps['grad_cam']), ~grid.encoded)
        assert attributes['stride_level0'] == grid.attributes['stride_level0']
        assert (place / 'grad_cam.png').stat().st_size
        regions = read_annotations(place / 'grad_cam.geojson').regions
        assert bool(regions) == bool((maps['grad_cam'] > 0).any())
        assert (place / 'grad_cam_patches.png').exists() == bool(regions)


def test_saliency_is_measured_against_the_lesions(finished):
    workdir, _ = finished
    encoder = workdir / 'mean_rgb-p64-s96-1mpp'
    rows = localisation.read_rows(encoder / 'explain' / 'presence' / 'spatial' / 'localisation.csv')
    tested = [row for row in rows if row['subset'] == 'test']
    assert len(tested) == 4
    with (workdir / 'slides' / 'slides.csv').open(encoding='utf-8') as file:
        areas = {row['slide_id']: int(row['lesion_area'] or 0) for row in csv.DictReader(file)}
    for row in rows:
        assert row['lesion_area'] == areas[row['slide_id']]  # outlines, back to cells
        assert (row['jaccard'] == '') == (row['lesion_area'] == 0)
    found = detections.read_rows(encoder / 'explain' / 'presence' / 'spatial' / 'detections.csv')
    assert {row['slide_id'] for row in found} == {row['slide_id'] for row in tested}
    with (workdir / 'report' / 'localisation.csv').open(encoding='utf-8') as file:
        summed = {(row['label_name'], row['model']) for row in csv.DictReader(file)}
    assert ('arrangement', 'cnn') in summed
    page = (workdir / 'report' / 'index.html').read_text(encoding='utf-8')
    assert 'presence/test_0001' in page


def test_a_slide_that_is_gone_is_explained_without_its_pixels(finished, program, tiles, tmp_path):
    workdir, _ = finished
    home = tmp_path / 'moved'
    shutil.copytree(workdir, home)
    place = home / 'mean_rgb-p64-s96-1mpp' / 'explain' / 'presence' / 'cnn'
    for number in (1, 3):
        shutil.rmtree(place / file_name(f'presence/test_000{number}'))
    (home / 'slides' / 'slides' / 'presence' / 'test_0001.tif').unlink()
    shutil.rmtree(home / 'mean_rgb-p64-s96-1mpp' / 'grids' / 'presence' / 'test_0003.zarr')
    asked = (f'--config.tiles.tiles={tiles}', '--config.model=cnn')
    asked += ('--config.cohort.label=presence', '--stages=explain')
    program.run(home, 'mosaic.py:debug', *asked)
    seen = place / file_name('presence/test_0001')
    assert not json.loads((seen / 'explained.json').read_text(encoding='utf-8'))['pixels']
    assert (seen / 'grad_cam.png').stat().st_size
    assert not (seen / 'grad_cam_patches.png').exists()
    assert not (place / file_name('presence/test_0003')).exists()  # no grid: said in failures.csv
    assert 'presence/test_0003' in (home / 'failures.csv').read_text(encoding='utf-8')


def test_a_second_run_makes_and_trains_nothing(finished, program, tiles):
    workdir, _ = finished
    files = [path for path in workdir.rglob('*') if path.is_file()]
    before = {
        path: path.stat().st_mtime_ns
        for path in files
        if (path.suffix in ('.tif', '.png', '.geojson') and 'report' not in path.parts)
        or path.name == 'classifier.json'
    }
    assert before
    assert any('explain' in path.parts for path in before)
    lines = (workdir / 'metrics.jsonl').read_text(encoding='utf-8').splitlines()
    trained = sum(json.loads(line)['stage'] == 'classify' for line in lines)
    program.run(workdir, 'mosaic.py:debug', f'--config.tiles.tiles={tiles}')
    assert before == {path: path.stat().st_mtime_ns for path in before}
    lines = (workdir / 'metrics.jsonl').read_text(encoding='utf-8').splitlines()
    assert sum(json.loads(line)['stage'] == 'classify' for line in lines) == trained


def test_what_is_missing_is_said_before_anything_is_done(program, tiles, tmp_path):
    home = tmp_path / 'none'
    printed = program.run(home, 'mosaic.py:debug', status=2)
    assert '--config.tiles.tiles=PATH' in printed
    wrong = (f'--config.tiles.tiles={tiles}', '--config.mosaic.tumour=cancer')
    printed = program.run(home, 'mosaic.py:debug', *wrong, status=2)
    assert 'cancer is no class' in printed
    wrong = (f'--config.tiles.tiles={tiles}', f'--config.encoder={tmp_path}/gone.h5')
    printed = program.run(home, 'mosaic.py:debug', *wrong, status=2)
    assert f'{tmp_path}/gone.h5' in printed
    assert not home.exists()
    program.run(home, 'mosaic.py:debug', *wrong, '--stages=slides')  # needs no encoder
    assert (home / 'slides' / 'slides.csv').exists()


@pytest.mark.parametrize('variant', ['', 'models', 'shuffled', 'train_size', 'stride', 'debug'])
def test_variants_have_the_settings_of_slides_made_here(variant):
    config = load_experiment('mosaic.py').get_config(variant)
    assert set(config.stages) <= STAGES.keys()
    assert config.tiling.stride == config.mosaic.pitch or config.sweep.key == 'tiling.stride'
    assert config.tiling.patch_size == config.mosaic.patch_size
    assert config.classifier.crop == config.mosaic.cells
