"""Files that stages share: locks, failures, fingerprints, settings."""

import csv
import json
import subprocess
import sys
import threading

import numpy as np
import pytest

from nic_jax import workdir


def rows(folder):
    with (folder / 'failures.csv').open(newline='', encoding='utf-8') as file:
        return list(csv.DictReader(file))


def fail(folder, slide_id, reason='a reason', *, stage='compress', **more):
    workdir.record_failure(
        folder, stage=stage, slide_id=slide_id, path=folder / 'x.svs', reason=reason, **more
    )


def test_what_is_written_atomically_is_whole_and_leaves_nothing_else(tmp_path):
    path = tmp_path / 'a/b/config.json'
    workdir.write_atomically(path, 'µ' * 10)
    workdir.write_atomically(path, 'second')
    assert path.read_text(encoding='utf-8') == 'second'
    assert list(path.parent.iterdir()) == [path]
    workdir.save_array(tmp_path / 'a/codes.npy', np.arange(5))
    np.testing.assert_array_equal(np.load(tmp_path / 'a/codes.npy'), np.arange(5))
    assert sorted(file.name for file in (tmp_path / 'a').iterdir()) == ['b', 'codes.npy']


def test_metrics_are_a_line_a_record(tmp_path):
    records = [{'stage': 'compress', 'slide_id': 'µ/1'}, {'value': 1.5}]
    for record in records:
        workdir.log_metrics(tmp_path, record)
    text = (tmp_path / 'metrics.jsonl').read_text(encoding='utf-8')
    assert [json.loads(line) for line in text.splitlines()] == records


@pytest.mark.parametrize('size', [0, 10, 1 << 20, (1 << 20) + 1, 3 << 20])
def test_a_fingerprint_tells_files_apart(tmp_path, size):
    path = tmp_path / 'slide.svs'
    content = np.random.default_rng(0).bytes(size)
    path.write_bytes(content)
    first = workdir.fingerprint(path)
    assert (first['name'], first['size']) == ('slide.svs', size)
    assert workdir.fingerprint(path) == first
    seen = {json.dumps(first)}
    for changed in (content + b'x', b'x' + content[1:], content[:-1] + b'x'):
        path.write_bytes(changed)
        seen.add(json.dumps(workdir.fingerprint(path)))
    assert len(seen) == (4 if size else 2)


def test_a_lock_is_held_by_one(tmp_path):
    with (
        workdir.lock(tmp_path, 'mean_rgb/a') as first,
        workdir.lock(tmp_path, 'mean_rgb/a') as again,
    ):
        assert (first, again) == (True, False)
        with workdir.lock(tmp_path, 'mean_rgb/b') as other:
            assert other
    with workdir.lock(tmp_path, 'mean_rgb/a') as free:
        assert free


def test_a_lock_ends_with_its_process_however_that_ends(tmp_path):
    script = (
        'import pathlib, sys, time\n'
        'from nic_jax import workdir\n'
        'with workdir.lock(pathlib.Path(sys.argv[1]), "a") as free:\n'
        '    print(free, flush=True)\n'
        '    time.sleep(60)\n'
    )
    process = subprocess.Popen(
        [sys.executable, '-c', script, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    with process:
        try:
            assert process.stdout.readline() == 'True\n'
            with workdir.lock(tmp_path, 'a') as free:
                assert not free
        finally:
            process.kill()
    with workdir.lock(tmp_path, 'a') as free:
        assert free


def test_locks_and_failures_of_any_name_stay_apart(tmp_path):
    names = ['a/b', 'a_b', 'a%2Fb', 'a b', '😐', 'x' * 300, 'x' * 300 + 'y', '..', '../a/b']
    for name in names:
        with workdir.lock(tmp_path, f'mean_rgb/{name}') as free:
            assert free
        fail(tmp_path, name)
    locks = [path for path in (tmp_path / '.locks').iterdir() if path.name != 'failures.csv']
    assert len(locks) == len(names)
    assert sorted(row['slide_id'] for row in rows(tmp_path)) == sorted(names)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        '.failures',
        '.locks',
        'failures.csv',
    ]


def test_failures_are_listed_and_forgotten(tmp_path):
    assert workdir.merge_failures(tmp_path) == []
    assert not (tmp_path / 'failures.csv').exists()
    fail(tmp_path, 'a', 'first, "quoted"\nline')
    fail(tmp_path, 'a', 'second, "quoted"\nline')
    fail(tmp_path, 'a', stage='explain')
    fail(tmp_path, 'a', encoder='bigan')
    found = rows(tmp_path)
    assert list(found[0]) == ['slide_id', 'path', 'stage', 'encoder', 'reason']
    assert [(row['stage'], row['encoder'], row['reason']) for row in found] == [
        ('compress', '', 'second, "quoted"\nline'),
        ('compress', 'bigan', 'a reason'),
        ('explain', '', 'a reason'),
    ]
    workdir.clear_failure(tmp_path, stage='compress', slide_id='a')
    workdir.clear_failure(tmp_path, stage='compress', slide_id='never failed')
    assert [row['stage'] for row in workdir.merge_failures(tmp_path)] == ['compress', 'explain']
    workdir.clear_failure(tmp_path, stage='compress', slide_id='a', encoder='bigan')
    workdir.clear_failure(tmp_path, stage='explain', slide_id='a')
    assert workdir.merge_failures(tmp_path) == rows(tmp_path) == []


def test_failures_that_another_process_clears_meanwhile(tmp_path):
    failed = []

    def merge():
        try:
            for _ in range(100):
                workdir.merge_failures(tmp_path)
        except OSError as error:
            failed.append(error)

    for name in range(20):
        fail(tmp_path, str(name))
    thread = threading.Thread(target=merge)
    thread.start()
    while thread.is_alive():
        for name in range(20):
            workdir.clear_failure(tmp_path, stage='compress', slide_id=str(name))
            note = tmp_path / '.failures' / workdir.file_name(f'compress//{name}')
            workdir.write_atomically(note, json.dumps({'slide_id': str(name)}))
    assert not failed


def test_a_folder_made_with_other_settings_is_refused_by_name(tmp_path):
    folder = tmp_path / 'fold_0'
    settings = {'widths': (1, 2), 'rate': 0.1}
    assert not workdir.begin(folder, settings)
    (folder / 'weights').write_text('some')
    assert not workdir.begin(folder, settings)
    workdir.finish(folder)
    assert workdir.begin(folder, {'rate': 0.1, 'widths': [1, 2]})
    assert workdir.made_with(folder) == {'widths': [1, 2], 'rate': 0.1}
    with pytest.raises(ValueError, match=r'other settings \(more, rate differ\).*--overwrite'):
        workdir.begin(folder, {**settings, 'rate': 0.2, 'more': 1})
    assert (folder / 'weights').exists()
    assert not workdir.begin(folder, {**settings, 'rate': 0.2}, overwrite=True)
    assert not (folder / 'weights').exists()
    assert workdir.made_with(tmp_path / 'nowhere') is None


def test_a_folder_of_other_settings_is_refused_or_emptied(tmp_path):
    folder = tmp_path / 'made'
    assert not workdir.begin(folder, {'a': 1, 'b': (2, 3)})
    (folder / 'checkpoint').touch()
    assert not workdir.begin(folder, {'a': 1, 'b': (2, 3)})
    assert (folder / 'checkpoint').exists()
    workdir.finish(folder)
    assert workdir.begin(folder, {'a': 1, 'b': (2, 3)})
    with pytest.raises(ValueError, match=r'other settings \(b differ\)'):
        workdir.begin(folder, {'a': 1, 'b': 4})
    assert not workdir.begin(folder, {'a': 1, 'b': 4}, overwrite=True)
    assert not (folder / 'checkpoint').exists()


def test_what_a_half_deleted_folder_holds_is_never_resumed(tmp_path):
    folder = tmp_path / 'made'
    workdir.begin(folder, {'a': 1})
    (folder / 'checkpoint').touch()
    (folder / 'made_with.json').unlink()  # as if deleting had been cut short
    assert not workdir.begin(folder, {'a': 2})
    assert not (folder / 'checkpoint').exists()


def test_writers_of_one_file_do_not_disturb_each_other(tmp_path):
    def write(number):
        for _ in range(200):
            workdir.write_atomically(tmp_path / 'file', f'{number}' * 1000)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    text = (tmp_path / 'file').read_text()
    assert len(text) == 1000
    assert len(set(text)) == 1
    assert [path.name for path in tmp_path.iterdir()] == ['file']


@pytest.mark.parametrize('name', ['', '.', '..', '../x', '/x', 'a/../../x', '...'])
def test_no_name_leaves_its_folder(tmp_path, name):
    path = tmp_path / 'inside' / workdir.file_name(name)
    assert path.resolve().parent == (tmp_path / 'inside').resolve()
    assert path.name
    assert path.resolve() != (tmp_path / 'inside').resolve()


def test_different_names_have_different_files():
    names = ['', '.', '..', '...', 'a/b', 'a%2Fb', 'a b', 'x' * 300, 'x' * 301, '%2E']
    assert len({workdir.file_name(name) for name in names}) == len(names)
