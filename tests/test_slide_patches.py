"""Slides and annotations into a set of training patches, from files on disk to files on disk."""

import csv
import json
import os
import signal
import subprocess
import sys

import numpy as np
import PIL.Image
import pytest
import slide_files

from nic_jax.cohort import CohortError, SlideEntry, read_table
from nic_jax.patches import pairs, store
from nic_jax.patches.slide_patches import annotation_files, make_slide_set
from nic_jax.patches.slide_settings import SlidePatches
from nic_jax.patches.store import PatchesError
from nic_jax.slides.slide import open_slide

P = 16


def settings(**changes):
    return SlidePatches(**{'patch_size': P, 'mpp': 0.5, 'valid_share': 0.0, **changes})


def make(home, entries, annotations=None, *, seed=0, overwrite=False, **changes):
    return make_slide_set(
        entries,
        annotations or {},
        settings(**changes),
        home / 'patches',
        home=home,
        seed=seed,
        workers=2,
        overwrite=overwrite,
    )


def write_slide(folder, name, *, seed=0, rows=9, columns=12, case='', **options):
    image = slide_files.tissue_image(P * rows, P * columns, seed=seed)
    options = {'levels': 1, 'compression': 'zlib', **options}
    path = slide_files.write_pyramid(folder / f'{name}.tif', image, **options)
    return SlideEntry(slide_id=name, path=path, case_id=case or name)


def write_regions(path, **regions):
    """GeoJSON of rectangles (x0, y0, x1, y1), by class."""
    features = [
        {
            'type': 'Feature',
            'geometry': {'type': 'Polygon', 'coordinates': [[[a, b], [c, b], [c, d], [a, d]]]},
            'properties': {'classification': {'name': name}},
        }
        for name, boxes in regions.items()
        for a, b, c, d in boxes
    ]
    path.write_text(json.dumps({'type': 'FeatureCollection', 'features': features}))
    return path


def failures(home):
    with (home / 'failures.csv').open(newline='', encoding='utf-8') as file:
        return {row['slide_id']: row for row in csv.DictReader(file)}


def files_in(folder):
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in folder.rglob('*')
        if file.is_file()
    }


@pytest.fixture
def four(tmp_path):
    folder = tmp_path / 'slides'
    folder.mkdir()
    return [
        write_slide(folder, name, seed=number, case=f'case {number // 2}')
        for number, name in enumerate(('s0', 's1', 's2', 's3'))
    ]


def test_labels_of_known_rectangles(tmp_path):
    # Level 0 has 0.25 µm/px: a patch is 32 px of it, and is read from level 1.
    image = slide_files.tissue_image(32 * 8, 32 * 10)
    path = slide_files.write_pyramid(
        tmp_path / 'a.tif', image, levels=2, mpp=0.25, compression='zlib'
    )
    file = write_regions(
        tmp_path / 'a.geojson',
        tumour=[(0, 0, 32 * 3, 32 * 2 + 16), (32 * 7 + 20, 0, 32 * 8, 32)],
        stroma=[(32 * 3, 0, 32 * 4 + 15, 32 * 8)],
    )
    classes = ('tumour', 'stroma', 'other')
    entry = SlideEntry('a', path, case_id='a')
    summary = make(
        tmp_path, [entry], {'a': file}, classes=classes, background='other', per_slide=3000
    )
    assert summary.short == 1  # all were taken
    patches = store.open_set(tmp_path / 'patches')
    expected = np.full((8, 10), 2)
    expected[:3, :3] = 0  # the third row is half covered
    expected[:, 3] = 1
    expected[0, 7] = -1  # 12 of 32 columns
    expected[:, 4] = -1  # 15 of 32
    x, y = (patches.columns[axis].astype(float) for axis in 'xy')
    found = np.full((8, 10), -1)
    found[(y / 32).astype(int), (x / 32).astype(int)] = patches.labels
    assert found.tolist() == expected.tolist()
    assert len(patches) == (expected >= 0).sum() == summary.patches
    assert patches.classes == classes
    assert patches.mpp == 0.5
    with open_slide(path) as slide:
        for index in (0, 13, len(patches) - 1):
            at = int(x[index]) // 2, int(y[index]) // 2
            assert (patches.pixels[np.array([index])][0] == slide.read(1, *at, P, P)).all()
    with PIL.Image.open(tmp_path / 'patches' / 'positions' / 'a.png') as picture:
        assert picture.size == (320, 256)


def test_classes_are_balanced_and_named_by_the_table(tmp_path, four):
    folder = tmp_path / 'slides'
    write_regions(folder / 'r0.json', _0=[(0, 0, 64, 144)], _1=[(64, 0, 80, 144)])
    write_regions(folder / 'r1.json', _2=[(0, 0, 64, 144)])
    (folder / 'slides.csv').write_text(
        'path,annotation,split\ns0.tif,r0.json,train\ns1.tif,r1.json,valid\n'
        's2.tif,,test\ns3.tif,,\n'
    )
    entries = read_table(folder / 'slides.csv')
    annotations = annotation_files(entries, folder / 'slides.csv')
    assert annotations['s0'] == folder / 'r0.json'
    assert annotations['s2'] is None
    summary = make(
        tmp_path, entries, annotations, per_slide=20,
        classes=('tumour=_0+_1', 'normal'), background='normal', unannotated='normal',
    )  # fmt: skip
    assert (summary.done, summary.left_out) == (3, 1)
    patches = store.open_set(tmp_path / 'patches')
    names = patches.columns['name']
    counted = {
        name: np.bincount(patches.labels[names == name], minlength=2).tolist()
        for name in ('s0', 's1', 's2', 's3')
    }
    assert counted == {'s0': [10, 10], 's1': [0, 10], 's2': [0, 10], 's3': [0, 0]}
    assert dict(zip(names, patches.columns['subset'], strict=True)) == {
        's0': 'train', 's1': 'valid', 's2': 'test',
    }  # fmt: skip


def test_pairs_never_cross_cases_or_subsets(tmp_path):
    entries = [
        write_slide(tmp_path, f's{number}', seed=number, case=f'case {number // 2}')
        for number in range(12)
    ]
    summary = make(
        tmp_path, entries, per_slide=30, valid_share=0.4, train_pairs=200, valid_pairs=40
    )
    assert summary.notes == []
    patches = store.open_set(tmp_path / 'patches')
    cases = patches.columns['source']
    subset_of = dict(zip(cases, patches.columns['subset'], strict=True))
    assert sorted(subset_of.values()) == ['train'] * 4 + ['valid'] * 2
    assert len(set(zip(cases, patches.columns['subset'], strict=True))) == 6
    assert len(patches) == 360
    for subset, count in (('train', 200), ('valid', 40)):
        found = pairs.load_pairs(tmp_path / 'patches', subset)
        indices, same = found[:, :2], found[:, 2] == 1
        assert (patches.columns['subset'][indices] == subset).all()
        assert same.sum() == count // 2
        one, other = indices[~same].T
        beside = patches.columns['name'][one] == patches.columns['name'][other]
        assert beside.sum() == count * 3 // 8
        assert (cases[one[~beside]] != cases[other[~beside]]).all()
        for axis in 'xy':
            at = patches.columns[axis].astype(float)
            assert np.isin(np.abs(at[one] - at[other])[beside], (0, P)).all()


def test_a_bad_slide_does_not_stop_the_others(tmp_path, shared, four):
    broken = sorted((shared / 'data' / 'broken_slides').iterdir())
    entries = [SlideEntry(file.name, file, mpp=0.5, case_id=file.name) for file in broken]
    entries += [SlideEntry('gone', tmp_path / 'gone.tif'), *four]
    annotations = {
        's0': tmp_path / 'missing.xml',
        's1': write_regions(tmp_path / 's1.json', a=[(0, 0, 99, 99)]),
        's2': tmp_path / 's2.json',
    }
    (tmp_path / 's2.json').write_text('{"features"')
    summary = make(tmp_path, entries, annotations, per_slide=5)
    assert (summary.failed, summary.done) == (len(broken) + 3, 2)
    reasons = {name: row['reason'] for name, row in failures(tmp_path).items()}
    assert reasons.keys() == {*(file.name for file in broken), 'gone', 's0', 's2'}
    assert 'there is no file' in reasons['gone']
    assert 'missing.xml' in reasons['s0']
    assert 's2.json' in reasons['s2']
    assert 'cannot read level 0' in reasons['openslide-python_unreadable.svs']
    assert set(store.open_set(tmp_path / 'patches').columns['name']) == {'s1', 's3'}

    write_regions(tmp_path / 's2.json', a=[(0, 0, 99, 99)])
    summary = make(tmp_path, [*four[1:]], annotations, per_slide=5)
    assert (summary.failed, summary.done, summary.skipped) == (0, 1, 2)
    assert 's2' not in failures(tmp_path)
    assert set(store.open_set(tmp_path / 'patches').columns['name']) == {'s1', 's2', 's3'}


KILLED = """
import os, pathlib, signal, sys
sys.path.insert(0, sys.argv[2])
import test_slide_patches as test
from nic_jax import workdir

save_array = workdir.save_array

def die(path, array):
    save_array(path, array)
    if path.name == 's2.npy':  # after a slide's pixels, before its table
        os.kill(os.getpid(), signal.SIGKILL)

workdir.save_array = die
folder = pathlib.Path(sys.argv[1])
entries = [
    test.SlideEntry(f's{n}', folder / 'slides' / f's{n}.tif', case_id=f'case {n // 2}')
    for n in range(4)
]
test.make(folder / 'killed', entries, per_slide=20, train_pairs=64)
"""


def test_resumed_after_a_kill_it_is_the_same_byte_for_byte(tmp_path, four):
    asked = {'per_slide': 20, 'train_pairs': 64}
    (tmp_path / 'killed').mkdir()
    (tmp_path / 'straight').mkdir()
    run = subprocess.run(
        [sys.executable, '-c', KILLED, str(tmp_path), os.path.dirname(__file__)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == -signal.SIGKILL, run.stderr
    with pytest.raises(PatchesError, match='no finished patches'):
        store.open_set(tmp_path / 'killed' / 'patches')
    resumed = make(tmp_path / 'killed', four, **asked)
    assert resumed.skipped < 4
    assert resumed.skipped + resumed.done == 4
    make(tmp_path / 'straight', four, **asked)
    before = files_in(tmp_path / 'straight' / 'patches')
    after = files_in(tmp_path / 'killed' / 'patches')
    assert {k: v for k, v in after.items() if not k.endswith('.partial')} == before
    again = make(tmp_path / 'killed', four, **asked)
    assert (again.skipped, again.done, again.patches) == (4, 0, 80)


def test_what_changed_is_made_again_and_other_settings_are_refused(tmp_path, four):
    file = write_regions(tmp_path / 's0.json', a=[(0, 0, 64, 64)])
    make(tmp_path, four, {'s0': file}, per_slide=8, classes=('a',))
    before = store.open_set(tmp_path / 'patches').columns['x']
    write_regions(tmp_path / 's0.json', a=[(64, 0, 128, 64)])
    summary = make(tmp_path, four, {'s0': file}, per_slide=8, classes=('a',))
    assert (summary.done, summary.skipped) == (1, 3)
    after = store.open_set(tmp_path / 'patches').columns['x']
    assert (before[8:] == after[8:]).all()
    assert (after[:8].astype(float) >= 64).all()
    with pytest.raises(ValueError, match=r'per_slide differ.*--overwrite'):
        make(tmp_path, four, {'s0': file}, per_slide=9, classes=('a',))
    make(tmp_path, four, per_slide=9, seed=1, overwrite=True)
    assert len(store.open_set(tmp_path / 'patches')) == 36


def test_a_slide_depends_on_seed_and_id_alone(tmp_path, four):
    for name, entries, seed in (('a', four, 0), ('b', four[::-1][:2], 0), ('c', four, 1)):
        (tmp_path / name).mkdir()
        make(tmp_path / name, entries, per_slide=9, seed=seed)
    a, b, c = (
        (tmp_path / name / 'patches' / 'parts' / 's3.csv').read_text() for name in ('a', 'b', 'c')
    )
    assert a == b != c


def test_fewer_than_asked_is_said(tmp_path, capsys):
    entries = [
        write_slide(tmp_path, 'small', rows=2, columns=3),
        write_slide(tmp_path, 'large', rows=20, columns=20),
        SlideEntry('white', slide_files.write_pyramid(
            tmp_path / 'white.tif', np.full((64, 64, 3), 255, np.uint8), levels=1)),
    ]  # fmt: skip
    summary = make(tmp_path, entries, per_slide=50)
    assert (summary.short, summary.done, summary.patches) == (2, 3, 56)
    told = capsys.readouterr().out
    assert 'patches small: 6 without label of 6 cells with tissue; no more than 6 cells' in told
    assert 'patches white: none of 0 cells with tissue; no tissue' in told


def test_what_cannot_be_is_said_before_a_slide_is_read(tmp_path, four):
    absent = [SlideEntry(f's{n}', tmp_path / f'{n}.tif', case_id='one') for n in range(3)]
    with pytest.raises(PatchesError, match=r'1 cases for train.*column split.*train_pairs=0'):
        make(tmp_path, absent, train_pairs=10)
    with pytest.raises(PatchesError, match='no slide has annotations; name their files'):
        make(tmp_path, absent, classes=('a',))
    words = [
        SlideEntry(f's{n}', tmp_path, case_id='one', row={'split': word})
        for n, word in enumerate(('train', 'valid'))
    ]
    with pytest.raises(CohortError, match="case 'one' is on two sides"):
        make(tmp_path, words)
    with pytest.raises(PatchesError, match='no patches; see failures'):
        make(tmp_path, absent)
    for wrong in (
        {'per_slide': 0},
        {'label_rule': 'x'},
        {'annotation_origin': 'x'},
        {'label_threshold': 2},
    ):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            settings(**wrong)


def test_real_annotations_on_a_real_slide(tmp_path, shared):
    slides = shared / 'data' / 'slides'
    entries = [SlideEntry('asap', slides / 'example.tif', case_id='asap')]
    make(
        tmp_path, entries, {'asap': slides / 'example.xml'},
        patch_size=32, mpp=1.0, per_slide=1000, background='other',
    )  # fmt: skip
    patches = store.open_set(tmp_path / 'patches')
    assert patches.classes == ('Annotation 0', 'other')
    inside = patches.labels == 0
    x, y = (patches.columns[axis][inside].astype(float) for axis in 'xy')
    # The polygon lies in this box; half of a patch may stick out.
    assert x.min() > 315 - 16
    assert x.max() < 544 - 16
    assert y.min() > 319 - 16
    assert y.max() < 626 - 16
    assert inside.sum() * 32 * 32 == pytest.approx(19_254, rel=0.2)  # its area


@pytest.mark.parametrize(
    ('origin', 'text', 'expected'),
    [
        ('auto', 'geojson', (0, 0)),  # QuPath shows the scanned part alone
        ('level0', 'geojson', (-2, -1)),
        ('auto', 'ncrf', (-2, -1)),
        ('bounds', 'ncrf', (0, 0)),
    ],
)
def test_annotations_begin_where_their_tool_counts_from(tmp_path, origin, text, expected):
    image = slide_files.tissue_image(P * 8, P * 8)
    path = slide_files.write_leica(
        tmp_path / 'a.scn', image, offset=(2 * P, P), canvas=(20 * P, 20 * P)
    )
    file = write_regions(tmp_path / 'a.json', positive=[(3 * P, 2 * P, 5 * P, 6 * P)])
    if text == 'ncrf':
        ring = json.loads(file.read_text())['features'][0]['geometry']['coordinates'][0]
        file.write_text(json.dumps({'positive': [{'vertices': ring}]}))
    make(tmp_path, [SlideEntry('a', path)], {'a': file}, annotation_origin=origin)
    columns = store.open_set(tmp_path / 'patches').columns
    x, y = (columns[axis].astype(float) / P for axis in 'xy')
    assert sorted({*(x - 2 - expected[0])}) == [3, 4]
    assert sorted({*(y - 1 - expected[1])}) == [2, 3, 4, 5]
