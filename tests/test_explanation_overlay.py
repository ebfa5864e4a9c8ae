"""Overlays: every cell's colour stands where the cell is, and the picture says what it shows."""

import concurrent.futures

import numpy as np
import pytest
import slide_files
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from nic_jax.explanation import draw_overlay, read_thumbnail, write_overlay
from nic_jax.explanation.georeference import of_image
from nic_jax.explanation.overlay import Thumbnail, scale_bar
from nic_jax.patches.annotations import Region
from nic_jax.slides import open_slide

ATTRIBUTES = {
    'level0_dimensions': [6000, 4000],
    'mpp_level0': 0.5,
    'origin_level0': [200.0, 100.0],
    'stride_level0': [500.0, 500.0],
    'patch_level0': [1000.0, 1000.0],
}
GREY = 200
THUMBNAIL = Thumbnail(np.full((40, 60, 3), GREY, np.uint8), (0.0, 0.0, 6000.0, 4000.0))


def drawn(saliency, **options):
    """The figure's pixels, and a function from level-0 points to them."""
    figure = Figure(figsize=(9, 6), dpi=100, layout='constrained')
    canvas = FigureCanvasAgg(figure)
    axis = figure.subplots()
    draw_overlay(axis, saliency, **({'attributes': ATTRIBUTES, 'thumbnail': THUMBNAIL} | options))
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[..., :3].astype(int)

    def colour(x, y):
        column, row = axis.transData.transform((x, y))
        return pixels[pixels.shape[0] - 1 - int(row), int(column)]

    return figure, colour


def centre(row, column):
    """Of a cell, level-0 px."""
    return 200 + 500 + 500 * column, 100 + 500 + 500 * row


def blank_map():
    return np.full((6, 9), np.nan, np.float32)


def bar_of(figure):
    return figure.axes[1].get_ylabel()


def test_cells_are_coloured_where_they_are_and_clear_where_weak():
    saliency = blank_map()
    saliency[1, 2], saliency[1, 3], saliency[1, 4], saliency[4, 7] = 1.0, 0.0, -1.0, 0.3
    _, colour = drawn(saliency)
    red, green, blue = colour(*centre(1, 2))
    assert red > 200
    assert green > 180
    assert blue < 120  # yellow
    for row, column in ((1, 3), (1, 4), (0, 0), (2, 2)):
        assert colour(*centre(row, column)).tolist() == [GREY] * 3
    weak = colour(*centre(4, 7))
    assert weak.tolist() != [GREY] * 3
    # The cell is the square of its stride, no more.
    x, y = centre(1, 2)
    for shift_x, shift_y in ((-1, 0), (1, 0), (0, -1), (0, 1)):
        near, far = np.array([x, y]) + [
            [230 * shift_x, 230 * shift_y],
            [270 * shift_x, 270 * shift_y],
        ]
        assert colour(*near)[2] < 120
        assert colour(*far).tolist() == [GREY] * 3


def test_signed_maps_are_symmetric_about_zero():
    saliency = blank_map()
    saliency[1, 1], saliency[1, 3], saliency[1, 5], saliency[1, 7] = 1.0, -1.0, 0.0, -0.2
    figure, colour = drawn(saliency, signed=True)
    above, below = colour(*centre(1, 1)), colour(*centre(1, 3))
    assert above[0] > above[2] + 80  # orange
    assert below[2] > below[0] + 80  # blue
    assert np.abs(colour(*centre(1, 5)) - GREY).max() <= 12
    faint = colour(*centre(1, 7))
    assert below[0] < faint[0] < GREY
    low, high = figure.axes[1].get_ylim()
    assert low == -high
    assert 'against' in bar_of(figure)


def test_the_colour_bar_tells_where_colours_end():
    saliency = np.linspace(0.001, 1, 1000, dtype=np.float32).reshape(25, 40)
    saliency[0, 0] = 50  # an outlier
    limit = np.percentile(saliency.astype(np.float64), 99.5)
    figure, _ = drawn(saliency)
    assert f'colours end at {limit:.3g} (maximum 50)' in bar_of(figure)
    assert 'percentile 99.5 of its positive values' in bar_of(figure)
    assert limit < 1.01
    figure, _ = drawn(np.full((3, 3), -1.0))
    assert 'nothing speaks for the target' in bar_of(figure)
    drawn(blank_map())


def test_without_pixels_the_picture_says_so():
    saliency = blank_map()
    saliency[0, 0], saliency[2, 2] = 0.0, 1.0
    figure, colour = drawn(saliency, thumbnail=None)
    assert "without the slide's pixels" in figure.axes[0].get_xlabel()
    red, green, blue = colour(*centre(0, 0))
    assert red == green == blue
    assert 180 < red < 240
    assert colour(*centre(0, 1)).tolist() == [255] * 3
    figure, _ = drawn(saliency)
    assert figure.axes[0].get_xlabel() == ''


def test_outlines_stand_where_they_should_with_their_holes():
    outer = np.array([[1000, 1000], [4000, 1000], [4000, 3000], [1000, 3000.0]])
    hole = np.array([[2000, 1500], [2500, 1500], [2500, 2000.0]])
    figure, colour = drawn(blank_map(), outlines=[Region('tumour', outer, (hole,))])
    for x, y in ((1000, 2000), (4000, 2000), (2500, 1000), (2250, 1500), (2500, 1700)):
        near = [colour(x + dx, y + dy).sum() for dx in (-15, 0, 15) for dy in (-15, 0, 15)]
        assert min(near) < 150  # black
    assert colour(3200, 2300).tolist() == [GREY] * 3
    assert 'reference' in figure.axes[0].get_xlabel()


@pytest.mark.parametrize(
    ('width', 'length'), [(1000, 200), (3999, 500), (4000, 1000), (7999, 1000), (8000, 2000)]
)
def test_scale_bars_are_round_and_at_most_a_quarter(width, length):
    assert scale_bar(width) == length


def test_the_scale_bar_is_as_long_as_it_says():
    figure, _ = drawn(blank_map())
    axis = figure.axes[0]
    (bar,) = axis.lines
    assert [text.get_text() for text in axis.texts] == ['500 µm']
    assert np.ptp(bar.get_xdata()) * 0.5 == 500
    figure, _ = drawn(blank_map(), attributes=ATTRIBUTES | {'mpp_level0': 4.0})
    assert figure.axes[0].texts[0].get_text() == '5 mm'
    assert np.ptp(figure.axes[0].lines[0].get_xdata()) * 4 == 5000
    attributes = of_image('image', (90, 60), patch_size=9, stride=9)
    figure, _ = drawn(blank_map(), attributes=attributes, thumbnail=None)
    assert figure.axes[0].texts[0].get_text() == '20 px'


def test_thumbnails_are_of_the_scanned_part(tmp_path):
    image = slide_files.tissue_image(256, 512)
    path = slide_files.write_leica(tmp_path / 's.scn', image, offset=(640, 320), canvas=(1600, 960))
    with open_slide(path) as slide:
        small = read_thumbnail(slide, side=128)
        whole = read_thumbnail(slide)
        stored = slide.read(0, 640, 320, 512, 256)
    assert small.pixels.shape == (64, 128, 3)
    assert small.box == whole.box == (640, 320, 640 + 512, 320 + 256)
    np.testing.assert_array_equal(whole.pixels, stored)
    blocks = stored.reshape(64, 4, 128, 4, 3).mean(axis=(1, 3))
    assert np.abs(small.pixels - blocks).mean() < 3


def test_the_real_slide_stays_visible_under_the_map(shared, tmp_path):
    attributes = ATTRIBUTES | {'level0_dimensions': [2220, 2967], 'mpp_level0': 0.499}
    attributes |= {'origin_level0': [0.0, 0.0], 'stride_level0': [128.0] * 2}
    attributes |= {'patch_level0': [128.0] * 2}
    saliency = np.full((23, 17), np.nan, np.float32)
    saliency[12:16, 6:9], saliency[4:8, 6:9] = 1, 0
    with open_slide(shared / 'data/slides/cmu-1-small-region.svs') as slide:
        thumbnail = read_thumbnail(slide, side=600)
    write_overlay(
        tmp_path / 'map.png', saliency, attributes=attributes, thumbnail=thumbnail, title='a $_ b'
    )
    picture = np.asarray(Image.open(tmp_path / 'map.png').convert('RGB')).astype(int)
    assert max(picture.shape) > 1000
    yellow = (picture[..., 0] > 150) & (picture[..., 1] > 130) & (picture[..., 2] < 110)
    share = 12 * 128**2 / (2220 * 2967)
    assert yellow[:, : int(0.8 * picture.shape[1])].mean() > 0.5 * share
    part = picture[yellow]
    assert part[:, 0].std() > 5  # tissue shows through


def test_threads_draw_what_one_alone_draws(tmp_path):
    def write(number):
        rng = np.random.default_rng(number % 2)
        saliency = rng.normal(size=(6, 9))
        path = tmp_path / f'{number}.png'
        write_overlay(
            path, saliency, attributes=ATTRIBUTES, thumbnail=THUMBNAIL, signed=bool(number % 2)
        )
        return path.read_bytes()

    alone = [write(number) for number in range(2)]
    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        together = list(threads.map(write, range(2, 8)))
    assert together == alone * 3
    assert alone[0] != alone[1]
