"""Tasks of tile experiments whose patches are drawn from annotated slides."""

import collections
import shutil

import pytest

from nic_jax import challenges, checks, slide_tasks, stages, tile_stages
from nic_jax import config as defaults
from nic_jax.challenges import rectum
from nic_jax.cohort import CohortError
from nic_jax.patches.slide_settings import SlideTask
from nic_jax.patches.store import open_set

SETTINGS = {
    'patch_size': 16,
    'mpp': 10.0,
    'tissue_mpp': 20.0,
    'classes': rectum.CLASS_SETTING,
    'valid_share': 0.1,
    'test_share': 0.4,
}


@pytest.fixture(scope='module')
def original(tmp_path_factory):
    folder = tmp_path_factory.mktemp('rectum') / 'slides'
    challenges.write_miniature('rectum', folder, seed=0)
    return folder


@pytest.fixture(autouse=True)
def no_sheets(monkeypatch):
    """Spares the pictures of patches, nearly all of whose time is compilation."""
    monkeypatch.setattr(slide_tasks, 'draw_set', lambda folder, *, seed: None)


def settings(folder, *, encoder='mean_rgb', **changes):
    config = defaults.tiles(rectum={})
    fields = {**SETTINGS, 'tiles': str(folder), 'layout': 'rectum', 'per_class': (20, 4, 10)}
    config.tasks.rectum = defaults.from_dataclass(SlideTask, **(fields | changes))
    config.encoder = encoder
    config.probe.update(epochs=2, seeds=(0,), models='linear')
    return config


def counts(home):
    found = open_set(home / 'patches' / 'rectum')
    return collections.Counter(
        zip(found.columns['subset'].tolist(), found.columns['label'].tolist(), strict=True)
    )


def test_each_class_has_its_number_in_each_subset(original, tmp_path):
    config = settings(original)
    assert tile_stages.patches(config, tmp_path, overwrite=False)
    expected = {('train', 20), ('valid', 4), ('test', 10)}
    found = counts(tmp_path)
    assert len(found) == 27
    assert {(subset, number) for (subset, _), number in found.items()} == expected


def test_a_number_that_slides_do_not_have_is_told_and_not_made_up_for(original, tmp_path, capsys):
    # A class has 4 whole cells or so on each slide.
    config = settings(original, per_class=(1000, 1000, 1000))
    assert tile_stages.patches(config, tmp_path, overwrite=False)
    assert max(counts(tmp_path).values()) < 1000
    assert '11 had fewer patches than asked' in capsys.readouterr().out


def test_without_per_class_each_slide_gives_as_many(original, tmp_path):
    config = settings(original, per_class=(), per_slide=18)
    assert tile_stages.patches(config, tmp_path, overwrite=False)
    found = open_set(tmp_path / 'patches' / 'rectum')
    assert set(collections.Counter(found.columns['name'].tolist()).values()) == {18}


def test_codes_of_other_slides_are_not_reused(original, tmp_path):
    folder = shutil.copytree(original, tmp_path / 'slides')
    config, home = settings(folder), tmp_path / 'run'
    home.mkdir()
    for stage in ('patches', 'compress', 'classify'):
        assert stages.STAGES[stage](config, home, overwrite=False)
    before = (home / 'mean_rgb/codes/rectum/codes.npy').stat().st_mtime_ns
    assert tile_stages.compress(config, home, overwrite=False)
    assert (home / 'mean_rgb/codes/rectum/codes.npy').stat().st_mtime_ns == before

    # Another slide in the place of one: its patches lie elsewhere.
    table = folder / 'slides.csv'
    table.write_text(
        table.read_text().replace('rectum_03,images/rectum_03', 'new,images/rectum_03')
    )
    assert tile_stages.patches(config, home, overwrite=False)
    with pytest.raises(ValueError, match=r'other settings \(slides differ\)'):
        tile_stages.compress(config, home, overwrite=False)
    assert tile_stages.compress(config, home, overwrite=True)


def test_pairs_are_drawn_where_an_encoder_needs_them(original, tmp_path):
    config = settings(original, encoder='contrastive', train_pairs=12, valid_pairs=0)
    config.contrastive.sets = 'rectum'
    config.tasks.rectum.valid_pairs = 4
    with pytest.raises(ValueError, match='1 cases for valid'):
        tile_stages.patches(config, tmp_path, overwrite=False)
    config.tasks.rectum.valid_pairs = 0
    assert tile_stages.patches(config, tmp_path, overwrite=False)
    assert (tmp_path / 'patches/rectum/pairs_train.npy').exists()
    config.encoder = 'mean_rgb'
    assert tile_stages.patches(config, tmp_path / 'other', overwrite=False)
    assert not (tmp_path / 'other/patches/rectum/pairs_train.npy').exists()


def test_a_slide_that_fails_is_told_and_the_others_are_taken(original, tmp_path):
    folder = shutil.copytree(original, tmp_path / 'slides')
    (folder / 'images/rectum_01.tif').write_bytes(b'no slide')
    home = tmp_path / 'run'
    assert not tile_stages.patches(settings(folder), home, overwrite=False)
    assert 'rectum_01' in (home / 'failures.csv').read_text()
    assert 'rectum_01' not in open_set(home / 'patches/rectum').columns['name']
    shutil.copy(original / 'images/rectum_01.tif', folder / 'images')
    assert tile_stages.patches(settings(folder), home, overwrite=False)


def test_a_table_of_ones_own_classes(original, tmp_path, capsys):
    config = settings(
        original / 'slides.csv', layout='table', classes=('mucus', 'muscle'), per_class=()
    )
    checks.check(config)
    assert tile_stages.dry_run(config)
    assert 'patches of 2 classes' in capsys.readouterr().out
    assert tile_stages.patches(config, tmp_path, overwrite=False)
    assert {label for _, label in counts(tmp_path)} == {'mucus', 'muscle'}


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'valid_share': 0.0}, 'no slides for valid'),
        ({'test_share': 0.0}, 'no slides for test'),
        ({'classes': ('tumour',)}, 'the annotations are of tumour; two classes'),
        ({'valid_share': 0.6}, 'leave nothing to train on'),
        ({'per_class': (1, 2)}, 'must be three numbers'),
        ({'per_class': (1, 2, 0)}, 'must be three numbers'),
        ({'layout': 'rectal'}, "no layout 'rectal'"),
    ],
)
def test_what_cannot_be_is_refused_at_the_start(original, changes, message):
    with pytest.raises(ValueError, match=message):
        checks.check(settings(original, **changes))


def test_a_table_without_annotations_is_refused(original, tmp_path):
    path = tmp_path / 'slides.csv'
    path.write_text(f'slide_id,path\na,{original}/images/rectum_00.tif\n')
    with pytest.raises(CohortError, match='no slide has annotations'):
        checks.check(settings(path, layout='table'))
