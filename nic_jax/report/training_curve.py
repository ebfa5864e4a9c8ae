"""The picture of a training: what fell and what rose."""

import pathlib
from collections.abc import Mapping, Sequence

from nic_jax.report.pictures import new_figure, save


def draw(
    history: Sequence[Mapping[str, float]], path: pathlib.Path, *, title: str, watched: str
) -> None:
    """Draws the loss of training and validation, and what decided about the weights.

    Args:
        history: A record a validation: `step`, `loss`, `valid_loss`, `learning_rate`, …
        path: The PNG file.
        title: Over all.
        watched: The part of the validation that decided.
    """
    steps = [record['step'] for record in history]
    figure = new_figure(1, 2, size=(10, 3.6))
    figure.suptitle(title)
    left, right = figure.axes
    for name, label in (('loss', 'training'), ('valid_loss', 'validation')):
        left.plot(steps, [record[name] for record in history], marker='.', label=label)
    left.set(xlabel='steps', ylabel='loss')
    left.legend()
    if watched != 'loss':
        values = [record[f'valid_{watched}'] for record in history]
        right.plot(steps, values, marker='.', color='C2')
        right.set_ylabel(f'{watched}, validation')
    else:
        rates = [record['learning_rate'] for record in history]
        right.plot(steps, rates, marker='.', color='C2')
        if max(rates) > 0:  # a cosine's last is zero
            right.set_yscale('log')
        right.set_ylabel('learning rate')
    right.set_xlabel('steps')
    save(figure, path)
