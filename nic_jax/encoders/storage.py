"""Encoders on disk: `encoder.json` beside the weights; and whatever else names an encoder."""

import dataclasses
import json
import pathlib

import jax
import jax.numpy as jnp

from nic_jax import checkpoints, workdir
from nic_jax.encoders.conv import conv_encoder, module
from nic_jax.encoders.encoder import Encoder, EncoderError
from nic_jax.encoders.keras_import import load_keras
from nic_jax.encoders.mean_rgb import mean_rgb
from nic_jax.encoders.published import PUBLISHED, load_published


def load_encoder(named: str) -> Encoder:
    """Finds the encoder that a config names.

    Args:
        named: 'mean_rgb'; 'nic_bigan' or 'nic_multitask4' (published, fetched once); a Keras file
            `….h5`; or a folder: a workdir with one encoder, or WORKDIR/ENCODER.

    Raises:
        EncoderError: There is no such encoder, or several in one workdir.
    """
    if named == 'mean_rgb':
        return mean_rgb()
    if named in PUBLISHED:
        return load_published(named)
    path = pathlib.Path(named).expanduser()
    if path.is_file():
        return load_keras(path)
    if path.is_dir():
        found = [path] if (path / 'encoder').is_dir() else sorted(path.glob('*/encoder'))
        found = [folder if folder == path else folder.parent for folder in found]
        if len(found) == 1:
            return read_encoder(found[0])
        if found:
            choice = ', '.join(str(folder) for folder in found)
            raise EncoderError(f'{path} holds several encoders; name one of {choice}')
        raise EncoderError(f'{path} holds no trained encoder (no */encoder/encoder.json)')
    raise EncoderError(
        f'no encoder {named!r}: give mean_rgb, {", ".join(PUBLISHED)}, the path of a published '
        'Keras file (.h5), or the workdir of a trained encoder'
    )


def write_encoder(folder: pathlib.Path, encoder: Encoder) -> None:
    """Stores a trained encoder under WORKDIR/ENCODER; `encoder.json` comes last."""
    checkpoints.save(folder / 'encoder' / 'weights', dict(encoder.variables))
    record = {
        'name': encoder.name,
        'network': dict(encoder.network),
        'inputs': [list(pair) for pair in encoder.inputs],
        'sha256': encoder.sha256(),
        'learned_from': list(encoder.learned_from),
    }
    workdir.write_atomically(folder / 'encoder' / 'encoder.json', json.dumps(record, indent=1))


def read_encoder(folder: pathlib.Path) -> Encoder:
    """Loads an encoder stored by `write_encoder`.

    Raises:
        EncoderError: It is not there, not finished, or its weights are not those that were stored.
    """
    path = folder / 'encoder' / 'encoder.json'
    try:
        record = json.loads(path.read_text(encoding='utf-8'))
    except (OSError, json.JSONDecodeError) as error:
        raise EncoderError(f'{path} cannot be read: {error}') from error
    network = record['network']
    size, channels = network['input_size'], network['channels']
    like = jax.eval_shape(
        module(network).init, jax.random.key(0), jnp.zeros((1, size, size, channels))
    )
    variables = checkpoints.restore(folder / 'encoder' / 'weights', like)
    _, mpp = record['inputs'][0]
    encoder = conv_encoder(record['name'], network, variables, mpp=mpp)
    if encoder.sha256() != record['sha256']:
        raise EncoderError(f'{path} does not belong to the weights beside it; train again')
    return dataclasses.replace(encoder, learned_from=tuple(record.get('learned_from', ())))
