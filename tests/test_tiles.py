import csv
import io
import json
import os
import shutil
import tarfile
import zipfile

import numpy as np
import pytest
import tifffile
from PIL import Image

from nic_jax.patches import archives, store, subsets, tile_parts, tiles
from nic_jax.patches.images import TileError, decode_tile
from nic_jax.patches.store import PatchesError
from nic_jax.patches.tiles import TileTable, check_table, make_tile_set


def _pixels(seed=0, shape=(70, 80, 3), dtype=np.uint8):
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape, dtype)


def _encoded(pixels, mode='RGB', kind='PNG', **options):
    file = io.BytesIO()
    image = Image.fromarray(pixels)
    (image if image.mode == mode else image.convert(mode)).save(file, kind, **options)
    return file.getvalue()


def _tiff(pixels, **options):
    file = io.BytesIO()
    tifffile.imwrite(file, pixels, **options)
    return file.getvalue()


def _tree(folder, files):
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


def _archive(path, files):
    if path.suffix == '.zip':
        with zipfile.ZipFile(path, 'w') as archive:
            for name, data in files.items():
                archive.writestr(name, data)
        return
    with tarfile.open(path, f'w:{path.suffix[1:]}' if path.suffix != '.tar' else 'w') as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def _csv(path, rows):
    with path.open('w', newline='') as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)


def _class_files(count=10, size=(12, 12, 3)):
    """Twice `count` tiles in folders of two classes."""
    return {
        f'{label}/{number}.png': _encoded(_pixels(100 * label + number, size))
        for label in (0, 1)
        for number in range(count)
    }


def _rows(files, **columns):
    return [{'path': name, 'label': name.split('/')[-2], **columns} for name in files]


def _make(table, home, name='tiles', seed=0):
    summary = make_tile_set(table, home / name, home=home, name=name, seed=seed, workers=2)
    return summary, store.open_set(home / name)


def _failures(home):
    if not (home / 'failures.csv').exists():
        return {}
    with (home / 'failures.csv').open(newline='', encoding='utf-8') as file:
        return {row['slide_id']: row['reason'] for row in csv.DictReader(file)}


def _contents(folder):
    return {
        file.relative_to(folder): file.read_bytes()
        for file in sorted(folder.rglob('*'))
        if file.is_file()
    }


# One tile


def test_the_centre_is_exact():
    pixels = _pixels(shape=(96, 96, 3))
    patch, mode = decode_tile(_encoded(pixels), crop=64, patch_size=64)
    np.testing.assert_array_equal(patch, pixels[16:80, 16:80])
    assert mode == ''
    odd, _ = decode_tile(_encoded(_pixels()), crop=65, patch_size=65)
    np.testing.assert_array_equal(odd, _pixels()[2:67, 7:72])
    half, _ = decode_tile(_encoded(pixels), crop=64, patch_size=32)
    means = pixels[16:80, 16:80].reshape(32, 2, 32, 2, 3).mean(axis=(1, 3))
    np.testing.assert_array_equal(half, np.rint(means))


@pytest.mark.parametrize('kind', ['TIFF', 'BMP', 'WEBP'])
def test_kinds_without_loss(kind):
    options = {'lossless': True} if kind == 'WEBP' else {}
    patch, mode = decode_tile(_encoded(_pixels(), kind=kind, **options), crop=70, patch_size=70)
    np.testing.assert_array_equal(patch, _pixels()[:, 5:75])
    assert mode == ''


def test_grey_palettes_and_transparency_are_converted():
    grey = _pixels(shape=(64, 64))
    patch, mode = decode_tile(_encoded(grey, 'L'), crop=64, patch_size=64)
    np.testing.assert_array_equal(patch, np.repeat(grey[..., None], 3, axis=2))
    assert mode == 'L'

    opaque = _pixels(shape=(64, 64, 4))
    opaque[..., 3] = 255
    patch, mode = decode_tile(_encoded(opaque, 'RGBA'), crop=64, patch_size=64)
    np.testing.assert_array_equal(patch, opaque[..., :3])
    assert mode == 'RGBA'

    opaque[:32, :, 3], opaque[32:, :, 3] = 0, 128
    patch, mode = decode_tile(_encoded(opaque, 'RGBA'), crop=64, patch_size=64)
    assert (patch[:32] == 255).all()
    mixed = opaque[32:, :, :3] * (128 / 255) + 255 * (127 / 255)
    assert np.abs(patch[32:] - mixed).max() <= 1
    assert mode == 'RGBA over white'

    palette = Image.fromarray(_pixels(shape=(64, 64, 3))).quantize(16)
    file = io.BytesIO()
    palette.save(file, 'PNG')
    patch, mode = decode_tile(file.getvalue(), crop=64, patch_size=64)
    np.testing.assert_array_equal(patch, np.array(palette.convert('RGB')))
    assert mode == 'P'
    palette.save(file := io.BytesIO(), 'PNG', transparency=0)
    patch, mode = decode_tile(file.getvalue(), crop=64, patch_size=64)
    assert (patch[np.array(palette) == 0] == 255).all()
    assert mode == 'P over white'


def test_orientation_of_exif_is_ignored():
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    data = _encoded(_pixels(), kind='JPEG', exif=exif)
    patch, _ = decode_tile(data, crop=70, patch_size=70)
    np.testing.assert_array_equal(patch, np.array(Image.open(io.BytesIO(data)))[:, 5:75])


_JPEG = _encoded(_pixels(), kind='JPEG')
_PNG = _encoded(_pixels())
_DEEP = _pixels(shape=(70, 80, 3), dtype=np.uint16)


@pytest.mark.parametrize(
    ('data', 'kind', 'detail'),
    [
        (_encoded(_pixels(), 'CMYK', 'JPEG'), 'mode CMYK', 'neither RGB nor'),
        (_encoded(_pixels(), '1'), 'mode 1', 'neither RGB nor'),
        (_encoded(_DEEP[..., 0], 'I;16'), '16 bits or more', 'mode I;16'),
        (_tiff(_DEEP, photometric='rgb'), '16 bits or more', 'mode RGB'),
        (_tiff(_DEEP, photometric='rgb', compression='zlib'), '16 bits or more', 'mode RGB'),
        (_tiff(_DEEP[..., 0].astype(np.float32)), 'mode F', 'neither'),
        (_encoded(_pixels(shape=(63, 70, 3))), 'smaller than 64 px', '70×63 px'),
        (_JPEG[: len(_JPEG) // 2], 'corrupt', 'no end'),
        (_JPEG[: len(_JPEG) // 2] + bytes(len(_JPEG) // 2), 'corrupt', 'no end'),
        (_PNG[: len(_PNG) // 2], 'corrupt', 'truncated'),
        (_PNG[:5000] + bytes([_PNG[5000] ^ 255]) + _PNG[5001:], 'corrupt', 'broken'),
        (b'not an image', 'no image', '12 bytes, none of JPEG'),
        (b'', 'no image', '0 bytes'),
    ],
)
def test_tiles_that_give_no_patch(data, kind, detail):
    with pytest.raises(TileError) as caught:
        decode_tile(data, crop=64, patch_size=64)
    assert kind in caught.value.kind
    assert detail in str(caught.value)


# Folders and archives


@pytest.mark.parametrize('top', ['', 'all/', './all/'])
@pytest.mark.parametrize('suffix', ['.tar.xz', '.tar.gz', '.tar', '.zip', ''])
def test_one_set_however_it_is_packed(tmp_path, suffix, top):
    files = _class_files()
    packed = {top + name: data for name, data in files.items()} | {f'{top}0/more.txt': b''}
    _csv(tmp_path / 'tiles.csv', _rows(files))
    if suffix:
        _archive(tmp_path / f'tiles{suffix}', packed)
    else:
        _tree(tmp_path / 'tiles', files)
    table = TileTable(str(tmp_path / 'tiles.csv'), patch_size=8, mpp=0.5)
    summary, patches = _make(table, tmp_path / 'home')
    assert summary == tiles.TileSummary(20, {}, {}, 0)
    assert patches.columns['name'].tolist() == list(files)
    expected = [decode_tile(data, crop=8, patch_size=8)[0] for data in files.values()]
    np.testing.assert_array_equal(patches.pixels[:], expected)
    assert patches.labels.tolist() == [0] * 10 + [1] * 10
    assert (patches.classes, patches.mpp) == (('0', '1'), 0.5)
    assert [len(patches.indices(subset)) for subset in store.SUBSETS] == [12, 4, 4]
    assert _failures(tmp_path / 'home') == {}


@pytest.mark.parametrize('top', ['', 'all/'])
@pytest.mark.parametrize('suffix', ['.tar.xz', '.zip', ''])
def test_class_folders_need_no_table(tmp_path, suffix, top):
    files = {top + name: data for name, data in _class_files().items()}
    extra = {f'{top}notes.txt': b'', f'{top}.hidden/1.png': b'', f'{top}__MACOSX/0/._1.png': b''}
    path = tmp_path / f'tiles{suffix}'
    _archive(path, files | extra) if suffix else _tree(path, files | extra)
    table = TileTable(str(path), patch_size=8)
    checked = check_table(table, seed=0)
    assert checked.counts() == {
        'train': {'0': 6, '1': 6},
        'valid': {'0': 2, '1': 2},
        'test': {'0': 2, '1': 2},
    }
    assert f'1 files in {path} are no images: {top}notes.txt' in checked.notes
    _, patches = _make(table, tmp_path / 'home')
    assert sorted(patches.columns['name']) == sorted(files)
    assert patches.labels.tolist() == [int(name.split('/')[-2]) for name in patches.columns['name']]


def test_folders_of_subsets(tmp_path):
    files = _class_files()
    _tree(tmp_path, {f'tiles/training/{name}': data for name, data in files.items()})
    _tree(tmp_path, {f'tiles/val/{name}': data for name, data in files.items()})
    (tmp_path / 'tiles/val/loose.png').write_bytes(files['0/0.png'])
    checked = check_table(TileTable(str(tmp_path / 'tiles'), patch_size=8), seed=0)
    assert checked.counts() == {
        'train': {'0': 8, '1': 8, '': 0},
        'valid': {'0': 10, '1': 10, '': 1},
        'test': {'0': 2, '1': 2, '': 0},
    }
    assert any('1 of 41 images' in note and 'no class folder' in note for note in checked.notes)
    _tree(tmp_path, {'tiles/other/0/1.png': b''})
    with pytest.raises(PatchesError, match=r'subsets \(training, val\) beside others \(other\)'):
        check_table(TileTable(str(tmp_path / 'tiles')), seed=0)


def test_archives_in_error(tmp_path):
    wanted = dict.fromkeys(['0/1.png', '0/2.png'])
    _archive(tmp_path / 'two.tar', {'a/0/1.png': b'', 'b/0/2.png': b''})
    with pytest.raises(PatchesError, match=r"two\.tar has tiles of the table in 'a/' and.*'b/0/2"):
        list(archives.find(tmp_path / 'two.tar', wanted))
    # Files that only end like the table's are none of it where its paths are whole.
    _archive(tmp_path / 'whole.tar', {'0/1.png': b'', 'thumbs/0/1.png': b'', '0/2.png': b''})
    found = [name for name, _ in archives.find(tmp_path / 'whole.tar', wanted)]
    assert found == ['0/1.png', '0/2.png']
    with tarfile.open(tmp_path / 'twice.tar', 'w') as tar:
        for _ in range(2):
            tar.addfile(tarfile.TarInfo('0/1.png'))
    with pytest.raises(PatchesError, match=r"twice\.tar holds '0/1\.png' twice"):
        list(archives.find(tmp_path / 'twice.tar', wanted))
    (tmp_path / 'odd.zip').write_bytes(b'no archive')
    (tmp_path / 'odd.tar.xz').write_bytes(b'no archive')
    for name in ('odd.zip', 'odd.tar.xz'):
        with pytest.raises(PatchesError, match=f'{name} is damaged or cut short'):
            archives.check(tmp_path / name)


@pytest.mark.parametrize('suffix', ['.tar.xz', '.tar.gz', '.tar'])
def test_an_archive_that_is_cut_short(tmp_path, suffix):
    files = _class_files(size=(60, 60, 3))
    _archive(tmp_path / f'tiles{suffix}', files)
    _csv(tmp_path / 'tiles.csv', _rows(files))
    data = (tmp_path / f'tiles{suffix}').read_bytes()
    (tmp_path / f'tiles{suffix}').write_bytes(data[: len(data) * 2 // 3])
    with pytest.raises(PatchesError, match=r'damaged or cut short.*fetch it again'):
        _make(TileTable(str(tmp_path / 'tiles.csv'), patch_size=8), tmp_path / 'home')


def test_nothing_leaves_the_archive(tmp_path):
    files = _class_files()
    (tmp_path / 'secret.png').write_bytes(files['0/0.png'])
    with tarfile.open(tmp_path / 'tiles.tar', 'w') as tar:
        for name, data in {**files, '../0/out.png': files['0/0.png']}.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        link = tarfile.TarInfo('0/link.png')
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path / 'secret.png')
        tar.addfile(link)
    _csv(tmp_path / 'tiles.csv', _rows([*files, '0/link.png', '0/out.png']))
    before = set(tmp_path.iterdir())
    summary, _ = _make(TileTable(str(tmp_path / 'tiles.csv'), patch_size=8), tmp_path / 'home')
    assert summary.skipped == {'a link in an archive': 1, 'not in tiles.tar': 1}
    assert set(_failures(tmp_path / 'home')) == {'0/link.png', '0/out.png'}
    assert set(tmp_path.iterdir()) - before == {tmp_path / 'home'}


# Tables in error


_GOOD = 'path,label,split,slide\n' + ''.join(
    f'{label}/{number}.png,{label},train,s{label}{number}\n'
    for label in 'ab'
    for number in '012345'
)


@pytest.mark.parametrize(
    ('text', 'settings', 'message'),
    [
        ('', {}, "line 1: no column 'path' among none"),
        ('path,klass\n', {}, "no column 'label' among path, klass"),
        ('path,label,label\n', {}, "two columns 'label' among path, label, label"),
        (_GOOD + '"a' + 'x\n' * 70_000, {}, 'look for a quote that is not closed'),
        (_GOOD, {'group': 'label+patient'}, "no column 'patient' among path, label, split, slide"),
        (_GOOD, {'subset': 'fold'}, "no column 'fold' among path, label, split, slide"),
        ('path,label\n', {}, 'header but no tiles'),
        (_GOOD + 'a/0.png,a,train,s\n', {}, r'line 14: a/0\.png is in line 2 already'),
        (_GOOD + './a/0.png,a,train,s\n', {}, r'line 14: a/0\.png is in line 2 already'),
        (_GOOD + '../0.png,a,train,s\n', {}, r"line 14: '\.\./0\.png' is no path inside"),
        (_GOOD + 'a/../../0.png,a,train,s\n', {}, 'line 14: .* is no path inside'),
        (_GOOD + '/a/0.png,a,train,s\n', {}, 'line 14: .* is no path inside'),
        (_GOOD + 'a\\0.png,a,train,s\n', {}, 'line 14: .* is no path inside'),
        (_GOOD + ',a,train,s\n', {}, "line 14: '' is no path inside"),
        (_GOOD + 'a/9.png,a,tune,s\n', {}, "line 14: split is 'tune', expected one of train"),
        (_GOOD + 'a/9.png,a,,s\n', {}, "line 14: split is ''"),
        (_GOOD + 'a/9.png,a,train,\n', {'group': 'slide'}, 'line 14: no slide; give each'),
        (_GOOD + 'a/9.png,a,train\n', {}, 'line 14: 3 cells, the header has 4'),
        (_GOOD + 'a/9.png,a,test,sa0\n', {'group': 'slide'}, "'sa0' is in train .* and test"),
        (_GOOD + 'c/9.png,c,test,s\n', {}, "no tile of class 'c' is left for training"),
        (_GOOD.replace(',b,', ',a,'), {}, r'one class or none \(a\)'),
        (_GOOD.replace(',b,', ',,').replace(',a,', ',NA,'), {}, 'one class or none'),
        (_GOOD.replace('train', 'test'), {}, 'no tile is for training'),
        (
            _GOOD.replace('a,train', 'a,test').replace('b,train', 'b,test') + 'c/1.png,a,train,s\n',
            {'valid_share': 0.0},
            '1 tiles for training',
        ),
        ('path,label\na/1.png,a\nb/1.png,b\n', {}, '2 sources of training tiles are too few'),
        (_GOOD, {'images': 'empty'}, r'none of its 12 tiles is in .*empty, e\.g\. a/0\.png'),
        (_GOOD, {'images': 'nowhere'}, 'nowhere does not exist'),
        (_GOOD, {'images': 'tiles.csv'}, r'tiles\.csv is neither a folder nor one of \.tar\.xz'),
        (_GOOD, {'crop': 32}, '64 px from the central 32 px'),
        (_GOOD, {'mpp': 0.0}, r'mpp is 0\.0'),
        (_GOOD, {'valid_share': 0.5, 'test_share': 0.5}, 'below 1 together'),
    ],
)
def test_tables_in_error(tmp_path, monkeypatch, text, settings, message):
    monkeypatch.chdir(tmp_path)
    _tree(tmp_path, {f'{label}/{number}.png': b'' for label in 'abc' for number in '0123459'})
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'tiles.csv').write_text(text)
    with pytest.raises(ValueError, match=message):
        check_table(TileTable('tiles.csv', **settings), seed=0)


def test_other_paths_in_error(tmp_path):
    with pytest.raises(ValueError, match=r'gone\.csv does not exist'):
        check_table(TileTable(str(tmp_path / 'gone.csv')), seed=0)
    with pytest.raises(PatchesError, match='gone does not exist'):
        check_table(TileTable(str(tmp_path / 'gone')), seed=0)
    with pytest.raises(PatchesError, match=r'holds no images; known suffixes: \.jpg'):
        check_table(TileTable(str(tmp_path)), seed=0)
    with pytest.raises(PatchesError, match=r'images and group are for tables'):
        check_table(TileTable(str(tmp_path), group='slide'), seed=0)


# Subsets


@pytest.mark.parametrize('seed', range(20))
def test_no_source_is_in_two_subsets(seed):
    rng = np.random.default_rng(seed)
    sources = rng.integers(0, 60, 600).astype(str)
    labels = np.where(rng.random(600) < 0.8, np.char.add('', (sources.astype(int) % 3).astype(str)),
                      rng.integers(0, 3, 600).astype(str))  # fmt: skip
    shares = {'train': 0.6, 'valid': 0.2, 'test': 0.2}
    dealt = np.array(subsets.share_out(sources, labels, shares=shares, seed=seed))
    for source in set(sources):
        assert len(set(dealt[sources == source])) == 1
    for label in set(labels):
        for subset, share in shares.items():
            assert abs(np.mean(dealt[labels == label] == subset) - share) < 0.06
    again = subsets.share_out(sources, labels, shares=shares, seed=seed)
    assert again == dealt.tolist()
    assert subsets.share_out(sources, labels, shares=shares, seed=seed + 100) != again


@pytest.mark.parametrize('count', [1, 2, 4, 5, 10, 99])
def test_single_tiles_are_apportioned_and_training_comes_first(count):
    shares = {'train': 0.6, 'valid': 0.2, 'test': 0.2}
    dealt = subsets.share_out(
        [str(number) for number in range(count)], ['a'] * count, shares=shares, seed=0
    )
    for subset, share in shares.items():
        assert abs(dealt.count(subset) - share * count) < 1
    assert dealt.count('train') >= 1


def test_what_a_table_gives_stays(tmp_path):
    files = _class_files()
    _tree(tmp_path, files)
    rows = _rows(files)
    for number, row in enumerate(rows):
        row.update(split='Validation' if number % 10 < 3 else 'training', slide=number // 2)
    _csv(tmp_path / 'tiles.csv', rows)
    table = TileTable(str(tmp_path / 'tiles.csv'), patch_size=8)
    for changes, expected in (({}, [12, 6, 2]), ({'test_share': 0.0}, [14, 6, 0])):
        counts = check_table(TileTable(**{**vars(table), **changes}), seed=0).counts()
        assert [sum(counts[subset].values()) for subset in store.SUBSETS] == expected
    with pytest.raises(PatchesError, match=r"source '1' is in valid .* and train"):
        check_table(TileTable(**{**vars(table), 'group': 'slide'}), seed=0)
    assert 'drawn tile by tile (test)' in check_table(table, seed=0).notes[0]


# A set


def _mixed(tmp_path, count=30):
    """A table with tiles of every kind that is skipped or converted, packed in an archive."""
    files = _class_files(count)
    files['0/1.png'] = _encoded(_pixels(shape=(12, 12)), 'L')
    files['0/2.png'] = files['0/2.png'][:100]
    files['1/3.png'] = _encoded(_pixels(shape=(12, 12, 3)), 'CMYK', 'JPEG')
    files['1/4.png'] = _encoded(_pixels(shape=(7, 12, 3)))
    rows = [*_rows(files), {'path': '1/none.png', 'label': '1'}]
    rows[5]['label'] = 'n/a'
    _archive(tmp_path / 'tiles.tar.xz', files)
    _csv(tmp_path / 'tiles.csv', rows)
    return TileTable(str(tmp_path / 'tiles.csv'), patch_size=8), files


def test_bad_tiles_are_counted_and_named(tmp_path, capsys):
    table, files = _mixed(tmp_path)
    summary, patches = _make(table, tmp_path / 'home')
    assert summary.made == len(patches) == 57
    assert summary.converted == {'L': 1}
    assert summary.without_label == 1
    assert summary.skipped == {
        'corrupt': 1,
        'mode CMYK': 1,
        'smaller than 8 px': 1,
        'not in tiles.tar.xz': 1,
    }
    assert str(summary).startswith(
        '57 tiles; converted: 1 L; 1 without label; 4 skipped: 1 corrupt'
    )
    failures = _failures(tmp_path / 'home')
    assert set(failures) == {'0/2.png', '1/3.png', '1/4.png', '1/none.png'}
    assert failures['1/4.png'] == 'smaller than 8 px: 12×7 px'
    printed = capsys.readouterr().out
    assert 'WARNING: tiles: 4 of 61 tiles (7%) were skipped' in printed
    assert '1 of 61 tiles' in printed
    assert 'have no label' in printed
    assert patches.columns['label'][patches.labels < 0].tolist() == ['']
    # Asked again, it says the same without reading anything.
    (tmp_path / 'tiles.tar.xz').unlink()
    assert _make(table, tmp_path / 'home')[0] == summary
    # Mended and made anew, nothing is left of the failures.
    mended = files | _class_files(5)
    _archive(tmp_path / 'tiles.tar.xz', {**mended, '1/none.png': mended['1/1.png']})
    shutil.rmtree(tmp_path / 'home' / 'tiles')
    assert _make(table, tmp_path / 'home')[0].skipped == {}
    assert _failures(tmp_path / 'home') == {}


def test_too_little_that_can_be_decoded(tmp_path):
    files = _class_files(10)
    broken = {name: data[:60] if name[0] == '1' else data for name, data in files.items()}
    _csv(tmp_path / 'tiles.csv', _rows(files))
    table = TileTable(str(tmp_path / 'tiles.csv'), patch_size=8)
    _tree(tmp_path, broken)
    with pytest.raises(PatchesError, match=r"class '1' is left .*\(10 of 20 skipped: 10 corrupt\)"):
        _make(table, tmp_path / 'home')
    assert len(_failures(tmp_path / 'home')) == 10
    with pytest.raises(PatchesError, match='no finished patches'):
        store.open_set(tmp_path / 'home' / 'tiles')
    _tree(tmp_path, dict.fromkeys(files, b''))
    with pytest.raises(PatchesError, match=r'no tile could be made .*20 no image'):
        _make(table, tmp_path / 'other')


@pytest.mark.parametrize('packed', [True, False])
def test_what_a_kill_leaves_is_not_decoded_again(tmp_path, monkeypatch, packed):
    table, files = _mixed(tmp_path)
    if not packed:
        (tmp_path / 'tiles.tar.xz').unlink()
        _tree(tmp_path, files)
    monkeypatch.setattr(tile_parts, 'PART', 7)
    decoded = []

    def counted(data, **settings):
        decoded.append(data)
        if len(decoded) == 40:
            raise KeyboardInterrupt
        return decode_tile(data, **settings)

    monkeypatch.setattr(tile_parts, 'decode_tile', counted)
    with pytest.raises(KeyboardInterrupt):
        _make(table, tmp_path / 'killed')
    parts = sorted(file.name for file in (tmp_path / 'killed/tiles/parts').glob('[!.]*.csv'))
    assert 4 <= len(parts) <= 5
    before = {name: os.stat(tmp_path / 'killed/tiles/parts' / name).st_mtime_ns for name in parts}
    decoded[:] = [b''] * 41
    summary, _ = _make(table, tmp_path / 'killed')
    assert len(decoded) - 41 == len(files) - 7 * len(parts)
    for name, time in before.items():
        assert os.stat(tmp_path / 'killed/tiles/parts' / name).st_mtime_ns == time
    whole, _ = _make(table, tmp_path / 'whole')
    assert summary == whole
    assert _contents(tmp_path / 'killed/tiles') == _contents(tmp_path / 'whole/tiles')
    assert _failures(tmp_path / 'killed') == _failures(tmp_path / 'whole')
    record = json.loads((tmp_path / 'whole/tiles/patches.json').read_text())
    assert len(record['parts']) == 9


# Real tables


def test_real_tables_are_read(shared):
    folder = shared / 'data' / 'tiles'
    counts = check_table(TileTable(str(folder / 'pcam_26k.csv')), seed=0).counts()
    assert counts == {
        'train': {'0': 10000, '1': 10000},
        'valid': {'0': 1500, '1': 1500},
        'test': {'0': 1500, '1': 1500},
    }
    lung = TileTable(str(folder / 'lc25000_lung_grouped.csv'), group='label+cluster')
    checked = check_table(lung, seed=0)
    counts = checked.counts()
    assert counts['test'] == {'lung_aca': 146, 'lung_n': 150, 'lung_scc': 150}
    for name, count in counts['valid'].items():
        assert abs(count - 0.2 * (count + counts['train'][name])) < 2
    subset = {}
    for tile in checked.tiles.values():
        assert subset.setdefault(tile.source, tile.subset) == tile.subset
    with pytest.raises(PatchesError, match='join columns'):  # clusters are numbered in each class
        check_table(TileTable(lung.tiles, group='cluster'), seed=0)


def test_a_real_archive(shared, tmp_path):
    path = shared / 'data' / 'tiles' / 'crc_val7k_70'
    summary, patches = _make(
        TileTable(f'{path}.csv', patch_size=112, crop=224, mpp=1.0), tmp_path / 'table'
    )
    assert (summary.made, summary.skipped, summary.converted) == (70, {}, {})
    with tarfile.open(f'{path}.tar') as tar:
        name = patches.columns['name'][12]
        tile = np.array(Image.open(tar.extractfile(f'crc_val7k_70/{name}')))
    halved = tile.reshape(112, 2, 112, 2, 3).mean(axis=(1, 3))
    np.testing.assert_array_equal(patches.pixels[12], np.rint(halved))
    _, same = _make(TileTable(f'{path}.tar', patch_size=112, crop=224), tmp_path / 'folders')
    np.testing.assert_array_equal(same.pixels[:], patches.pixels[:])
    np.testing.assert_array_equal(same.labels, patches.labels)
