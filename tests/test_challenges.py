"""Readers of challenges' folders: what they find, measure, tell and refuse; and the miniatures."""

import collections
import csv
import os
import shutil
import tarfile

import numpy as np
import pytest
import slide_files
from skimage.draw import polygon

from nic_jax import challenges
from nic_jax.challenges import camelyon16, lesions, liver, rectum, tupac16
from nic_jax.challenges.found import set_aside
from nic_jax.cohort import CohortError
from nic_jax.patches.annotations import Region, read_annotations


@pytest.fixture(scope='module')
def originals(tmp_path_factory):
    """A miniature of every layout, not to be changed."""
    folder = tmp_path_factory.mktemp('miniatures')
    for layout in challenges.LAYOUTS:
        challenges.write_miniature(layout, folder / layout, seed=0)
    return folder


@pytest.fixture
def cohort(originals, tmp_path):
    """Copies a miniature, to be changed."""
    return lambda layout: shutil.copytree(originals / layout, tmp_path / layout)


def read(layout, folder, **options):
    """Entries by id, and the notes as one text."""
    notes = []
    entries = challenges.read(layout, folder, tell=notes.append, **options)
    return {entry.slide_id: entry for entry in entries}, '\n'.join(notes)


def rows_of(path):
    with path.open(newline='', encoding='utf-8') as file:
        return list(csv.reader(file))


def write_rows(path, rows):
    with path.open('w', newline='', encoding='utf-8') as file:
        csv.writer(file).writerows(rows)


def change(path, old, new):
    text = path.read_text(encoding='utf-8')
    assert old in text
    path.write_text(text.replace(old, new), encoding='utf-8')


def problems(error):
    """The numbered lines of a refusal."""
    return str(error.value).splitlines()[1:]


# ---- Lesions -------------------------------------------------------------------------------------


def square(x, y, side, name='_0'):
    corners = np.array([(0, 0), (side, 0), (side, side), (0, side)], float)
    return Region(name, corners + (x, y))


def test_areas_and_diameters_of_known_outlines():
    # 0.5 µm/px: a square of 2000 px has 1 mm², the overlap of two counts once, a hole not at all.
    found = lesions.measure([square(0, 0, 2000), square(1000, 0, 2000, '_1')], 0.5)
    assert found.area_mm2 == pytest.approx(1.5, rel=1e-9)
    found = lesions.measure([square(0, 0, 2000), square(500, 500, 1000, '_2')], 0.5)
    assert found.area_mm2 == pytest.approx(0.75, rel=1e-9)
    assert found.longest_mm == pytest.approx(2**0.5, rel=1e-12)
    assert found.unknown == ()
    # What lies beside a lesion takes nothing from it.
    found = lesions.measure([square(0, 0, 2000), square(5000, 0, 1000, 'Exclusion')], 0.5)
    assert found.area_mm2 == pytest.approx(1, rel=1e-9)
    # Small ones are measured as well as large ones that are far away.
    found = lesions.measure([square(0, 0, 40), square(0, 150_000, 40)], 0.5)
    assert found.area_mm2 == pytest.approx(2 * 0.02**2, rel=1e-9)


@pytest.mark.parametrize(('side', 'size'), [(2828, 'micro'), (2829, 'macro')])
def test_longer_than_two_millimetres_is_macro(side, size):
    # The diagonal of 2828.4 px is 4000 px, 2 mm.
    assert lesions.measure([square(10, 10, side)], 0.5).size == size


def test_outlines_on_one_line_and_none_at_all():
    flat = Region('_0', np.array([(0, 0), (3000, 4000), (1500, 2000)], float))
    found = lesions.measure([flat], 1.0)
    assert found.longest_mm == pytest.approx(5)
    assert found.area_mm2 == 0
    assert lesions.measure([], 1.0) == lesions.Lesions(0, 0, ())


def test_groups_of_unknown_names_count_and_are_told():
    found = lesions.measure([square(0, 0, 1000, 'Annotation 3'), square(0, 0, 10, 'TUMOR')], 1.0)
    assert found.unknown == ('Annotation 3',)
    assert found.area_mm2 == pytest.approx(1)


@pytest.mark.slow
def test_areas_of_real_lesions_are_those_of_a_raster(shared, tmp_path):
    """CAMELYON16's own outlines, in NCRF's format, against the pixels scikit-image fills."""
    with tarfile.open(shared / 'data/annotations/camelyon16_ncrf_jsons.tar.xz') as archive:
        names = ('Tumor_101.json', 'Tumor_103.json', 'Tumor_110.json')
        for member in archive:
            if os.path.basename(member.name) in names:
                member.name = os.path.basename(member.name)
                archive.extract(member, tmp_path, filter='data')
    for name in names:
        regions = read_annotations(tmp_path / name).regions
        found = lesions.measure(regions, 0.243)
        corners = np.concatenate([region.outer for region in regions])
        low, step = corners.min(axis=0), np.ptp(corners, axis=0).max() / 2000
        shape = tuple(np.ceil(np.ptp(corners, axis=0)[::-1] / step).astype(int) + 2)
        filled = {'positive': np.zeros(shape, bool), 'negative': np.zeros(shape, bool)}
        for region in regions:
            x, y = ((region.outer - low) / step).T
            filled[region.name][polygon(y, x, shape)] = True
        area = (filled['positive'] & ~filled['negative']).sum() * (step * 0.243e-3) ** 2
        # The raster of 2000 px places every edge to half a pixel.
        assert found.area_mm2 == pytest.approx(area, rel=0.01)


# ---- Slides set aside ----------------------------------------------------------------------------


def draw(strata, count, *, seed=0, problems=None):
    return set_aside(strata, count, share=60 / 270, seed=seed, problems=problems or [])


def test_slides_set_aside_are_a_stratified_draw_of_the_seed():
    strata = ['normal'] * 159 + ['tumor'] * 111
    drawn = draw(strata, 60)
    assert len(drawn) == 60
    counts = collections.Counter(strata[index] for index in drawn)
    assert abs(counts['tumor'] - 60 * 111 / 270) <= 1
    assert drawn == draw(strata, 60) == draw(strata, None)
    assert drawn != draw(strata, 60, seed=1)
    assert draw(strata, 0) == set()
    assert len(draw(strata[150:168], None)) == 4
    assert len(draw(strata[:3], None)) == 2


@pytest.mark.parametrize('count', [270, -1])
def test_not_all_slides_can_be_set_aside(count):
    problems = []
    assert set_aside([''] * 270, count, share=0.1, seed=0, problems=problems) == set()
    assert 'of 270 that could be; give more slides, or --config.cohort' in problems[0]


def test_slides_are_used_for_what_they_are_for(originals):
    entries = challenges.read('camelyon16', originals / 'camelyon16', encoder_slides=5)
    for_encoders = challenges.used_for(entries, challenges.FOR_ENCODERS)
    others = challenges.used_for(entries, challenges.FOR_CLASSIFICATION)
    assert len(for_encoders) == 5
    assert {*ids(for_encoders)}.isdisjoint(ids(others))
    assert len(others) == len(entries) - 5
    entries = challenges.read('liver', originals / 'liver')
    assert challenges.used_for(entries, challenges.FOR_ENCODERS) == entries
    with pytest.raises(CohortError, match='liver has no slides for encoders alone'):
        challenges.read('liver', originals / 'liver', encoder_slides=5)


def ids(entries):
    return [entry.slide_id for entry in entries]


# ---- CAMELYON16 ----------------------------------------------------------------------------------


def test_camelyon16_tells_labels_sizes_areas_and_groups(originals):
    slides, notes = read('camelyon16', originals / 'camelyon16')
    assert len(slides) == 22
    kinds = collections.Counter(entry.row['metastasis'] for entry in slides.values())
    assert kinds == {'normal': 11, 'tumor': 11}
    macro, micro = np.pi / 4 * 2.16 * 1.4, np.pi / 4 * 0.7 * 0.6  # mm², of the ellipses drawn
    for name, entry in slides.items():
        row = entry.row
        assert row['group_Test'] == str(int(name.startswith('test_')))
        assert row['group_Macro'] == str(int(row['size'] != 'micro'))
        assert entry.path.exists()
        assert entry.case_id == name
        area = {'none': 0, 'macro': macro, 'micro': micro}[row['size']]
        # An outline of 36 vertices has .5 % less than its ellipse.
        assert float(row['lesion_area_mm2']) == pytest.approx(area, rel=0.006)
        assert os.path.exists(row['annotation']) == (row['metastasis'] == 'tumor')
    aside = [entry for entry in slides.values() if entry.row['use'] == 'encoder']
    assert sorted(entry.row['metastasis'] for entry in aside) == ['normal'] * 2 + ['tumor'] * 2
    assert not any(entry.row['group_Test'] == '1' for entry in aside)
    assert '8 of 159 normal, 8 of 111 tumor, 6 of 129 test' in notes
    assert '18 slides for classification (the paper had 60 and 340)' in notes


def test_camelyon16_leaves_out_what_its_organisers_withdrew(cohort):
    folder = cohort('camelyon16')
    shutil.copy(
        folder / 'training/normal/normal_001.tif', folder / 'training/normal/normal_086.tif'
    )
    slides, notes = read('camelyon16', folder)
    assert not {'normal_086', 'test_049'} & slides.keys()
    assert 'normal_086.tif is left out: misclassified, renamed to tumor_111' in notes
    assert 'test_049.tif is left out: a duplicate' in notes


def test_camelyon16_test_114_has_a_size_but_no_area(cohort):
    folder = cohort('camelyon16')
    (folder / 'testing/images/test_001.tif').rename(folder / 'testing/images/test_114.tif')
    annotations = folder / 'testing/lesion_annotations'
    (annotations / 'test_001.xml').rename(annotations / 'test_114.xml')
    change(folder / 'testing/reference.csv', 'test_001', 'test_114')
    slides, _ = read('camelyon16', folder)
    assert slides['test_114'].row['size'] == 'macro'
    assert slides['test_114'].row['lesion_area_mm2'] == ''


def test_camelyon16_reads_the_flat_copy_with_capitals_a_header_and_no_sizes(originals, cohort):
    folder = cohort('camelyon16')
    flat = folder.parent / 'flat'
    for kind in ('images', 'annotations', 'masks', 'evaluation'):
        (flat / kind).mkdir(parents=True)
    for file in folder.rglob('*.tif'):
        shutil.move(file, flat / 'images' / file.name.capitalize())
    shutil.copy(flat / 'images/Tumor_001.tif', flat / 'masks/tumor_001.tif')
    for file in folder.rglob('*.xml'):
        shutil.move(file, flat / 'annotations' / file.name)
    rows = [row[:2] for row in rows_of(folder / 'testing/reference.csv')]
    write_rows(flat / 'evaluation/reference.csv', [['image', 'label'], *rows])
    expected, _ = read('camelyon16', originals / 'camelyon16')
    found, _ = read('camelyon16', flat)
    for name, entry in expected.items():
        same = ('metastasis', 'size', 'lesion_area_mm2', 'group_Macro', 'use')
        assert {key: found[name].row[key] for key in same} == {key: entry.row[key] for key in same}


def test_camelyon16_tells_what_is_missing_and_takes_the_rest(cohort):
    folder = cohort('camelyon16')
    (folder / 'training/lesion_annotations/tumor_002.xml').unlink()
    (folder / 'training/normal/normal_003.tif').unlink()
    (folder / 'training/tumor/tumor_004.tif').unlink()
    (folder / 'testing/images/test_002.tif').unlink()
    slides, notes = read('camelyon16', folder)
    assert len(slides) == 19
    row = slides['tumor_002'].row
    assert (row['size'], row['lesion_area_mm2'], row['group_Macro']) == ('', '', '0')
    assert '1 tumour slides have no annotation' in notes
    assert 'tumor_002; were all lesion_annotations.zip unpacked?' in notes
    assert '1 annotations are of slides that are not there: tumor_004' in notes
    assert 'no slide for 1 of its rows: test_002' in notes


def test_camelyon16_tells_all_problems_at_once(cohort):
    folder = cohort('camelyon16')
    reference = folder / 'testing/reference.csv'
    change(reference, 'test_001,Tumor', 'test_001,Tumour')
    change(reference, 'test_002,Normal,None,None\n', 'test_002,Normal,None,Micro\n')
    change(reference, 'test_003,Tumor,IDC,Micro\n', '')
    annotations = folder / 'training/lesion_annotations'
    (annotations / 'tumor_001.xml').write_text('<nothing/>')
    shutil.copy(folder / 'training/tumor/tumor_002.tif', folder / 'training/tumor_002.tif')
    with pytest.raises(CohortError, match='5 problems with the files of CAMELYON16') as error:
        read('camelyon16', folder)
    told = problems(error)
    assert len(told) == 5
    for number, words in enumerate(
        (
            ('tumor_002.tif and ', 'are both called tumor_002; move one away'),
            ('line 1: test_001 is', "'tumour'; write Normal or Tumor"),
            ('line 2: the size of test_002 (normal) is', "'micro'; write None for normal"),
            ('has no row for 1 test slides: test_003; add them',),
            ('tumor_001.xml', 'expected <ASAP_Annotations>'),
        )
    ):
        for part in words:
            assert part in told[number]


@pytest.mark.parametrize(
    ('removed', 'message'),
    [
        ('testing/reference.csv', 'no reference.csv; put the challenge’s'),
        ('training/normal', None),
        ('training', 'training slides'),
    ],
)
def test_camelyon16_without_a_part(cohort, removed, message):
    folder = cohort('camelyon16')
    if (folder / removed).is_dir():
        shutil.rmtree(folder / removed)
    else:
        (folder / removed).unlink()
    if message is None:  # the test set's normal slides remain
        read('camelyon16', folder)
    else:
        with pytest.raises(CohortError, match=message if 'csv' in removed else 'encoder_slides=0'):
            read('camelyon16', folder)


@pytest.mark.parametrize('layout', ['camelyon16', 'tupac16'])
def test_a_folder_with_nothing_in_it_and_none(layout, tmp_path):
    with pytest.raises(CohortError, match='give the folder that holds'):
        read(layout, tmp_path)
    with pytest.raises(CohortError, match='is no folder'):
        read(layout, tmp_path / 'nothing')


def test_an_outline_of_no_area_on_a_tumour_slide_is_refused(cohort):
    folder = cohort('camelyon16')
    change(folder / 'training/lesion_annotations/tumor_001.xml', '"_0"', '"_2"')
    with pytest.raises(CohortError, match=r'tumor_001\.xml outlines no tumour'):
        read('camelyon16', folder)


# ---- TUPAC16 -------------------------------------------------------------------------------------


def test_tupac16_tells_scores_in_the_order_of_cases(originals):
    folder = originals / 'tupac16'
    slides, notes = read('tupac16', folder)
    lines = rows_of(folder / 'training_ground_truth.csv')
    assert len(slides) == 18
    for number, (mitoses, score) in enumerate(lines, 1):
        entry = slides[f'TUPAC-TR-{number:03d}']
        assert (entry.row['mitosis_score'], entry.row['proliferation']) == (mitoses, score)
        assert entry.path.name == f'TUPAC-TR-{number:03d}.svs'
    for number in range(1, 5):
        assert slides[f'TUPAC-TE-{number:03d}'].row['proliferation'] == ''
    assert sum(entry.row['use'] == 'encoder' for entry in slides.values()) == 2
    assert '14 of 500 training and 4 of 321 test slides' in notes


def test_tupac16_finds_slides_in_folders_of_their_own_and_says_which_are_missing(cohort):
    folder = cohort('tupac16')
    images = folder / 'training_image_data'
    (images / '005').mkdir()
    (images / 'TUPAC-TR-005.svs').rename(images / '005' / 'TUPAC-TR-005.svs')
    (images / 'TUPAC-TR-007.svs').unlink()
    (folder / 'mitoses_image_data' / '01').mkdir(parents=True)
    shutil.copy(images / 'TUPAC-TR-001.svs', folder / 'mitoses_image_data/01/01.tif')
    slides, notes = read('tupac16', folder)
    assert slides['TUPAC-TR-005'].path.parent.name == '005'
    assert len(slides) == 17
    assert 'no slide for 1 of its cases: TUPAC-TR-007' in notes


def test_tupac16_tells_all_problems_at_once(cohort):
    folder = cohort('tupac16')
    path = folder / 'training_ground_truth.csv'
    rows = rows_of(path)[:13]
    rows[1][0], rows[2][1], rows[3] = '4', 'high', ['1']
    write_rows(path, rows)
    with pytest.raises(CohortError) as error:
        read('tupac16', folder)
    told = problems(error)
    assert len(told) == 4
    assert "case 2: the score by mitoses is '4'" in told[0]
    assert "case 3: the proliferation score is 'high'" in told[1]
    assert 'case 4: 1 cells' in told[2]
    assert 'none for 1 training slides: TUPAC-TR-014' in told[3]


def test_tupac16_passes_over_a_header_but_no_case(cohort):
    folder = cohort('tupac16')
    path = folder / 'training_ground_truth.csv'
    rows = rows_of(path)
    write_rows(path, [['mitosis', 'molecular'], *rows])
    slides, _ = read('tupac16', folder)
    assert slides['TUPAC-TR-001'].row['proliferation'] == rows[0][1]
    write_rows(path, [['1', 'NaN'], *rows[1:]])
    with pytest.raises(CohortError, match="case 1: the proliferation score is 'NaN'"):
        read('tupac16', folder)


def test_a_submission_has_a_line_for_each_test_case(tmp_path):
    rows = [
        {'slide_id': f'TUPAC-TE-{number:03d}', 'prediction': number + seed / 10, 'subset': 'new'}
        for seed in (0, 1)
        for number in (2, 1, 3)
    ]
    rows.append({'slide_id': 'TUPAC-TR-001', 'prediction': 9.0, 'subset': 'test'})
    path = tupac16.write_submission(rows, tmp_path / 'submission.csv')
    assert path.read_text() == '-1,1.050000\n-1,2.050000\n-1,3.050000\n'
    with pytest.raises(ValueError, match='no prediction of TUPAC-TE-002'):
        tupac16.write_submission([row for row in rows if '002' not in row['slide_id']], path)
    with pytest.raises(ValueError, match='no prediction of TUPAC-TE-001'):
        tupac16.write_submission([], path)

    rows = [{**row, 'encoder': name, 'model': 'cnn'} for name in ('a/b', 'vae') for row in rows]
    made = challenges.write_submissions('tupac16', rows, tmp_path)
    assert [file.name for file in made] == ['submission_a%2Fb_cnn.csv', 'submission_vae_cnn.csv']
    assert {file.read_text() for file in made} == {'-1,1.050000\n-1,2.050000\n-1,3.050000\n'}
    assert challenges.write_submissions('camelyon16', rows, tmp_path) == []


# ---- Liver and rectum ----------------------------------------------------------------------------


def test_liver_keeps_patients_and_outcomes(originals):
    slides, notes = read('liver', originals / 'liver')
    assert '21 slides of 16 patients' in notes
    patients = collections.Counter(entry.case_id for entry in slides.values())
    assert set(patients.values()) == {1, 2}
    by_table, _ = read('liver', originals / 'liver' / 'slides.csv')
    assert by_table == slides


def test_liver_tells_all_problems_at_once(cohort):
    path = cohort('liver') / 'slides.csv'
    rows = rows_of(path)
    rows[1][3], rows[2][4], rows[4][5], rows[6][4] = 'mixed', '0', 'dead', ''
    write_rows(path, rows)
    with pytest.raises(CohortError) as error:
        read('liver', path.parent)
    told = '\n'.join(problems(error))
    assert len(problems(error)) == 5
    assert 'growth_pattern has 3 words (desmoplastic, mixed, replacement)' in told
    assert f"{rows[2][0]}: os_days is '0'" in told
    assert f"{rows[4][0]}: os_event is 'dead'" in told
    assert f'{rows[6][0]}: os_days and os_event are given together' in told
    assert 'patients differ in growth_pattern, os_days or os_event' in told


def test_liver_without_columns_or_slides(cohort):
    folder = cohort('liver')
    path = folder / 'slides.csv'
    rows = rows_of(path)
    (folder / rows[1][1]).unlink()
    slides, notes = read('liver', folder)
    assert f'1 slides are left out, there is no file: {rows[1][0]}' in notes
    assert len(slides) == 20
    shutil.rmtree(folder / 'images')
    write_rows(path, [row[:4] for row in rows])
    with pytest.raises(CohortError) as error:
        read('liver', folder)
    told = problems(error)
    assert 'no columns os_days, os_event among growth_pattern' in told[0]
    assert 'none of its 21 slides exist' in told[1]


def test_rectum_finds_the_nine_classes_in_both_formats(originals):
    slides, notes = read('rectum', originals / 'rectum')
    assert len(slides) == 11
    assert {entry.row['annotation'].rsplit('.')[-1] for entry in slides.values()} == {
        'xml',
        'geojson',
    }
    assert '11 slides of 10 patients' in notes
    assert '11 tumour' in notes
    assert rectum.CLASS_SETTING[0] == 'blood cells=blood cells'
    assert rectum.CLASS_SETTING[-1] == 'tumour=tumour+tumor'


def test_rectum_tells_what_is_missing_and_all_problems_at_once(cohort):
    folder = cohort('rectum')
    path = folder / 'slides.csv'
    rows = rows_of(path)
    rows[1][3] = ''
    write_rows(path, rows)
    change(folder / rows[3][3], '"tumour"', '"carcinoma"')
    slides, notes = read('rectum', folder)  # patient 0 has another slide
    assert len(slides) == 10
    assert f'1 slides are left out, they have no annotation: {rows[1][0]}' in notes
    assert f"outlines called 'carcinoma' label nothing: {rows[3][0]}" in notes

    rows[2][3] = 'annotations/none.xml'
    write_rows(path, rows)
    for row in rows[3:]:
        text = (folder / row[3]).read_text().replace('mucus', 'mucosa')
        (folder / row[3]).write_text(text)
    (folder / rows[3][3]).write_text('{')
    with pytest.raises(CohortError) as error:
        read('rectum', folder)
    told = problems(error)
    assert len(told) == 4
    assert 'annotations/none.xml; correct the column annotation' in told[0]
    assert 'neither XML nor JSON' in told[1]
    assert 'no slide has outlines of mucus' in told[2]
    assert '9 patients cannot make 10 parts' in told[3]


# ---- Miniatures ----------------------------------------------------------------------------------


def test_a_miniature_is_the_same_for_the_same_seed_and_resumed_when_unfinished(tmp_path):
    def content(folder):
        return {
            path.relative_to(folder): path.read_bytes()
            for path in folder.rglob('*')
            if path.is_file()
        }

    challenges.write_miniature('liver', tmp_path / 'a', seed=0)
    challenges.write_miniature('liver', tmp_path / 'b', seed=0)
    challenges.write_miniature('liver', tmp_path / 'c', seed=1)
    first = content(tmp_path / 'a')
    assert first == content(tmp_path / 'b')
    assert first != content(tmp_path / 'c')
    before = {path: os.stat(path).st_mtime_ns for path in (tmp_path / 'a').rglob('*.tif')}
    challenges.write_miniature('liver', tmp_path / 'a', seed=0)
    assert before == {path: os.stat(path).st_mtime_ns for path in before}
    (tmp_path / 'a/finished').unlink()  # as a kill leaves it
    next(iter(before)).unlink()
    challenges.write_miniature('liver', tmp_path / 'a', seed=0)
    assert first == content(tmp_path / 'a')
    with pytest.raises(ValueError, match='made with other settings'):
        challenges.write_miniature('liver', tmp_path / 'a', seed=1)


def test_unknown_layouts_are_refused(tmp_path):
    for call in (
        lambda: challenges.read('camelyon', tmp_path),
        lambda: challenges.write_miniature('camelyon', tmp_path, seed=0),
    ):
        with pytest.raises(CohortError, match='there are camelyon16, tupac16, liver, rectum'):
            call()


def test_slides_without_pixels_size_are_told(cohort):
    folder = cohort('camelyon16')
    path = folder / 'training/tumor/tumor_001.tif'
    path.unlink()
    slide_files.write_pyramid(path, slide_files.tissue_image(64, 64), levels=1, mpp=None)
    with pytest.raises(CohortError, match=r'tumor_001 cannot be measured.*does not tell its µm/px'):
        read('camelyon16', folder)


def test_readers_and_names():
    assert list(challenges.LAYOUTS.values()) == [
        camelyon16.read,
        tupac16.read,
        liver.read,
        rectum.read,
    ]
