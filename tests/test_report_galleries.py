import json
import math
import urllib.parse

import numpy as np
import pytest
import slide_files
from html_pages import HOSTILE, read
from PIL import Image

from nic_jax.explanation.overlay import Thumbnail
from nic_jax.explanation.stored import write_saliency
from nic_jax.grids import arrays, schema
from nic_jax.patches.annotations import Region
from nic_jax.report import galleries, page_galleries
from nic_jax.report.galleries import Known
from nic_jax.report.page import write_page
from nic_jax.report.pictures import new_figure
from nic_jax.workdir import file_name

ATTRIBUTES = {
    'slide_id': 'a',
    'level0_dimensions': [1000, 800],
    'mpp_level0': 0.5,
    'mpp': 0.5,
    'origin_level0': [0.0, 0.0],
    'stride_level0': [100.0, 100.0],
    'patch_level0': [100.0, 100.0],
    'patch_size': 100,
    'stride': 100,
}
LESION = Region(
    'tumour', np.array([[200.0, 200.0], [500.0, 200.0], [500.0, 400.0], [200.0, 400.0]])
)


def saliency_of(seed):
    rng = np.random.default_rng(seed)
    saliency = rng.normal(size=(8, 10)).astype(np.float32)
    saliency[0] = np.nan
    return saliency


def write_explained(home, encoder, slide_id, *, method='grad_cam', score=0.5, subset='test'):
    folder = home / encoder / 'explain' / 'label' / 'cnn' / file_name(slide_id)
    write_saliency(
        folder / 'saliency.zarr', {method: saliency_of(1)}, attributes=ATTRIBUTES, details={}
    )
    told = {'slide_id': slide_id, 'label_name': 'label', 'model': 'cnn', 'encoder': encoder}
    told |= {'target': 'tumour', 'label': 'tumour', 'prediction': 'normal', 'score': score}
    told |= {'methods': [method], 'subset': subset}
    (folder / 'explained.json').write_text(json.dumps(told))
    return folder


def write_localisation(home, encoder, values, *, method='grad_cam'):
    lines = ['slide_id,method,subset,jaccard,average_precision']
    lines += [f'{name},{method},test,{value},0.5' for name, value in values.items()]
    path = home / encoder / 'explain' / 'label' / 'cnn' / 'localisation.csv'
    path.write_text('\n'.join(lines) + '\n')


def of(home, known_of=lambda slide_id: None, rows=()):
    found = page_galleries.galleries_of(home, rows=rows, known_of=known_of, seed=0)
    ((names, made),) = found.items()
    assert names == ('label', 'cnn')
    return {each.title: each for each in made}


@pytest.mark.parametrize('count', [1, 3, 6])
def test_best_worst_and_random_are_different_slides(count):
    scores = {f'slide {n}': float(n % 7) + n / 100 for n in range(12)} | {'none': math.nan}
    chosen = galleries.choose(scores, count=count, seed=1)
    ranked = sorted(scores, key=lambda name: -np.nan_to_num(scores[name], nan=-1))[:-1]
    assert chosen['best'] == ranked[:count]
    assert chosen['worst'] == ranked[::-1][:count]
    assert len(chosen['random']) == min(count, 12 - 2 * count)
    every = [*chosen['best'], *chosen['worst'], *chosen['random']]
    assert len(set(every)) == len(every)
    assert 'none' not in every
    assert chosen == galleries.choose(scores, count=count, seed=1)
    assert galleries.choose({'a': 1.0}, count=3, seed=0) == {
        'best': ['a'],
        'worst': [],
        'random': [],
    }


def test_slides_are_ordered_by_how_well_encoders_agree_with_lesions(tmp_path):
    jaccard = {f's{n}': value for n, value in enumerate((0.1, 0.9, 0.5, 0.3, 0.7, 0.2, 0.6, 0.4))}
    for encoder, bonus in (('vae', 0.0), ('bigan', 0.05)):
        for slide_id in jaccard:
            write_explained(tmp_path, encoder, slide_id)
        own = {name: value + bonus for name, value in jaccard.items()}
        write_localisation(tmp_path, encoder, own)
    found = of(tmp_path)
    assert list(found) == [
        'Best: highest Jaccard index',
        'Worst: lowest Jaccard index',
        'At random, of 8 slides',
    ]
    best, worst, random = found.values()
    assert [line.slide_id for line in best.lines] == ['s1', 's4', 's6']
    assert [line.slide_id for line in worst.lines] == ['s0', 's5', 's3']
    assert {line.slide_id for line in random.lines} == {'s2', 's7'}
    told = {panel.name: panel.told for panel in best.lines[0].panels}
    assert told == {'bigan': 'Jaccard index 0.95', 'vae': 'Jaccard index 0.90'}
    assert best.lines[0].told == 'is tumour, predicted normal, map: for tumour'


def test_without_lesions_slides_are_ordered_by_their_score(tmp_path):
    for number in range(4):
        write_explained(tmp_path, 'vae', f's{number}', score=number / 4)
    write_explained(tmp_path, 'vae', 'validating', score=2.0, subset='valid')
    found = of(tmp_path)
    best = found['Best: highest score of the target']
    assert [line.slide_id for line in best.lines] == ['s3', 's2']


def test_a_slide_is_shown_with_its_lesions_beside_the_maps(tmp_path):
    write_explained(tmp_path, 'vae', 'known')
    thumbnail = Thumbnail(np.full((80, 100, 3), 200, np.uint8), (0, 0, 1000, 800))
    (gallery,) = of(tmp_path, lambda slide_id: Known(thumbnail, [LESION])).values()
    assert [panel.name for panel in gallery.lines[0].panels] == ['slide', 'lesions', 'vae']
    (gallery,) = of(tmp_path).values()
    assert [panel.name for panel in gallery.lines[0].panels] == ['vae']


def test_without_pixels_at_hand_the_stored_overlay_is_shown(tmp_path):
    folder = write_explained(tmp_path, 'vae', 'a')
    (drawn,) = of(tmp_path).values()
    Image.new('RGB', (300, 200), (10, 200, 30)).save(folder / 'grad_cam.png')
    (stored,) = of(tmp_path).values()
    assert drawn.lines[0].panels[0].source != stored.lines[0].panels[0].source


def test_synthetic_images_are_shown_from_their_one_file(tmp_path):
    folder = tmp_path / 'vae' / 'explain' / 'label' / 'cnn'
    path = folder / 'test.zarr'
    path.mkdir(parents=True)
    told = {'slide_ids': ['test/0', 'test/1'], 'targets': ['3', '5']}
    schema.write_attributes(path, {**told, 'complete': True})
    shape = (2, 8, 10)
    options = {'shape': shape, 'chunks': (1, 8, 10), 'shards': shape, 'dtype': 'float32'}
    array = arrays.create(path / 'grad_cam', dimension_names=('image', 'y', 'x'), **options)
    array.write(np.stack([saliency_of(0), saliency_of(1)])).result()
    write_localisation(tmp_path, 'vae', {'test/0': 0.2, 'test/1': 0.8})
    common = {'encoder': 'vae', 'label_name': 'label', 'model': 'cnn', 'subset': 'test'}
    rows = [{**common, 'slide_id': 'test/1', 'label': '5', 'prediction': '3', 'score_5': 0.4}]
    mask = np.zeros((8, 10), bool)
    mask[2:4, 3:6] = True
    best, worst = of(tmp_path, lambda slide_id: Known(mask=mask), rows).values()
    (line,), (other,) = best.lines, worst.lines
    assert (line.slide_id, other.slide_id) == ('test/1', 'test/0')
    assert line.told == 'is 5, predicted 3, map: for 5'
    assert other.told == 'map: for 3'
    assert [panel.name for panel in line.panels] == ['lesions', 'vae']
    assert line.panels[1].source != other.panels[1].source


def test_a_map_is_bright_where_it_speaks_for_the_target_and_grey_where_nothing_is():
    saliency = np.zeros((8, 10))
    saliency[2, 3], saliency[5, 5], saliency[0] = 1.0, -5.0, np.nan
    pixels = drawn(lambda axis: galleries.draw_map(axis, saliency, ATTRIBUTES), size=(5, 4))
    cells = pixels[25::50, 25::50]  # 50 px a cell
    assert cells.shape == (8, 10, 3)
    assert cells[2, 3].tolist() == [253, 231, 36]  # viridis' brightest
    assert cells[5, 5].tolist() == cells[7, 9].tolist() == [68, 1, 84]
    assert (cells[0] == 237).all()


def test_outlines_and_cells_of_lesions_lie_on_the_slide():
    thumbnail = Thumbnail(np.full((80, 100, 3), 255, np.uint8), (0, 0, 1000, 800))
    mask = np.zeros((8, 10), bool)
    mask[2:4, 2:5] = True  # the same cells
    outlined, filled = (
        drawn(lambda axis, known=known: galleries.draw_reference(axis, known, ATTRIBUTES))
        for known in (Known(thumbnail, [LESION]), Known(thumbnail, mask=mask))
    )
    dark = outlined.max(-1) < 128
    rows, columns = np.flatnonzero(dark.any(1)), np.flatnonzero(dark.any(0))
    assert [*columns[[0, -1]], *rows[[0, -1]]] == pytest.approx([100, 250, 100, 200], abs=2)
    tinted = (filled != 255).any(-1)
    rows, columns = np.flatnonzero(tinted.any(1)), np.flatnonzero(tinted.any(0))
    assert [*columns[[0, -1]], *rows[[0, -1]]] == pytest.approx([100, 250, 100, 200], abs=1)
    assert tinted[100:200, 100:250].mean() > 0.98


def test_a_line_is_drawn_into_axes_for_a_notebook():
    figure = new_figure(1, 4, size=(8, 2))
    thumbnail = Thumbnail(np.full((80, 100, 3), 200, np.uint8), (0, 0, 1000, 800))
    maps = {'vae': saliency_of(0), 'bigan': saliency_of(1)}
    galleries.draw_line(
        figure.axes, Known(thumbnail, [LESION]), maps, dict.fromkeys(maps, ATTRIBUTES)
    )
    assert [axis.get_title() for axis in figure.axes] == ['slide', 'lesions', 'vae', 'bigan']
    for axis, saliency in zip(figure.axes[2:], maps.values(), strict=True):
        shown = axis.images[0].get_array()
        np.testing.assert_array_equal(shown.filled(np.nan), np.maximum(saliency, 0))


def test_shown_slides_have_a_viewer_with_all_maps_of_all_encoders(tmp_path):
    path = slide_files.write_pyramid(
        tmp_path / 'a.tif', slide_files.tissue_image(800, 1000), mpp=0.5
    )
    for encoder in ('vae', 'bigan'):
        write_explained(tmp_path, encoder, 'folder/a')
    known = Known(regions=[LESION], path=path)
    made = page_galleries.galleries_of(
        tmp_path, rows=(), known_of=lambda slide_id: known, seed=0, viewer_tiles=20
    )
    (line,) = made['label', 'cnn'][0].lines
    assert line.link == 'slides/folder%252Fa/index.html'
    page = read(tmp_path / 'report' / urllib.parse.unquote(line.link))
    for name in ('Grad-CAM, vae', 'Grad-CAM, bigan', 'folder/a', 'is tumour, predicted normal'):
        assert name in page.text
    assert len(list((tmp_path / 'report').rglob('*.jpg'))) <= 20


def test_ids_of_slides_stay_text_and_link_to_their_viewer(tmp_path):
    home = tmp_path / 'a' / 'home'
    write_explained(home, 'vae', HOSTILE)
    viewer = home / 'report' / 'slides' / file_name(HOSTILE) / 'index.html'
    viewer.parent.mkdir(parents=True)
    viewer.touch()
    page = read(write_page(home, {'seed': 0}, rows=[]))
    assert HOSTILE in page.text
    assert not page.all('script')
    (link,) = [attrs['href'] for attrs in page.all('a') if not attrs['href'].startswith('#')]
    assert (home / 'report' / urllib.parse.unquote(link)) == viewer
    assert '..' not in link.split('/')
    assert [each.name for each in tmp_path.iterdir()] == ['a']


def drawn(draw, size=(5, 4)):
    """Pixels of what is drawn into axes that fill a figure."""
    figure = new_figure(1, 1, size=size)
    (axis,) = figure.axes
    figure.set_layout_engine('none')
    axis.set_position((0, 0, 1, 1))
    draw(axis)
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3].astype(int)
