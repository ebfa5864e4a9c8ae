"""Where networks look before and after fine-tuning: average precision of cells, and a picture.

    python benchmarks/finetuned_saliency.py --workdir=runs/mosaic --encoder=vae-s96 --slides=40

Grad-CAM of the mosaic's test slides with a lesion of 8 tiles or more (label 'presence', model
'spatial', seed 0, fold 0) by the classifier on the encoder's stored grids, and by the fine-tuned
pair on grids that the fine-tuned encoder makes. The record goes to
benchmarks/results/finetuned_saliency.json, the picture of the first slide beside it in the workdir.
"""

import argparse
import contextlib
import csv
import datetime
import functools
import json
import pathlib
import shlex
import sys

import jax
import numpy as np

from nic_jax.classifiers.trained import load_trained
from nic_jax.encoders.storage import load_encoder
from nic_jax.evaluation.localisation import average_precision
from nic_jax.explanation import ExplainSettings, draw_overlay, explain, read_thumbnail
from nic_jax.explanation.references import lesion_cells, read_regions
from nic_jax.finetuning.encoded import encode_slide
from nic_jax.finetuning.pixels import PixelCache
from nic_jax.finetuning.slide_pixels import OpenSlides, SlidePixels
from nic_jax.grids.reading import open_grid
from nic_jax.report.pictures import new_figure, save
from nic_jax.slides.slide import open_slide

FOLD = pathlib.Path('presence', 'spatial', 'seed_0', 'fold_0')
LEAST = 8  # tiles


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--workdir', required=True, type=pathlib.Path)
    parser.add_argument('--encoder', required=True, help='its folder in the workdir')
    parser.add_argument('--slides', type=int, default=40)
    asked = parser.parse_args()
    home, cohort = asked.workdir / asked.encoder, asked.workdir / 'slides'
    frozen, tuned = (load_trained(home / name / FOLD) for name in ('classifier', 'finetune'))
    encoder = load_encoder(str(home / 'finetune' / FOLD))
    encode = jax.jit(functools.partial(encoder.apply, encoder.variables))
    with (cohort / 'slides.csv').open(newline='', encoding='utf-8') as file:
        rows = [row for row in csv.DictReader(file) if row['presence'] and row['fold'] == 'test']
    rows = [row for row in rows if int(row['lesion_area']) >= LEAST][: asked.slides]
    found = {'frozen': [], 'fine-tuned': []}
    with contextlib.closing(OpenSlides()) as opened:
        for row in rows:
            grid = open_grid(home / 'grids' / f'{row["slide_id"]}.zarr', layout_only=True)
            opener = functools.partial(open_slide, cohort / row['path'], mpp=1.0)
            get = functools.partial(opened.get, row['slide_id'], opener)
            pixels = SlidePixels(row['slide_id'], get, grid.encoded, grid.attributes, PixelCache(0))
            anew = encode_slide(pixels, encode, versions=1, chunk=64)
            regions = read_regions(cohort / row['annotation'], (0, 0))
            maps = {
                'frozen': explain([frozen], grid, ExplainSettings(), target=1)['grad_cam'],
                'fine-tuned': explain([tuned], anew, ExplainSettings(), target=1)['grad_cam'],
            }
            for name, saliency in maps.items():
                found[name].append(average_precision(saliency, lesion_cells(regions, grid)))
            if row is rows[0]:
                draw(maps, get(), grid.attributes, regions, asked.workdir / 'finetuned.png')
    record = {
        'command': shlex.join(['python', *sys.argv]),
        'date': datetime.date.today().isoformat(),
        'slides': len(rows),
        'average_precision': {name: round(float(np.mean(each)), 3) for name, each in found.items()},
        'better_after': int(np.sum(np.greater(found['fine-tuned'], found['frozen']))),
    }
    path = pathlib.Path(__file__).parent / 'results' / 'finetuned_saliency.json'
    path.write_text(json.dumps(record, indent=1, ensure_ascii=False) + '\n', encoding='utf-8')
    print(json.dumps(record, indent=1, ensure_ascii=False))


def draw(maps, slide, attributes, regions, path: pathlib.Path) -> None:
    """Both maps over one slide."""
    figure = new_figure(1, len(maps), size=(15, 7))
    thumbnail = read_thumbnail(slide)
    for axis, (name, saliency) in zip(figure.axes, maps.items(), strict=True):
        draw_overlay(
            axis,
            saliency,
            attributes=attributes,
            thumbnail=thumbnail,
            outlines=regions,
            title=name,
        )
    save(figure, path)


if __name__ == '__main__':
    main()
