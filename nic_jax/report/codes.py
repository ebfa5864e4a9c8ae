"""What codes are worth, to the eye: confusion matrices, and codes laid out on a plane."""

import collections
import csv
import io
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

from nic_jax.report.pictures import COLOURS, new_figure, save
from nic_jax.workdir import write_atomically

MAPPED = 1000  # patches in a map, at most: more would hide one another
_COLUMNS = 3  # panels side by side


def confusions(
    rows: Mapping[str, Sequence[Mapping[str, Any]]],
    classes: Sequence[str],
    folder: pathlib.Path,
    *,
    task: str,
) -> list[pathlib.Path]:
    """Draws a confusion matrix for each encoder, and writes all as a CSV.

    Args:
        rows: Encoder to the rows of its predictions.csv; those of several seeds are added.
        classes: Names, K.
        folder: For confusion_TASK.png and confusion_TASK.csv.
        task: Its name.
    """
    counts = {
        name: np.array([[found[label, prediction] for prediction in classes] for label in classes])
        for name, found in (
            (name, collections.Counter((row['label'], row['prediction']) for row in each))
            for name, each in rows.items()
        )
    }
    text = io.StringIO(newline='')
    writer = csv.writer(text, lineterminator='\n')
    writer.writerow(['encoder', 'label', *(f'as_{name}' for name in classes), 'recall'])
    for name, matrix in counts.items():
        for label, line in zip(classes, matrix, strict=True):
            recall = line[classes.index(label)] / max(1, line.sum())
            writer.writerow([name, label, *line.tolist(), f'{recall:.4f}'])
    table = folder / f'confusion_{task}.csv'
    write_atomically(table, text.getvalue())

    figure = _panels(len(counts), size=3.4)
    figure.suptitle(f'{task}: share of each class (rows) taken for each (columns), test tiles')
    for axis, (name, matrix) in zip(figure.axes, counts.items(), strict=False):
        share = matrix / np.maximum(1, matrix.sum(axis=1, keepdims=True))
        axis.imshow(share, cmap='Blues', vmin=0, vmax=1)
        for (row, column), value in np.ndenumerate(share):
            colour = 'white' if value > 0.5 else 'black'
            axis.text(column, row, f'{value:.2f}', ha='center', va='center', color=colour)
        axis.set_title(name)
        axis.set_xticks(range(len(classes)), classes)
        axis.set_yticks(range(len(classes)), classes)
        axis.set_axis_on()
    picture = folder / f'confusion_{task}.png'
    save(figure, picture)
    return [picture, table]


def code_map(
    codes: Mapping[str, np.ndarray],
    labels: np.ndarray,
    classes: Sequence[str],
    path: pathlib.Path,
    *,
    seed: int,
) -> None:
    """Draws codes on a plane, neighbours beside each other (t-SNE), coloured by class.

    Args:
        codes: Encoder to codes `[N, C]` of the same patches.
        labels: int `[N]`.
        classes: Names.
        path: The PNG file.
        seed: Of the choice of patches and of the layout.
    """
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(len(labels))[:MAPPED]
    figure = _panels(len(codes), size=4)
    figure.suptitle(f'codes of {len(chosen):,} test tiles, laid out by t-SNE')
    for axis, (name, values) in zip(figure.axes, codes.items(), strict=False):
        some = np.asarray(values[chosen], np.float64)
        some = (some - some.mean(0)) / (some.std(0) + 1e-6)
        some = PCA(min(30, *some.shape), random_state=seed).fit_transform(some)
        perplexity = min(30, (len(chosen) - 1) / 3)
        layout = TSNE(perplexity=perplexity, random_state=seed, init='pca')
        with threadpool_limits(1):  # threads that wait for each other took 20 times as long
            places = layout.fit_transform(some)
        for number, label in enumerate(classes):
            here = places[labels[chosen] == number]
            colour = COLOURS[number % len(COLOURS)]
            axis.scatter(here[:, 0], here[:, 1], s=5, color=colour, alpha=0.6, label=label)
        axis.set_title(name)
        axis.set_axis_on()
        axis.set_xticks([])
        axis.set_yticks([])
    figure.axes[0].legend(markerscale=2)
    save(figure, path)


def _panels(count: int, *, size: float):
    """A figure of panels, empty until their axes are switched on."""
    columns = min(_COLUMNS, count)
    lines = -(-count // columns)
    figure = new_figure(lines, columns, size=(size * columns, size * lines + 0.4))
    for axis in figure.axes:
        axis.set_axis_off()
    return figure
