"""Encoders compared on tables of tiles: whole runs, what they must not see, what is refused."""

import collections
import json
import os
import shutil

import numpy as np
import pytest
import slide_files
from PIL import Image
from program import load_experiment
from tile_files import read_csv, tile_image, write_csv, write_tiles

from nic_jax import checks, stages, tile_stages
from nic_jax.encoders.encoder import EncoderError
from nic_jax.encoders.storage import load_encoder
from nic_jax.evaluation import predictions
from nic_jax.grids import open as open_grid
from nic_jax.patches.store import PatchesError, open_set

EXPERIMENT = 'patch_benchmark.py'
# Those of one task and of two, and of pixels alone; all of them are in the slow test.
ENCODERS = ('mean_rgb', 'multitask', 'vae')
TRAINED_FIRST = ('multitask', 'vae', 'mean_rgb')
TASKS = ('lung', 'pcam')
PROBES = {'mlp': (0, 1), 'linear': (0,), 'knn': (0,)}
SUBSETS = ('train',) * 36 + ('valid',) * 12 + ('test',) * 16
UNLABELLED = {'05.jpg': '', '63.jpg': 'NA'}
SKIPPED = {'corrupt.jpg': 'corrupt', 'deep.png': '16 bits', 'cmyk.jpg': 'mode CMYK'}
FOREVER = ('patches', 'encoder', 'compress', 'classify')  # the stages that are not done again


@pytest.fixture(scope='module')
def tiles(tmp_path_factory):
    """Two tables: one that is divided, with a few bad tiles; one of groups that are to be."""
    folder = tmp_path_factory.mktemp('tiles')
    names = [f'{n:02d}.{"jpg" if n % 2 else "png"}' for n in range(len(SUBSETS))]
    labels = {name: str(n // 2 % 2) for n, name in enumerate(names)}
    write_tiles(folder / 'pcam', labels)
    rows = [
        {'path': name, 'label': UNLABELLED.get(name, labels[name]), 'split': subset}
        for name, subset in zip(names, SUBSETS, strict=True)
    ]
    _write_bad_tiles(folder / 'pcam')
    rows += [
        {'path': name, 'label': '0', 'split': subset}
        for name, subset in zip(SKIPPED, ('train', 'valid', 'test'), strict=True)
    ]
    write_csv(folder / 'pcam.csv', rows)

    # A cluster's number is unique within its class alone.
    rows = [
        {'path': f'{n:02d}.jpg', 'label': ('aca', 'n')[n % 2], 'cluster': str(n // 6)}
        for n in range(60)
    ]
    write_tiles(folder / 'lung', {row['path']: row['label'] for row in rows})
    write_csv(folder / 'lung.csv', rows)
    return folder


def _write_bad_tiles(folder):
    image = tile_image('0', seed=0)
    image.save(folder / 'corrupt.jpg')
    data = (folder / 'corrupt.jpg').read_bytes()
    (folder / 'corrupt.jpg').write_bytes(data[: len(data) // 2])
    deep = np.full((64, 64), 40_000, np.uint16)
    Image.fromarray(deep).save(folder / 'deep.png')
    image.convert('CMYK').save(folder / 'cmyk.jpg')


def arguments(tiles, *encoders):
    return (
        f'--config.tasks.pcam.tiles={tiles / "pcam.csv"}',
        f'--config.tasks.lung.tiles={tiles / "lung.csv"}',
        f'--config.encoder={",".join(encoders)}',
        '--config.probe.epochs=30',
    )


@pytest.fixture(scope='module')
def run(program, tiles, tmp_path_factory):
    """The workdir of a finished run, and what it printed."""
    home = tmp_path_factory.mktemp('run')
    return home, program.run(home, f'{EXPERIMENT}:debug', *arguments(tiles, *ENCODERS))


@pytest.fixture
def copy(run, tmp_path):
    """A copy of the finished run, to change."""
    return shutil.copytree(run[0], tmp_path / 'copy')


@pytest.fixture
def no_sheets(monkeypatch):
    """Spares the pictures of patches, nearly all of whose time is compilation."""
    monkeypatch.setattr(tile_stages, 'draw_set', lambda folder, *, seed: None)


def settings(tiles, *encoders, variant='debug', **changes):
    """The settings of `arguments`."""
    config = load_experiment(EXPERIMENT).get_config(variant)
    for task in config.tasks:
        config.tasks[task].tiles = str(tiles / f'{task}.csv')
    config.encoder = ','.join(encoders or ENCODERS)
    config.probe.epochs = 30
    config.update_from_flattened_dict(changes)
    return config


def do(config, home, *names, overwrite=False):
    """Runs stages, as the program does after the check of all."""
    checks.check(config)
    for name in names or config.stages:
        assert stages.STAGES[name](config, home, overwrite=overwrite)


def predicted(home, encoder, task, model):
    return predictions.read(home / encoder / 'classifier' / task / model / 'predictions.csv')


def seconds_and_bytes(home):
    return {
        path.relative_to(home): (path.stat().st_mtime_ns, path.read_bytes())
        for path in home.rglob('*')
        if path.is_file() and '.locks' not in path.parts
    }


def assert_a_picture(path):
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert('RGB'))
    assert min(pixels.shape[:2]) > 40, path
    assert pixels.std() > 10, path


# ---- A whole run ---------------------------------------------------------------------------------


def test_every_probe_predicts_each_labelled_test_tile_once_a_seed(run):
    home, _ = run
    for task in TASKS:
        found = open_set(home / 'patches' / task)
        test = found.indices('test', labelled=True)
        labels = dict(zip(found.columns['name'][test], found.columns['label'][test], strict=True))
        assert len(labels) == {'pcam': 15, 'lung': 12}[task]
        for encoder in ENCODERS:
            for model, seeds in PROBES.items():
                rows = predicted(home, encoder, task, model)
                where = [(row['seed'], row['slide_id']) for row in rows]
                assert sorted(where) == sorted((seed, name) for seed in seeds for name in labels)
                for row in rows:
                    assert row['label'] == labels[row['slide_id']]
                    assert (row['label_name'], row['subset']) == (task, 'test')
                    scores = [row[f'score_{name}'] for name in found.classes]
                    assert sum(scores) == pytest.approx(1, abs=1e-5)
                    assert row['prediction'] == found.classes[int(np.argmax(scores))]


def test_the_table_has_all_and_colours_are_told_apart(run):
    home, _ = run
    table = read_csv(home / 'report' / 'table.csv')
    found = {(row['encoder'], row['label_name'], row['model']) for row in table}
    assert found == {(name, task, probe) for name in ENCODERS for task in TASKS for probe in PROBES}
    for row in table:
        assert int(row['slides']) == {'pcam': 15, 'lung': 12}[row['label_name']]
        assert int(row['seeds']) == len(PROBES[row['model']])
        if row['encoder'] == 'mean_rgb' and row['metric'] in ('accuracy', 'auc'):
            assert float(row['mean']) > 0.9, row


def test_confusions_count_every_test_tile_of_every_seed(run):
    home, _ = run
    for task, classes in (('lung', ('aca', 'n')), ('pcam', ('0', '1'))):
        rows = read_csv(home / 'report' / f'confusion_{task}.csv')
        assert [(row['encoder'], row['label']) for row in rows] == [
            (name, label) for name in TRAINED_FIRST for label in classes
        ]
        for row in rows:
            expected = collections.Counter(
                each['prediction']
                for each in predicted(home, row['encoder'], task, 'mlp')
                if each['label'] == row['label']
            )
            counts = {name: int(row[f'as_{name}']) for name in classes}
            assert counts == {name: expected[name] for name in classes}
            recall = counts[row['label']] / sum(counts.values())
            assert float(row['recall']) == pytest.approx(recall, abs=1e-4)


def test_pictures_are_drawn(run):
    home, printed = run
    pictures = [f'report/{kind}_{task}.png' for kind in ('codes', 'confusion') for task in TASKS]
    assert all(str(home / name) in printed for name in pictures)
    pictures += [
        f'patches/{task}/{name}.png'
        for task in TASKS
        for name in ('patches', 'pairs', 'augmentation')
    ]
    pictures += ['multitask/encoder/curve.png', 'vae/encoder/curve.png', 'vae/encoder/samples.png']
    for name in pictures:
        assert_a_picture(home / name)


@pytest.mark.parametrize('task', TASKS)
def test_codes_are_those_of_the_stored_pixels(run, task):
    home, _ = run
    found = open_set(home / 'patches' / task)
    for name in ENCODERS:
        encoder = load_encoder(name if name == 'mean_rgb' else str(home / name))
        codes = np.load(home / name / 'codes' / task / 'codes.npy')
        assert codes.shape == (len(found), encoder.code_size)
        expected = encoder.apply(encoder.variables, found.pixels[:20])
        np.testing.assert_allclose(codes[:20], expected, rtol=1e-4, atol=1e-4)
        assert np.ptp(codes, axis=0).max() > 1e-3


def test_bad_tiles_are_skipped_counted_and_named(run):
    home, printed = run
    failures = {row['slide_id']: row for row in read_csv(home / 'failures.csv')}
    assert failures.keys() == SKIPPED.keys()
    for name, row in failures.items():
        assert (row['stage'], row['path'].split('/')[-2:]) == ('patches', ['pcam', name])
        assert SKIPPED[name] in row['reason']
    (line,) = (line for line in printed.splitlines() if line.startswith('patches: pcam: 64 tiles'))
    assert '2 without label; 3 skipped: 1 corrupt, 1 16 bits or more a channel, 1 mode CMYK' in line


def test_tiles_without_label_are_kept_but_neither_learned_nor_scored(run):
    found = open_set(run[0] / 'patches' / 'pcam')
    names = found.columns['name']
    for name in UNLABELLED:
        assert found.labels[names == name].tolist() == [-1]
    assert len(np.load(run[0] / 'vae' / 'codes' / 'pcam' / 'codes.npy')) == len(SUBSETS)


def test_groups_are_never_split(run):
    found = open_set(run[0] / 'patches' / 'lung')
    subsets = collections.defaultdict(set)
    for source, subset in zip(found.columns['source'], found.columns['subset'], strict=True):
        subsets[source].add(subset)
    assert len(subsets) == 20
    assert all(len(each) == 1 for each in subsets.values())
    assert set.union(*subsets.values()) == {'train', 'valid', 'test'}


def test_a_finished_run_does_nothing_again(run, tiles):
    home, _ = run
    before = seconds_and_bytes(home)
    do(settings(tiles), home, *FOREVER)
    assert seconds_and_bytes(home) == before


# ---- Changes -------------------------------------------------------------------------------------


def test_a_changed_setting_is_refused_and_overwrite_replaces(copy, tiles):
    for changes, stage, place, named in (
        ({'tasks.pcam.crop': 32}, 'patches', 'patches/pcam', 'crop'),
        ({'vae.batch': 8}, 'encoder', 'vae/encoder', 'settings'),
        ({'probe.units': 8}, 'classify', 'vae/classifier/lung/mlp', 'settings'),
    ):
        changed = settings(tiles, 'vae', **changes)
        with pytest.raises(ValueError, match=rf'{place} was made .*{named} differ.*--overwrite'):
            do(changed, copy, stage)
    changed = settings(tiles, 'mean_rgb', **{'probe.units': 8, 'probe.models': 'mlp'})
    path = copy / 'mean_rgb' / 'classifier' / 'pcam' / 'mlp' / 'predictions.csv'
    before = path.read_bytes()
    do(changed, copy, 'classify', overwrite=True)
    assert path.read_bytes() != before
    do(changed, copy, 'classify')


def test_what_was_made_of_other_patches_is_not_used(copy, tiles, no_sheets):
    # Another draw: what trained an encoder may test it now.
    changed = settings(tiles, 'multitask', 'mean_rgb', seed=1)
    do(changed, copy, 'patches', overwrite=True)
    with pytest.raises(ValueError, match='codes of other patches; run compress with --overwrite'):
        do(changed, copy, 'classify')
    with pytest.raises(ValueError, match='multitask was trained on other patches of pcam'):
        do(changed, copy, 'compress', overwrite=True)
    changed.encoder = 'mean_rgb'
    do(changed, copy, 'compress', 'classify', overwrite=True)
    test = open_set(copy / 'patches' / 'lung').indices('test')
    names = open_set(copy / 'patches' / 'lung').columns['name'][test]
    rows = predicted(copy, 'mean_rgb', 'lung', 'linear')
    assert sorted(row['slide_id'] for row in rows) == sorted(names)


def test_evaluation_needs_the_predictions_alone(run, tiles, tmp_path):
    home, _ = run
    for path in home.glob('*/classifier/*/*/predictions.csv'):
        target = tmp_path / path.relative_to(home)
        target.parent.mkdir(parents=True)
        shutil.copy(path, target)
    do(settings(tiles), tmp_path, 'evaluate')
    for name in ('table.csv', 'confusion_lung.csv', 'confusion_pcam.csv'):
        assert (tmp_path / 'report' / name).read_bytes() == (home / 'report' / name).read_bytes()


def test_the_test_tiles_change_nothing_that_is_learned(program, run, tiles, tmp_path):
    home, _ = run
    shutil.copytree(tiles, tmp_path / 'tiles')
    rng = np.random.default_rng(0)
    rows, changed = read_csv(tiles / 'pcam.csv'), collections.defaultdict(set)
    for number, row in enumerate(row for row in rows if row['split'] == 'test'):
        row['label'] = str(rng.integers(2))
        if number % 2:
            changed['pcam'].add(row['path'])
    write_csv(tmp_path / 'tiles' / 'pcam.csv', rows)
    # A label of the other table is part of a group's name: there, pixels alone are changed.
    lung = open_set(home / 'patches' / 'lung')
    changed['lung'] = set(lung.columns['name'][lung.indices('test')][::2])
    for task, names in changed.items():
        for name in sorted(names):
            noise = rng.integers(256, size=(64, 64, 3)).astype(np.uint8)
            Image.fromarray(noise).save(tmp_path / 'tiles' / task / name)

    other = tmp_path / 'run'
    program.run(
        other,
        f'{EXPERIMENT}:debug',
        *arguments(tmp_path / 'tiles', *ENCODERS),
        f'--stages={",".join(FOREVER)}',
    )
    for name in ('multitask', 'vae'):
        records = [
            json.loads((each / name / 'encoder' / 'encoder.json').read_text())
            for each in (home, other)
        ]
        assert records[0]['sha256'] == records[1]['sha256']
        histories = [
            json.loads((each / name / 'encoder' / 'history.json').read_text())
            for each in (home, other)
        ]
        for record in histories[0] + histories[1]:
            del record['images_per_s']
        assert histories[0] == histories[1]
    for task in TASKS:
        found, moved = (open_set(each / 'patches' / task) for each in (home, other))
        same = ~np.isin(found.columns['name'], sorted(changed[task]))
        kept = np.isin(moved.columns['name'], found.columns['name'][same])
        assert (found.columns['subset'] != 'test')[~same].sum() == 0
        assert (found.pixels[np.flatnonzero(same)] == moved.pixels[np.flatnonzero(kept)]).all()
        for name in ENCODERS:
            codes, others = (
                np.load(each / name / 'codes' / task / 'codes.npy') for each in (home, other)
            )
            assert (codes[same] == others[kept]).all()
            assert (codes[~same] != others[~kept]).any(axis=1).all()
            for model in PROBES:
                scores, others = (
                    {
                        (row['seed'], row['slide_id']): [
                            row[key] for key in row if key.startswith('score_')
                        ]
                        for row in predicted(each, name, task, model)
                    }
                    for each in (home, other)
                )
                unchanged = [key for key in scores if key[1] not in changed[task] and key in others]
                assert len(unchanged) >= 5
                for key in unchanged:
                    np.testing.assert_allclose(others[key], scores[key], atol=1e-6)


# ---- What is made of it --------------------------------------------------------------------------


def test_a_dry_run_counts_tiles_of_folders_and_writes_nothing(program, tiles, tmp_path):
    labels = {
        f'{subset}/{label}/{n}.png': label
        for subset, count in (('train', 4), ('val', 2), ('test', 3))
        for label in '01'
        for n in range(count + int(label))
    }
    write_tiles(tmp_path / 'own', labels)
    printed = program.run(
        tmp_path / 'run',
        f'{EXPERIMENT}:debug',
        f'--config.tasks.pcam.tiles={tmp_path / "own"}',
        f'--config.tasks.lung.tiles={tiles / "lung.csv"}',
        '--config.encoder=mean_rgb,vae',
        '--dry_run',
    )
    for part in (
        'pcam: 21 tiles',
        'train: 4 0, 5 1',
        'valid: 2 0, 3 1',
        'test: 3 0, 4 1',
        'lung: 60 tiles',
        'test: 6 aca, 6 n',
        'vae: 2 steps of 4, from pcam,lung',
        'given: mean_rgb. Nothing was written.',
    ):
        assert part in printed
    assert os.listdir(tmp_path) == ['own']


def test_slides_are_compressed_with_an_encoder_of_tiles(run, tmp_path):
    path = tmp_path / 's.tif'
    slide_files.write_pyramid(path, slide_files.tissue_image(128, 160), mpp=1.0, levels=1)
    config = load_experiment('compress.py').get_config('debug')
    config.slides, config.encoder = str(path), str(run[0] / 'vae')
    config.tissue.mpp = 4.0
    do(config, tmp_path / 'out')
    grid = open_grid(tmp_path / 'out' / 'vae' / 'grids' / 's.zarr')
    assert grid.encoded.shape == (8, 10)
    assert grid.encoded.all()
    assert grid.attributes['encoder']['sha256'] == load_encoder(config.encoder).sha256()
    assert (grid.attributes['mpp_target'], grid.attributes['patch_size']) == (1.0, 16)


# ---- What is refused -----------------------------------------------------------------------------


def test_a_run_without_tiles_says_in_a_line_how_to_give_them(program, tmp_path):
    printed = program.run(tmp_path / 'run', EXPERIMENT, status=2)
    (line,) = printed.strip().splitlines()
    assert line.startswith('error: say where the tiles are: --config.tasks.lung.tiles=PATH or ')
    assert '--config.tasks.pcam.tiles=PATH' in line
    assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize(
    ('key', 'value', 'message'),
    [
        ('encoder', 'mean_rbg', "no encoder 'mean_rbg'"),
        ('encoder', 'vae,vae', 'has several that are called vae'),
        ('vae.sets', 'pcam,lungs', r"--config\.vae\.sets=pcam,lungs names 'lungs'; .* lung, pcam"),
        ('supervised.sets', 'pcam,lung', 'must be one set of labelled patches; multitask takes'),
        ('vae.augmentation', 'heavy', r'--config\.vae\.augmentation=heavy must be one of .*light'),
        ('probe.models', 'mlp,tree', r"--config\.probe\.models: 'tree' must be one of mlp, linear"),
        ('tasks.pcam.label', 'tumour', r"pcam\.csv, line 1: no column 'tumour' among path, label"),
        ('tasks.lung.test_share', 0.0, r'no labelled tile for test, .*lung\.test_share'),
        ('tasks.lung.patch_size', 128, 'patches of 128 px from the central 64 px'),
    ],
)
def test_wrong_settings_are_refused_before_anything_is_done(tiles, key, value, message):
    config = settings(tiles, 'mean_rgb', 'supervised', 'vae', **{key: value})
    with pytest.raises(ValueError, match=message) as refused:
        checks.check(config)
    assert '\n' not in str(refused.value)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda row: {'label': '0'} if row['split'] == 'train' else {}, "no tile of class '1' is"),
        (lambda row: {'slide': 'one'}, r"source 'one' is in train \(.*\) and valid \("),
        (lambda row: {'path': f'none/{row["path"]}'}, 'none of its .* tiles is in '),
        (lambda row: {'split': 'dev'}, "split is 'dev', expected one of train, valid, test"),
    ],
)
def test_wrong_tables_are_refused_before_anything_is_done(tiles, tmp_path, change, message):
    rows = [{**row, 'slide': row['path']} for row in read_csv(tiles / 'pcam.csv')]
    rows = [{**row, **change(row)} for row in rows if row['path'] not in UNLABELLED]
    table = write_csv(tmp_path / 'changed.csv', rows)
    config = settings(tiles, 'mean_rgb')
    config.tasks.pcam.update(tiles=str(table), images=str(tiles / 'pcam'), group='slide')
    with pytest.raises(PatchesError, match=message) as refused:
        checks.check(config)
    assert '\n' not in str(refused.value)
    assert str(table) in str(refused.value)


def test_a_batch_of_more_than_there_are_tiles_can_be_mended(copy, tiles):
    shutil.rmtree(copy / 'vae')
    with pytest.raises(ValueError, match=r'training patches are too few .*--config\.vae\.batch'):
        do(settings(tiles, 'vae', **{'vae.batch': 64}), copy, 'encoder')
    assert not (copy / 'vae').exists()


def test_stages_in_the_wrong_order_say_which_comes_first(run, tiles, tmp_path):
    config = settings(tiles, 'vae')
    with pytest.raises(PatchesError, match='no finished patches; run the stage patches first'):
        do(config, tmp_path, 'encoder')
    with pytest.raises(EncoderError, match=r'encoder\.json cannot be read'):
        do(config, tmp_path, 'compress')
    shutil.copytree(run[0] / 'patches', tmp_path / 'patches')
    with pytest.raises(ValueError, match='run the stage compress first'):
        do(config, tmp_path, 'classify')
    with pytest.raises(ValueError, match=r'no predictions\.csv .*classify first'):
        do(config, tmp_path, 'evaluate')


def test_tiles_of_few_slides_are_learned_from_without_pairs(tiles, tmp_path, capsys, no_sheets):
    rows = [{**row, 'slide': row['split']} for row in read_csv(tiles / 'pcam.csv')]
    table = write_csv(tmp_path / 'pcam.csv', rows)
    config = settings(tiles, 'vae')
    config.tasks.pcam.update(tiles=str(table), images=str(tiles / 'pcam'), group='slide')
    do(config, tmp_path / 'run', 'patches')
    assert 'pcam: contrastive cannot learn: all patches for train are of' in (
        capsys.readouterr().out.replace('\n', ' ')
    )
    made_of = tile_stages.encoder_stage.source_of(tmp_path / 'run' / 'patches' / 'pcam')
    assert made_of.pairs is None
    config.encoder = 'contrastive'
    with pytest.raises(PatchesError, match='no pairs of different slides'):
        do(config, tmp_path / 'run', 'patches')


@pytest.mark.slow
def test_all_encoders_from_nothing_to_a_table(program, tiles, tmp_path):
    objectives = tile_stages.encoder_stage.OBJECTIVES
    program.run(tmp_path, f'{EXPERIMENT}:debug', *arguments(tiles, 'mean_rgb', *objectives))
    found = {row['encoder'] for row in read_csv(tmp_path / 'report' / 'table.csv')}
    assert found == {'mean_rgb', *objectives}
    for name in ('vae', 'bigan'):
        assert_a_picture(tmp_path / name / 'encoder' / 'samples.png')
