"""The authors' Keras files: their codes, and what is refused."""

import json
import shutil

import h5py
import jax
import numpy as np
import PIL.Image
import pytest

from nic_jax.encoders import published
from nic_jax.encoders.encoder import EncoderError
from nic_jax.encoders.keras_import import load_keras
from nic_jax.encoders.storage import load_encoder

CONVOLUTIONAL = ('bigan', 'multitask-4')


@pytest.fixture(scope='module')
def reference(shared):
    return shared / 'reference'


@pytest.fixture(scope='module')
def example(reference):
    """The authors' example patch, uint8 [1, 128, 128, 3]."""
    return np.asarray(PIL.Image.open(reference / 'example_128.jpg').convert('RGB'))[None]


def encode(encoder, patches):
    return np.asarray(jax.jit(encoder.apply)(encoder.variables, patches))


def keras_by_hand(path, patches):
    """The layers one after another in float64, for patches [B, 64, 64, 3] in 0 … 255."""
    arrays = {}

    def note(name, item):
        if isinstance(item, h5py.Dataset):
            arrays['/'.join(name.split('/')[-2:]).removesuffix(':0')] = item[()].astype(float)

    with h5py.File(path) as file:
        file['model_weights'].visititems(note)

    def in_order(kind):
        names = {name.split('/')[0] for name in arrays if name.startswith(kind)}
        return sorted(names, key=lambda name: int(name.rsplit('_', 1)[1]))

    x = patches / 127.5 - 1
    for conv, norm in zip(in_order('conv2d'), in_order('batch_normalization'), strict=True):
        windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(1, 2))[:, ::2, ::2]
        x = np.einsum('byxcij,ijcf->byxf', windows, arrays[f'{conv}/kernel'], optimize=True)
        x = x + arrays[f'{conv}/bias']
        x = np.where(x > 0, x, 0.2 * x) - arrays[f'{norm}/moving_mean']
        x = x / np.sqrt(arrays[f'{norm}/moving_variance'] + 1e-3)
        x = x * arrays[f'{norm}/gamma'] + arrays[f'{norm}/beta']
    (dense,) = {name.split('/')[0] for name in arrays if arrays[name].ndim == 2}
    return x.reshape(len(x), -1) @ arrays[f'{dense}/kernel'] + arrays[f'{dense}/bias']


def test_keras_gives_the_same_code(reference, example):
    codes = encode(load_keras(reference / 'encoder_bigan.h5'), example)
    expected = np.load(reference / 'encoder_bigan_ref.npz')['example']
    assert codes.shape == (1, 128)
    np.testing.assert_allclose(codes, expected, atol=1e-4)


@pytest.mark.parametrize('name', CONVOLUTIONAL)
def test_the_layers_by_hand_give_the_same_codes(name, reference, example):
    path = reference / f'encoder_{name}.h5'
    encoder = load_keras(path)
    assert encoder.name == f'encoder_{name}'
    assert encoder.inputs == ((128, 0.5), (64, 1.0))
    assert (encoder.code_size, encoder.channels, encoder.turn_invariant) == (128, 3, False)
    patches = np.concatenate([example, np.rot90(example, axes=(1, 2)), 255 - example])
    halved = patches.reshape(3, 64, 2, 64, 2, 3).mean(axis=(2, 4))
    np.testing.assert_allclose(encode(encoder, patches), keras_by_hand(path, halved), atol=1e-4)
    small = np.rint(halved).astype(np.uint8)
    np.testing.assert_allclose(encode(encoder, small), keras_by_hand(path, small), atol=1e-4)


def test_mean_rgb_of_the_authors_is_ours(reference, example):
    encoder = load_keras(reference / 'encoder_mean-rgb.h5')
    assert (encoder.name, encoder.code_size) == ('mean_rgb', 3)
    expected = (example / 127.5 - 1).mean(axis=(1, 2))
    np.testing.assert_allclose(encode(encoder, example), expected, atol=1e-6)


def test_files_of_the_same_name_and_other_weights_differ(reference):
    fingerprints = {
        load_keras(reference / f'encoder_{n}.h5', name='x').sha256() for n in CONVOLUTIONAL
    }
    assert len(fingerprints) == 2
    assert load_encoder(str(reference / 'encoder_bigan.h5')).sha256() in fingerprints


def test_what_is_no_hdf5_is_refused(tmp_path):
    path = tmp_path / 'weights.h5'
    path.write_bytes(b'these are no weights')
    with pytest.raises(EncoderError, match=r'weights\.h5 is not a published Keras encoder'):
        load_keras(path)
    with pytest.raises(EncoderError, match=r'nowhere\.h5 is not a published Keras encoder'):
        load_keras(tmp_path / 'nowhere.h5')


def test_hdf5_without_a_model_is_refused(tmp_path):
    path = tmp_path / 'features.h5'
    with h5py.File(path, 'w') as file:
        file['features'] = np.zeros((3, 4))
    with pytest.raises(EncoderError, match=r'features\.h5 is not .*model_config'):
        load_keras(path)


def changed(reference, tmp_path, change):
    """The published file with its layers' settings changed; its layers in a flat list."""
    path = tmp_path / 'changed.h5'
    shutil.copyfile(reference / 'encoder_multitask-4.h5', path)
    with h5py.File(path, 'r+') as file:
        model = json.loads(file.attrs['model_config'])
        change(model['config']['layers'])
        file.attrs['model_config'] = json.dumps(model)
    return path


def layer_of(layers, kind, number=0):
    return [layer for layer in layers if layer['class_name'] == kind][number]


@pytest.mark.parametrize(
    ('kind', 'number', 'key', 'value'),
    [
        ('Conv2D', 1, 'strides', [1, 1]),
        ('Conv2D', 0, 'kernel_size', [5, 5]),
        ('Conv2D', 3, 'padding', 'same'),
        ('Conv2D', 2, 'activation', 'relu'),
        ('Conv2D', 2, 'dilation_rate', [2, 2]),
        ('LeakyReLU', 2, 'alpha', 0.3),
        ('BatchNormalization', 1, 'epsilon', 0.01),
        ('BatchNormalization', 1, 'scale', False),
        ('Dense', 0, 'activation', 'tanh'),
    ],
)
def test_a_setting_that_would_change_the_codes_is_refused(
    reference, tmp_path, kind, number, key, value
):
    def change(layers):
        layer_of(layers, kind, number)['config'][key] = value

    path = changed(reference, tmp_path, change)
    with pytest.raises(EncoderError) as caught:
        load_keras(path)
    assert f'has {key} {value}' in str(caught.value)
    assert str(path) in str(caught.value)


def test_unexpected_layers_are_named(reference, tmp_path):
    def change(layers):
        layer_of(layers, 'LeakyReLU', 1)['class_name'] = 'PReLU'

    with pytest.raises(EncoderError, match=r'its layers are Conv2D, LeakyReLU, .*PReLU'):
        load_keras(changed(reference, tmp_path, change))


def test_weights_that_are_missing_are_named(reference, tmp_path):
    def change(layers):
        layer_of(layers, 'Dense')['config']['name'] = 'another'

    with pytest.raises(EncoderError, match=r'layer another lacks .*kernel'):
        load_keras(changed(reference, tmp_path, change))


def test_a_published_encoder_is_fetched_once(reference, tmp_path, monkeypatch):
    monkeypatch.setenv('SCIKIT_LEARN_DATA', str(tmp_path / 'cache'))
    encoder = published.load_published('nic_bigan', source=f'{reference.as_uri()}/')
    assert encoder.name == 'nic_bigan'
    assert encoder.sha256() == load_keras(reference / 'encoder_bigan.h5').sha256()
    kept = tmp_path / 'cache/nic_jax/encoder_bigan.h5'
    assert kept.read_bytes() == (reference / 'encoder_bigan.h5').read_bytes()
    again = published.load_published('nic_bigan', source='file:///nowhere/')
    assert again.sha256() == encoder.sha256()
    assert load_encoder('nic_bigan').sha256() == encoder.sha256()
    assert [file.name for file in kept.parent.iterdir()] == [kept.name]


def test_what_is_not_the_published_file_is_not_kept(tmp_path, monkeypatch):
    monkeypatch.setenv('SCIKIT_LEARN_DATA', str(tmp_path / 'cache'))
    (tmp_path / 'encoder_bigan.h5').write_bytes(b'something else')
    with pytest.raises(EncoderError, match=r'encoder_bigan\.h5 is not the file that was published'):
        published.load_published('nic_bigan', source=f'{tmp_path.as_uri()}/')
    with pytest.raises(EncoderError, match=r'cannot be fetched .*--config\.encoder=PATH/encoder_m'):
        published.load_published('nic_multitask4', source=f'{tmp_path.as_uri()}/nowhere/')
    assert not list((tmp_path / 'cache').rglob('*.h5*'))


def test_an_encoder_that_is_not_there(tmp_path):
    with pytest.raises(EncoderError, match="no encoder 'nic': give mean_rgb, nic_bigan, nic_mul"):
        load_encoder('nic')
    with pytest.raises(EncoderError, match='holds no trained encoder'):
        load_encoder(str(tmp_path))
    for name in ('a', 'b'):
        (tmp_path / name / 'encoder').mkdir(parents=True)
    with pytest.raises(EncoderError, match=r'several encoders; name one of .*/a, .*/b'):
        load_encoder(str(tmp_path))
    with pytest.raises(EncoderError, match=r'a/encoder/encoder\.json cannot be read'):
        load_encoder(str(tmp_path / 'a'))
