"""The record of a finished run of experiments/patch_benchmark.py, for benchmarks/results/.

    python benchmarks/patch_results.py --workdir=runs/patches --machine='2 cores of …'

Collects the table, the recalls of each class, and of each encoder trained there: steps, patches
seen, minutes, and the curve of its validation.
"""

import argparse
import csv
import datetime
import json
import pathlib


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--workdir', required=True, type=pathlib.Path)
    parser.add_argument('--machine', required=True)
    parser.add_argument('--name', default='patch_benchmark')
    arguments = parser.parse_args()
    home = arguments.workdir
    encoders = json.loads((home / 'config.json').read_text(encoding='utf-8'))['encoder'].split(',')
    names = ','.join(pathlib.Path(each).stem for each in encoders)  # without paths of a machine
    record = {
        'command': (
            'python -m nic_jax.main --config=experiments/patch_benchmark.py '
            f'--config.encoder={names}'
        ),
        'date': datetime.date.today().isoformat(),
        'machine': arguments.machine,
        'table': _read_csv(home / 'report' / 'table.csv'),
        'recall': {
            path.stem.removeprefix('confusion_'): _read_csv(path)
            for path in sorted((home / 'report').glob('confusion_*.csv'))
        },
        'training': {
            path.parents[1].name: _training(json.loads(path.read_text(encoding='utf-8')), path)
            for path in sorted(home.glob('*/encoder/history.json'))
        },
    }
    path = pathlib.Path(__file__).parent / 'results' / f'{arguments.name}.json'
    path.write_text(json.dumps(record, indent=1, ensure_ascii=False) + '\n', encoding='utf-8')
    print(path)


def _training(history: list[dict], path: pathlib.Path) -> dict:
    settings = json.loads((path.parent / 'made_with.json').read_text(encoding='utf-8'))['settings']
    steps = [record['step'] for record in history]
    images = [record['images_per_s'] for record in history]
    per_step = _images_a_step(path.parents[1].name, settings['batch'])
    taken = zip(steps, [0, *steps], images, strict=False)
    minutes = sum((step - before) * per_step / speed for step, before, speed in taken) / 60
    curve = {
        name: [round(record[name], 4) for record in history]
        for name in history[0]
        if name.startswith('valid_')
    }
    return {
        'settings': settings,
        'steps': steps[-1],
        'patches_seen': steps[-1] * per_step,
        'minutes_of_steps': round(minutes, 1),
        'images_per_s': round(sum(images) / len(images), 1),
        'curve': {'step': steps, **curve},
    }


def _images_a_step(name: str, batch: int) -> int:
    return batch * (2 if name in ('contrastive', 'multitask') else 1)


def _read_csv(path: pathlib.Path) -> list[dict[str, str]]:
    with path.open(newline='', encoding='utf-8') as file:
        return list(csv.DictReader(file))


if __name__ == '__main__':
    main()
