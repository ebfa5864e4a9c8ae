"""How well arrangement could be told if every tile's own label were known in training.

    python benchmarks/mosaic_bound.py --workdir=runs/mosaic --encoder=nic_multitask4

A logistic regression and an MLP learn tumour from normal on the codes of the training slides'
cells, with the cells' own labels that no model on slides is given. A slide's score is the largest
sum of logits in a window of cells, less the mean cell's; the window is chosen on the training
slides. Test AUC of 'mass' against 'scattered', by number of tumour tiles: what is lost here is in
the codes, not in the model. The record goes to benchmarks/results/mosaic_bound.json.
"""

import argparse
import csv
import datetime
import json
import pathlib
import shlex
import sys

import numpy as np
import scipy.ndimage
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import nic_jax.grids
from nic_jax.explanation.references import lesion_cells, read_regions

WINDOWS = (1, 2, 3, 4, 5, 6, 7)
SIZES = {'8 to 30': (8, 30), '31 and more': (31, 10_000), 'all': (8, 10_000)}
SCORERS = {
    'logistic regression': LogisticRegression(C=0.01, max_iter=300),
    'MLP': MLPClassifier((256,), alpha=1.0, early_stopping=True, random_state=0),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--workdir', required=True, type=pathlib.Path)
    parser.add_argument('--encoder', required=True, help='its folder in the workdir')
    asked = parser.parse_args()
    slides = read(asked.workdir, asked.encoder)
    train, test = (
        [s for s in slides if (s['fold'] == 'test') == tested] for tested in (False, True)
    )
    codes = np.concatenate([s['codes'][s['encoded']] for s in train])
    tumour = np.concatenate([s['lesion'][s['encoded']] for s in train])
    found = {}
    for name, scorer in SCORERS.items():
        model = make_pipeline(StandardScaler(), scorer).fit(codes, tumour)
        for slide in slides:
            slide['logit'] = logits(model, slide)
        of_tiles = roc_auc_score(
            np.concatenate([s['lesion'][s['encoded']] for s in test]),
            np.concatenate([s['logit'][s['encoded']] for s in test]),
        )
        window = max(WINDOWS, key=lambda size: auc(train, size, SIZES['all']))
        found[name] = {'tiles': round(float(of_tiles), 3), 'window': window} | {
            told: round(auc(test, window, size), 3) for told, size in SIZES.items()
        }
    record = {
        'command': shlex.join(['python', *sys.argv]),
        'date': datetime.date.today().isoformat(),
        'slides': {'train': len(train), 'test': len(test)},
        'auc': found,
    }
    path = pathlib.Path(__file__).parent / 'results' / 'mosaic_bound.json'
    path.write_text(json.dumps(record, indent=1, ensure_ascii=False) + '\n', encoding='utf-8')
    print(json.dumps(record, indent=1, ensure_ascii=False))


def read(workdir: pathlib.Path, encoder: str) -> list[dict]:
    """The slides of the label 'arrangement': codes, cells of tissue and of lesion."""
    slides, table = [], workdir / 'slides' / 'slides.csv'
    with table.open(newline='', encoding='utf-8') as file:
        rows = [row for row in csv.DictReader(file) if row['arrangement']]
    for row in rows:
        grid = nic_jax.grids.open(workdir / encoder / 'grids' / f'{row["slide_id"]}.zarr')
        regions = read_regions(table.parent / row['annotation'], (0, 0))
        slides.append(
            {
                'codes': grid.codes(),
                'encoded': grid.encoded,
                'lesion': lesion_cells(regions, grid),
                'mass': row['arrangement'] == 'mass',
                'area': int(row['lesion_area']),
                'fold': row['fold'],
            }
        )
    return slides


def logits(model, slide: dict) -> np.ndarray:
    """The log-odds of tumour in every cell of tissue, less their mean; 0 elsewhere."""
    share = np.clip(model.predict_proba(slide['codes'][slide['encoded']])[:, 1], 1e-6, 1 - 1e-6)
    found = np.zeros(slide['encoded'].shape)
    odds = np.log(share / (1 - share))
    found[slide['encoded']] = odds - odds.mean()
    return found


def auc(slides: list[dict], window: int, size: tuple[int, int]) -> float:
    """Of the largest sum in a window, among slides with so many tumour tiles."""
    chosen = [slide for slide in slides if size[0] <= slide['area'] <= size[1]]
    ones = np.ones((window, window))
    scores = [
        scipy.ndimage.convolve(slide['logit'], ones, mode='constant').max() for slide in chosen
    ]
    return float(roc_auc_score([slide['mass'] for slide in chosen], scores))


if __name__ == '__main__':
    main()
