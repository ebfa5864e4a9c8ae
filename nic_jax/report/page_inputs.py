"""The files of a workdir that the page is made of."""

import csv
import json
import pathlib
from typing import Any


def read_csv(path: pathlib.Path) -> list[dict[str, str]]:
    """The rows of a file, none where there is no file."""
    if not path.exists():
        return []
    with path.open(newline='', encoding='utf-8') as file:
        return list(csv.DictReader(file))


def stage_records(path: pathlib.Path, stage: str) -> list[dict[str, Any]]:
    """The records of a stage in metrics.jsonl, none where there is no file.

    A line that a killed process left unfinished is passed over.
    """
    if not path.exists():
        return []
    records = []
    with path.open(encoding='utf-8') as file:
        for line in file:
            try:
                record = json.loads(line)
            except json.JSONDecodeError:
                continue
            if record.get('stage') == stage:
                records.append(record)
    return records
