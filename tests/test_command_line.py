"""The command line: help that tells what there is, errors that name what is right."""

import importlib.util
import pathlib
import subprocess
import sys

import ml_collections
import pytest
from absl import flags
from ml_collections import config_flags

from nic_jax import command_line
from nic_jax.checks import check as check_all
from nic_jax.options import check
from nic_jax.stages import STAGES

ROOT = pathlib.Path(__file__).parents[1]
EXPERIMENTS = sorted((ROOT / 'experiments').glob('[!_]*.py'))
COMPRESS = '--config=experiments/compress.py'


@pytest.fixture
def parse(monkeypatch):
    """Parses a command line as main does, with flags of its own, from the project's folder."""
    monkeypatch.chdir(ROOT)
    values = flags.FlagValues()
    monkeypatch.setattr(flags, 'FLAGS', values)
    config_flags.DEFINE_config_file('config', None, 'The experiment.', flag_values=values)
    flags.DEFINE_string('workdir', None, 'Where.', flag_values=values)
    flags.DEFINE_list('stages', None, 'Which.', flag_values=values)
    flags.DEFINE_bool('overwrite', False, 'Replace.', flag_values=values)
    flags.DEFINE_bool('dry_run', False, 'Say.', flag_values=values)

    def run(*arguments):
        # ml_collections looks there for the settings that may be flags.
        monkeypatch.setattr(sys, 'argv', ['main.py', *arguments])
        command_line.parse(sys.argv)
        return values

    return run


def refused(parse, capsys, *arguments):
    """The message on the first line with which a command line ends, of exit status 2."""
    with pytest.raises(SystemExit) as stopped:
        parse(*arguments)
    assert stopped.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == ''
    assert 'Traceback' not in printed.err
    assert 'usage: python -m nic_jax.main --config=' in printed.err
    first = printed.err.splitlines()[0]
    assert first.startswith('error: ')
    return first


def test_what_is_given_is_parsed(parse):
    values = parse(
        f'{COMPRESS}:debug',
        '--workdir=runs/x',
        '--stages=compress',
        '--config.slides=some/folder',
        '--config.tiling.mpp=0.25',
        '--config.compress.encode_all=True',
    )
    assert values.workdir == 'runs/x'
    assert values.stages == ['compress']
    assert values.config.slides == 'some/folder'
    assert values.config.tiling.mpp == 0.25
    assert values.config.compress.encode_all is True
    assert values.config.compress.batch == 8
    check(values.config, tuple(STAGES))


def test_help_lists_flags_stages_and_experiments():
    run = subprocess.run(
        [sys.executable, '-m', 'nic_jax.main', '--help'],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    for flag in ('config', 'workdir', 'stages', 'overwrite', 'dry_run'):
        assert f'--{flag}' in run.stdout
    lines = run.stdout.splitlines()
    for name, stage in STAGES.items():
        assert any(line.split() == [name, *stage.__doc__.splitlines()[0].split()] for line in lines)
    for path in EXPERIMENTS:
        assert any(line.strip().startswith(f'experiments/{path.name}') for line in lines)


def test_an_unknown_key_exits_with_2_and_the_right_ones():
    run = subprocess.run(
        [
            sys.executable,
            '-m',
            'nic_jax.main',
            COMPRESS,
            '--workdir=never',
            '--config.tilling.mpp=0.25',
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 2
    assert "no setting 'tilling' in config; it has" in run.stderr
    assert 'tiling' in run.stderr.splitlines()[0]
    assert 'Traceback' not in run.stderr
    assert not (ROOT / 'never').exists()


@pytest.mark.parametrize(
    ('argument', 'parts'),
    [
        ('--config.slide=x', ["no setting 'slide' in config", 'slides', 'tissue']),
        ('--config.tiling.mp=1.0', ["no setting 'mp' in config.tiling", 'mpp', 'patch_size']),
        ('--config.tissue.mpp.x=1.0', ["no setting 'x' in config.tissue.mpp"]),
        ('--config.compress.batch=many', ['config.compress.batch', 'many']),
        ('--config.compress.batch=1.5', ['config.compress.batch', '1.5']),
        ('--config.tiling.mpp=fine', ['config.tiling.mpp', 'fine']),
        ('--config.compress.encode_all=perhaps', ['encode_all', 'perhaps']),
        ('--overwrit', ['overwrit']),
        ('--stage=compress', ['stage']),
        ('compress', ["'compress' is no flag"]),
    ],
)
def test_a_wrong_argument_is_named(parse, capsys, argument, parts):
    message = refused(parse, capsys, COMPRESS, '--workdir=x', argument)
    for part in parts:
        assert part in message


@pytest.mark.parametrize(
    ('arguments', 'parts'),
    [
        ([], ['--config=FILE is missing', 'experiments/compress.py']),
        (['--config=experiments/compres.py'], ['no file', 'experiments/compress.py']),
        ([f'{COMPRESS}:quick'], ["no variant 'quick'", 'debug']),
    ],
)
def test_a_wrong_experiment_is_named(parse, capsys, arguments, parts):
    message = refused(parse, capsys, '--workdir=x', *arguments)
    for part in parts:
        assert part in message


def test_the_workdir_must_be_named(parse, capsys):
    assert '--workdir=DIR is missing' in refused(parse, capsys, COMPRESS)
    assert parse(COMPRESS, '--dry_run').dry_run


@pytest.mark.parametrize(
    ('changes', 'named'),
    [
        ({'stages': ('compres',)}, "no stage 'compres'; the stages are .*compress"),
        ({'stages': ()}, 'no stages to run; name some of .*compress'),
        ({'precision': 'half'}, r'--config\.precision=half must be one of default, highest'),
        ({'encoder': ','}, 'names no encoder'),
        ({'slides': None}, r'say which slides: --config\.slides=PATH'),
        ({'compress.versions': 4}, r'--config\.compress\.versions=4 must be one of 1, 8'),
        ({'tiling.edges': 'crop'}, 'must be one of floor, pad'),
        ({'tiling.mpp': -0.5}, r'--config\.tiling\.mpp=-0\.5 must be more than 0'),
        ({'tiling.stride': 0}, r'--config\.tiling\.stride=0 must be more than 0'),
        ({'compress.batch': 0}, r'--config\.compress\.batch=0 must be more than 0'),
        ({'tissue.threshold': 1.0}, r'threshold=1\.0 is not in \[0, 1\)'),
    ],
)
def test_a_value_that_is_none_is_refused_before_anything_starts(changes, named):
    config = command_line._load_config(str(ROOT / 'experiments/compress.py'))
    config.slides = 'somewhere'
    check(config, tuple(STAGES))
    config.update_from_flattened_dict(changes)
    with pytest.raises(ValueError, match=named):
        check(config, tuple(STAGES))


def test_pixels_are_not_trained_from_in_another_order_than_their_codes():
    config = command_line._load_config(str(ROOT / 'experiments/cohort.py'))
    config.update(slides='somewhere', stages=('classify', 'finetune'))
    config.cohort.update(label='grade', shuffle_cells=True)
    with pytest.raises(ValueError, match='shuffle_cells=True shuffles codes'):
        check_all(config)


@pytest.mark.parametrize('path', EXPERIMENTS, ids=lambda path: path.stem)
def test_every_experiment_tells_its_command_and_has_a_debug_variant(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert f'python -m nic_jax.main --config=experiments/{path.name}' in module.__doc__
    full, debug = module.get_config(), module.get_config('debug')
    assert isinstance(full, ml_collections.ConfigDict)
    assert full.to_dict() != debug.to_dict()
    assert set(full.stages) <= STAGES.keys()
    with pytest.raises(ValueError, match=r'no variant .*debug'):
        module.get_config('nothing')
