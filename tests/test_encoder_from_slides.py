"""Encoders trained on annotated slides, from files to weights that other experiments load."""

import csv
import json

import numpy as np
import pytest
import slide_files
from PIL import Image
from program import load_experiment
from tile_files import read_csv

from nic_jax import checks, stages
from nic_jax.encoders.storage import load_encoder
from nic_jax.grids import open as open_grid
from nic_jax.patches.pairs import load_pairs
from nic_jax.patches.store import PatchesError, open_set

EXPERIMENT = 'encoders.py'
ENCODERS = ('contrastive', 'supervised')
GOOD = ('s0', 's1', 's2', 's3', 's4', 's5')
SIDE = 192  # px of a slide; tumour is its left half, stroma its right


@pytest.fixture(scope='module')
def slides(tmp_path_factory):
    """Six slides of five cases, the last without annotations, and a broken one."""
    folder = tmp_path_factory.mktemp('slides')
    rows = []
    for number, name in enumerate(GOOD):
        image = slide_files.tissue_image(SIDE, SIDE, seed=number)
        image[:, : SIDE // 2] //= 2
        slide_files.write_pyramid(folder / f'{name}.tif', image, mpp=0.5, levels=1)
        write_annotations(folder / f'{name}.geojson')
        annotation = f'{name}.geojson' if name != 's5' else ''
        split = 'valid' if number in (3, 4) else 'train'
        rows.append((name, f'{name}.tif', f'p{max(0, number - 1)}', annotation, split))
    (folder / 'broken.tif').write_bytes((folder / 's0.tif').read_bytes()[:1000])
    write_table(folder / 'slides.csv', [*rows, ('broken', 'broken.tif', 'p9', '', 'train')])
    write_table(folder / 'good.csv', rows)
    return folder


def write_annotations(path):
    features = [
        {
            'type': 'Feature',
            'geometry': {
                'type': 'Polygon',
                'coordinates': [[[x, 0], [x + SIDE // 2, 0], [x + SIDE // 2, SIDE], [x, SIDE]]],
            },
            'properties': {'classification': {'name': name}},
        }
        for name, x in (('tumour', 0), ('stroma', SIDE // 2))
    ]
    path.write_text(json.dumps({'type': 'FeatureCollection', 'features': features}))


def write_table(path, rows):
    with path.open('w', encoding='utf-8', newline='') as file:
        header = ('slide_id', 'path', 'case_id', 'annotation', 'split')
        csv.writer(file).writerows([header, *rows])


@pytest.fixture(scope='module')
def run(program, slides, tmp_path_factory):
    """The workdir of a run in which one slide failed, and what it printed."""
    home = tmp_path_factory.mktemp('run')
    return home, program.run(
        home,
        f'{EXPERIMENT}:debug',
        f'--config.slides={slides / "slides.csv"}',
        f'--config.encoder={",".join(ENCODERS)}',
        '--config.patches.unannotated=stroma',
        status=1,
    )


def settings(slides, table='good.csv', **changes):
    config = load_experiment(EXPERIMENT).get_config('debug')
    config.slides = str(slides / table)
    config.encoder = ','.join(ENCODERS)
    config.patches.unannotated = 'stroma'
    config.update_from_flattened_dict(changes)
    return config


def do(config, home, *names):
    checks.check(config)
    for name in names or config.stages:
        assert stages.STAGES[name](config, home, overwrite=False)


def files_in(home):
    return {
        path.relative_to(home): (path.stat().st_mtime_ns, path.read_bytes())
        for path in home.rglob('*')
        if path.is_file() and '.locks' not in path.parts
    }


def test_a_broken_slide_is_named_and_the_others_are_learned_from(run):
    home, printed = run
    assert 'failed: broken: ' in printed
    assert '6 slides read, 0 were complete, 1 failed' in printed
    ((row),) = read_csv(home / 'failures.csv')
    assert (row['slide_id'], row['stage']) == ('broken', 'patches')
    assert row['reason']
    for name in ENCODERS:
        assert f'encoder: {name} trained, 4 steps' in printed


def test_patches_carry_the_classes_of_the_annotations(run):
    patches = open_set(run[0] / 'patches' / 'slides')
    assert patches.classes == ('stroma', 'tumour')
    assert patches.mpp == 0.5
    assert set(patches.columns['name']) == set(GOOD)
    assert set(patches.columns['source']) == {'p0', 'p1', 'p2', 'p3', 'p4'}
    x = patches.columns['x'].astype(float)
    for name in GOOD:
        here = patches.columns['name'] == name
        subset = 'valid' if name in ('s3', 's4') else 'train'
        assert set(patches.columns['subset'][here]) == {subset}
        if name == 's5':
            assert (patches.labels[here] == 0).all()
        else:
            assert (patches.labels[here] == (x[here] < SIDE // 2)).all()
            assert np.bincount(patches.labels[here]).tolist() == [20, 20]
    dark = patches.pixels[np.flatnonzero(patches.labels == 1)].mean()
    assert dark < 0.7 * patches.pixels[np.flatnonzero(patches.labels == 0)].mean()


def test_pairs_are_within_a_subset_and_those_apart_of_other_cases(run):
    folder = run[0] / 'patches' / 'slides'
    patches = open_set(folder)
    for subset, count in (('train', 60), ('valid', 20)):
        one, other, same = load_pairs(folder, subset).T
        assert len(one) == count
        assert set(patches.columns['subset'][np.r_[one, other]]) == {subset}
        assert (same == 1).sum() == count // 2
        assert (one[same == 1] == other[same == 1]).all()
        slides, cases = (
            patches.columns[key][one] == patches.columns[key][other] for key in ('name', 'source')
        )
        # Of the others, three in four are beside each other in a slide; the rest of other cases.
        assert slides[same == 0].sum() == round(0.75 * count / 2)
        assert not cases[(same == 0) & ~slides].any()


def test_pictures_are_drawn(run):
    folder = run[0] / 'patches' / 'slides'
    pictures = [folder / f'{name}.png' for name in ('patches', 'pairs', 'augmentation')]
    pictures += [run[0] / name / 'encoder' / 'curve.png' for name in ENCODERS]
    for path in pictures:
        with Image.open(path) as picture:
            assert np.asarray(picture.convert('RGB')).std() > 10, path
    assert {path.stem for path in (folder / 'positions').iterdir()} == set(GOOD)


def test_the_encoders_are_loaded_by_their_folder(run):
    home, _ = run
    pixels = open_set(home / 'patches' / 'slides').pixels[:8]
    for name in ENCODERS:
        encoder = load_encoder(str(home / name))
        assert encoder.name == name
        assert (encoder.inputs, encoder.channels, encoder.code_size) == (((16, 0.5),), 3, 8)
        codes = np.asarray(encoder.apply(encoder.variables, pixels))
        assert codes.shape == (8, 8)
        assert np.isfinite(codes).all()
        assert np.ptp(codes, axis=0).max() > 1e-3
        history = json.loads((home / name / 'encoder' / 'history.json').read_text())
        assert [record['step'] for record in history] == [2, 4]


def test_a_second_run_does_nothing_again_even_without_the_broken_slide(run, slides):
    home, _ = run
    before = files_in(home)
    do(settings(slides), home)
    after = files_in(home)
    assert after.keys() == before.keys()
    redone = {str(path) for path in before if after[path][0] != before[path][0]}
    # The set is joined anew, of the same parts to the same bytes.
    assert not any('parts/' in path or '/encoder/' in path for path in redone), redone
    assert {path for path in before if after[path][1] != before[path][1]} <= {
        path for path in before if path.name == 'failures.csv'
    }


def test_an_encoder_that_is_trained_here_compresses_the_slides(run, slides):
    home, _ = run
    config = settings(slides, encoder='supervised')
    config.compress.versions = 1
    config.tissue.mpp = 2.0
    do(config, home, 'compress')
    for name in GOOD:
        grid = open_grid(home / 'supervised' / 'grids' / f'{name}.zarr')
        assert grid.encoded.shape == (SIDE // 16, SIDE // 16)
        sha256 = load_encoder(str(home / 'supervised')).sha256()
        assert grid.attributes['encoder']['sha256'] == sha256


def test_what_is_missing_is_told_and_does_not_stand_in_the_way(slides, tmp_path):
    config = settings(slides, encoder='supervised')
    with pytest.raises(PatchesError, match='no finished patches; run the stage patches first'):
        do(config, tmp_path, 'encoder')
    assert not (tmp_path / 'supervised').exists()


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'encoder': 'mean_rgb'}, 'train encoders, and --config.encoder=mean_rgb names none of'),
        ({'shard': '0/2'}, r'--config\.shard=0/2 is for compressing; train without it'),
        ({'patches.label_rule': 'most'}, "label_rule='most' must be one of share, centre"),
        ({'vae.steps': 0, 'encoder': 'vae'}, 'steps=0 must be at least 1'),
    ],
)
def test_wrong_settings_are_refused_before_anything_is_done(slides, changes, message):
    with pytest.raises(ValueError, match=message) as refused:
        checks.check(settings(slides, **changes))
    assert '\n' not in str(refused.value)
