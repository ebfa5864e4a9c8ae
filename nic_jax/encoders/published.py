"""The authors' published encoders by name, fetched once and checked.

They lie in the repository of Tellez et al. under the MIT licence. A fetched file is kept in
scikit-learn's data folder (`sklearn.datasets.get_data_home()`), so that a cluster's nodes share it.
"""

import hashlib
import http.client
import pathlib
import urllib.error
import urllib.request

import sklearn.datasets

from nic_jax.encoders.encoder import Encoder, EncoderError
from nic_jax.encoders.keras_import import load_keras
from nic_jax.workdir import replacing

_SOURCE = (
    'https://raw.githubusercontent.com/davidtellez/neural-image-compression/master/'
    'models/encoders_patches_pathology/'
)
# Name: (file, sha256).
PUBLISHED = {
    'nic_bigan': (
        'encoder_bigan.h5',
        '15cf687f29121aeb500c88a4e406ab0919a5f939187ad618517a04a81130569b',
    ),
    'nic_multitask4': (
        'encoder_multitask-4.h5',
        '714684a5aacbc4b2dc3718db5e91f4222ffbcdaa7df81d6daa31a006a9a1da0b',
    ),
}


def load_published(name: str, *, source: str = _SOURCE) -> Encoder:
    """Loads a published encoder, fetching it first where it is not at hand.

    Args:
        name: A key of `PUBLISHED`.
        source: The URL of the folder that holds the files.

    Raises:
        EncoderError: It cannot be fetched, or is not the file that was published.
    """
    file, sha256 = PUBLISHED[name]
    path = pathlib.Path(sklearn.datasets.get_data_home()) / 'nic_jax' / file
    if not path.exists() or hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
        _fetch(source + file, path, sha256)
    return load_keras(path, name=name)


def _fetch(url: str, path: pathlib.Path, sha256: str) -> None:
    remedy = f'download it yourself and give --config.encoder=PATH/{path.name}'
    try:
        with urllib.request.urlopen(url, timeout=60) as response:
            data = response.read()
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError) as error:
        raise EncoderError(f'{url} cannot be fetched ({error}); {remedy}') from error
    if hashlib.sha256(data).hexdigest() != sha256:
        raise EncoderError(f'{url} is not the file that was published (sha256 differs); {remedy}')
    with replacing(path) as partial:
        partial.write_bytes(data)
