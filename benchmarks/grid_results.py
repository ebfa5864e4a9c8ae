"""The record of a finished run on grids, for benchmarks/results/.

    python benchmarks/grid_results.py --workdir=runs/mosaic --name=mosaic_models \
        --command='python -m nic_jax.main …' --machine='2 cores of …'

Collects the report's tables, the curve by lesion size where there is one, and the steps a second
and the seconds of training of each encoder, label and model.
"""

import argparse
import collections
import csv
import datetime
import json
import pathlib
import statistics


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ('workdir', 'name', 'command', 'machine'):
        parser.add_argument(f'--{name}', required=True)
    asked = parser.parse_args()
    home = pathlib.Path(asked.workdir)
    found = {
        'command': asked.command,
        'date': datetime.date.today().isoformat(),
        'machine': asked.machine,
        'training': _training(home / 'metrics.jsonl'),
    }
    for name in ('table', 'comparisons', 'lesion_size', 'localisation'):
        path = home / 'report' / f'{name}.csv'
        if path.exists():
            with path.open(newline='', encoding='utf-8') as file:
                found[name] = [_rounded(row) for row in csv.DictReader(file)]
    path = pathlib.Path(__file__).parent / 'results' / f'{asked.name}.json'
    path.write_text(json.dumps(found, indent=1, ensure_ascii=False) + '\n', encoding='utf-8')
    print(path)


def _training(path: pathlib.Path) -> list[dict]:
    """Epochs, seconds of steps, and the median speed, of what was trained."""
    groups = collections.defaultdict(list)
    for line in path.read_text(encoding='utf-8').splitlines():
        record = json.loads(line)
        if record['stage'] == 'classify' and 'model' in record:
            names = tuple(record[key] for key in ('encoder', 'label_name', 'model'))
            groups[names].append(record)
    found = []
    for (encoder, label_name, model), records in groups.items():
        before, seconds = 0, 0.0
        for record in records:
            steps = record['step'] - (before if record['epoch'] else 0)
            seconds += steps / record['steps_per_s']
            before = record['step']
        speed = statistics.median(record['steps_per_s'] for record in records)
        found.append(
            {
                'encoder': encoder,
                'label_name': label_name,
                'model': model,
                'networks': sum(record['epoch'] == 0 for record in records),
                'seconds_of_steps': round(seconds),
                'steps_per_s': round(speed, 2),
            }
        )
    return found


def _rounded(row: dict[str, str]) -> dict:
    """Numbers as such, to four decimals; empty cells left out."""
    found = {}
    for name, text in row.items():
        try:
            found[name] = round(float(text), 4)
        except ValueError:
            if text:
                found[name] = text
    return found


if __name__ == '__main__':
    main()
