"""Pictures inside a page: figures and files as data URIs."""

import base64
import contextlib
import io
import pathlib
from collections.abc import Iterator

import matplotlib
import matplotlib.figure
import numpy as np
from matplotlib.axes import Axes
from PIL import Image

from nic_jax.report.page_parts import Picture
from nic_jax.report.pictures import new_figure

_STYLE = {
    'font.size': 9,
    'font.family': 'DejaVu Sans',
    'axes.titlesize': 9,
    'axes.titleweight': 'bold',
    'axes.titlelocation': 'left',
    'axes.spines.top': False,
    'axes.spines.right': False,
    'axes.grid': True,
    'grid.alpha': 0.25,
    'grid.linewidth': 0.6,
    'legend.frameon': False,
    'legend.fontsize': 8,
    'text.parse_math': False,  # a dollar in a name is a dollar
    'svg.hashsalt': 'nic_jax',  # the same figure is the same file
}
_INCH = 96  # CSS px
_JPEG_QUALITY = 85
# What begins the name of a file of the report, and what one sees in it.
CAPTIONS = {
    'calibration': 'Calibration: how often a prediction is true, against its probability. On the '
    'diagonal, probabilities mean what they say; bars are 95 % intervals, cases resampled.',
    'lesion_size': 'Detection over the area of the lesions, with 95 % intervals, cases resampled. '
    'Dashed, where drawn: the mean probability given to slides of the other class.',
    'sweep': 'The main figure against what was swept; bars are 95 % intervals, cases resampled.',
    'survival': 'Kaplan–Meier curves of the hold-outs above and below the median risk, with 95 % '
    'bands; ticks are censored patients.',
    'codes': 'Codes of test tiles on a plane (t-SNE): tiles with like codes lie together. Only '
    'neighbourhoods mean something, distances and axes do not.',
    'localisation': 'How well saliency finds the annotated lesions.',
    'froc': 'Lesions found (sensitivity) against false positives a slide, as the threshold on the '
    'saliency falls.',
    'image': 'A test image, the rectangle that its label is about, and channels of its grids.',
}


@contextlib.contextmanager
def styled(
    rows: int, columns: int, *, size: tuple[float, float]
) -> Iterator[matplotlib.figure.Figure]:
    """A figure in the page's style, for as long as it is drawn into and turned into a URI."""
    with matplotlib.rc_context(_STYLE):
        yield new_figure(rows, columns, size=size)


def of_figure(figure: matplotlib.figure.Figure, caption: str) -> Picture:
    """A figure as an SVG, which is sharp on paper."""
    file = io.BytesIO()
    figure.savefig(file, format='svg', metadata={'Date': None, 'Creator': None})
    width = round(figure.get_figwidth() * _INCH)
    return Picture(_uri('image/svg+xml', file.getvalue()), caption, width)


def of_file(path: pathlib.Path) -> Picture:
    """A PNG of the report, with the caption that its name tells."""
    with Image.open(path) as image:
        width = round(image.width / 120 * _INCH)  # pictures are saved with 120 px an inch
    caption = next((text for name, text in CAPTIONS.items() if path.name.startswith(name)), '')
    return Picture(_uri('image/png', path.read_bytes()), caption, width)


def of_pixels(pixels: np.ndarray) -> str:
    """The data URI of an image, uint8 `[h, w, 3]`."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format='JPEG', quality=_JPEG_QUALITY)
    return _uri('image/jpeg', file.getvalue())


def legend_name(name: str) -> str:
    """A name as a legend takes it: one that begins with an underscore would be left out."""
    return f'\u200b{name}' if name.startswith('_') else name


def square(axis: Axes) -> None:
    """Limits and ticks of two shares against each other."""
    axis.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect='equal')
    axis.set_xticks(np.linspace(0, 1, 6))
    axis.set_yticks(np.linspace(0, 1, 6))


def _uri(kind: str, data: bytes) -> str:
    return f'data:{kind};base64,{base64.b64encode(data).decode()}'
