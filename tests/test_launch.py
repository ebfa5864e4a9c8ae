"""What starts the program elsewhere: the Slurm job array and the notebook."""

import ast
import csv
import importlib.util
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest
import slide_files

ROOT = pathlib.Path(__file__).parents[1]
SLURM = ROOT / 'launch' / 'slurm.sh'
NOTEBOOK = ROOT / 'launch' / 'quickstart.ipynb'


def slurm(*arguments, task=None, count=None, minimum=0):
    """Runs the script as a task of a job array would."""
    environment = {name: text for name, text in os.environ.items() if 'SLURM' not in name}
    environment['PATH'] = f'{pathlib.Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}'
    if task is not None:
        environment |= {
            'SLURM_ARRAY_TASK_ID': str(task),
            'SLURM_ARRAY_TASK_COUNT': str(count),
            'SLURM_ARRAY_TASK_MIN': str(minimum),
            'SLURM_ARRAY_TASK_MAX': str(minimum + count - 1),
            'SLURM_CPUS_PER_TASK': '1',
        }
    return subprocess.run(
        ['bash', SLURM, *map(str, arguments)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def code_cells():
    cells = json.loads(NOTEBOOK.read_text(encoding='utf-8'))['cells']
    return [''.join(cell['source']) for cell in cells if cell['cell_type'] == 'code']


def test_the_slurm_script_parses():
    subprocess.run(['bash', '-n', SLURM], check=True)


@pytest.mark.skipif(not shutil.which('shellcheck'), reason='shellcheck is not installed')
def test_shellcheck_finds_nothing_in_the_slurm_script():
    checked = subprocess.run(['shellcheck', SLURM], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout


def test_the_slurm_script_asks_for_an_array_and_tells_its_command():
    text = SLURM.read_text(encoding='utf-8')
    before_any_command = text[: text.index('set -euo pipefail')]
    for option in ('array', 'cpus-per-task', 'mem', 'time', 'output'):
        assert f'\n#SBATCH --{option}=' in before_any_command
    assert 'sbatch --array=' in before_any_command
    assert '--dependency=afterany:' in text


@pytest.mark.parametrize(
    ('arguments', 'array', 'message'),
    [
        ((), {'task': 0, 'count': 2}, 'usage: sbatch'),
        (('slides.csv', 'mean_rgb'), {'task': 0, 'count': 2}, 'usage: sbatch'),
        (('nowhere.csv', 'mean_rgb', 'x'), {'task': 0, 'count': 2}, "at 'nowhere.csv'"),
        (('tests', '', 'x'), {'task': 0, 'count': 2}, 'ENCODER is empty'),
        (('tests', 'mean_rgb', ''), {'task': 0, 'count': 2}, 'WORKDIR is empty'),
        (('tests', 'mean_rgb', '--dry_run'), {'task': 0, 'count': 2}, 'before any flags'),
        (('tests', 'mean_rgb', 'x'), {}, 'not a task of a job array'),
        (('tests', 'mean_rgb', 'x'), {'task': 1, 'count': 2, 'minimum': 1}, '--array=0-1'),
        (('tests', 'mean_rgb', 'x'), {'task': 2, 'count': 2}, '--array=0-1'),
    ],
)
def test_the_slurm_script_refuses_what_cannot_be(arguments, array, message):
    refused = slurm(*arguments, **array)
    assert refused.returncode == 2
    assert message in refused.stderr
    assert refused.stdout == ''


def test_two_tasks_share_the_slides_of_a_table(tmp_path):
    folder = tmp_path / 'my slides'
    folder.mkdir()
    for number, name in enumerate(('a', 'b')):
        image = slide_files.tissue_image(96, 96, seed=number)
        slide_files.write_pyramid(folder / f'{name}.tif', image, levels=1)
    (folder / 'c.tif').write_bytes(b'no slide at all')
    (folder / 'slides.csv').write_text('slide_id,path\na,a.tif\nb,b.tif\nc,c.tif\n')
    workdir = tmp_path / 'the workdir'
    # Part 0 of 2 holds a and c, part 1 holds b.
    runs = [
        slurm(
            folder / 'slides.csv',
            'mean_rgb',
            workdir,
            '--config.tiling.patch_size=16',
            '--config.tissue.mpp=2',
            task=task,
            count=2,
        )
        for task in (0, 1)
    ]
    assert [run.returncode for run in runs] == [1, 0], runs
    (grids,) = workdir.glob('mean_rgb*/grids')
    assert sorted(path.name for path in grids.glob('*.zarr')) == ['a.zarr', 'b.zarr']
    records = [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]
    assert [record['stage'] for record in records] == ['compress', 'compress']
    with (workdir / 'failures.csv').open(encoding='utf-8') as file:
        assert [row['slide_id'] for row in csv.DictReader(file)] == ['c']


def test_the_notebook_is_one_of_version_4_for_a_gpu_without_outputs():
    notebook = json.loads(NOTEBOOK.read_text(encoding='utf-8'))
    assert (notebook['nbformat'], notebook['nbformat_minor']) == (4, 5)
    assert notebook['metadata']['accelerator'] == 'GPU'
    assert notebook['metadata']['kernelspec']['name'] == 'python3'
    assert len({cell['id'] for cell in notebook['cells']}) == len(notebook['cells'])
    for cell in notebook['cells']:
        assert cell['cell_type'] in ('code', 'markdown')
        if cell['cell_type'] == 'code':
            assert cell['outputs'] == []
            assert cell['execution_count'] is None


def test_the_notebooks_code_parses_and_names_experiments_that_exist():
    text = '\n'.join(code_cells())
    ast.parse(re.sub(r'^(\s*)[!%].*$', r'\1pass', text, flags=re.MULTILINE))
    named = set(re.findall(r'experiments/\w+\.py', text))
    assert {f'experiments/{name}.py' for name in ('quickstart', 'compress', 'cohort')} <= named
    assert all((ROOT / path).is_file() for path in named)
    for field in ('REPOSITORY', 'VARIANT', 'SLIDES'):
        assert re.search(rf"^{field} = ''  # @param ", text, flags=re.MULTILINE)


@pytest.mark.slow
def test_the_notebook_runs(tmp_path, monkeypatch):
    for module in ('nbclient', 'nbformat', 'ipykernel'):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f'{module} is not installed')
    import nbclient
    import nbformat

    for name in ('nic_jax', 'experiments', 'launch'):
        shutil.copytree(ROOT / name, tmp_path / name)
    path = f'{pathlib.Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}'
    monkeypatch.setenv('PATH', path)  # of `!python`
    notebook = nbformat.read(tmp_path / 'launch' / 'quickstart.ipynb', as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        cell.source = cell.source.replace("VARIANT = ''", "VARIANT = 'debug'")
    resources = {'metadata': {'path': str(tmp_path / 'launch')}}
    nbclient.NotebookClient(notebook, timeout=600, resources=resources).execute()
    outputs = [output for cell in notebook.cells for output in cell.get('outputs', [])]
    shown = [kind for output in outputs for kind in output.get('data', {})]
    assert shown.count('image/png') >= 4  # an image and a grid; patches and reconstructions
    assert shown.count('text/markdown') == 1
    assert (tmp_path / 'runs' / 'quickstartdebug' / 'report' / 'table.csv').is_file()
