"""Parsing the command line: help that lists what there is, errors that name what is right."""

import importlib.util
import pathlib
import sys

import ml_collections
from absl import flags

from nic_jax.stages import STAGES

USAGE = """\
usage: python -m nic_jax.main --config=experiments/NAME.py[:VARIANT] --workdir=DIR
           [--stages=a,b] [--config.KEY=VALUE ...] [--overwrite] [--dry_run]
"""


def parse(arguments: list[str]) -> list[str]:
    """Parses absl flags; ends the process with help (0) or a message on one line (2)."""
    if {'--help', '-h', '-help'} & set(arguments):
        print(help_text())
        sys.exit(0)
    try:
        _check_config_file(arguments)
        rest = flags.FLAGS(arguments)
        _check_required(rest)
    except flags.Error as error:
        # The last line is the message; what absl puts before it is the config's traceback.
        _stop(str(error).strip().splitlines()[-1])
    except (AttributeError, KeyError) as error:
        _stop(_unknown_key(arguments, error))
    except (TypeError, ValueError) as error:
        _stop(str(error))
    return rest


def help_text() -> str:
    """Flags, stages and experiments."""
    lines = [USAGE, 'flags:']
    lines += [f'  --{flag.name:<10} {flag.help}' for flag in _own_flags()]
    lines.append('  --config.KEY one setting of the experiment; it is printed when it is wrong')
    lines.append('\nstages, in order:')
    lines += [f'  {name:<10} {_summary(stage.__doc__)}' for name, stage in STAGES.items()]
    lines.append('\nexperiments:')
    for path in sorted(pathlib.Path('experiments').glob('[!_]*.py')):
        docstring = path.read_text(encoding='utf-8').split('"""', 2)[1:2]
        lines.append(f'  {path}  {_summary(docstring[0] if docstring else "")}')
    if not pathlib.Path('experiments').is_dir():
        lines.append('  (run this where the folder experiments/ is)')
    return '\n'.join(lines)


def _own_flags() -> list[flags.Flag]:
    names = ('config', 'workdir', 'stages', 'overwrite', 'dry_run')
    return [flags.FLAGS[name] for name in names if name in flags.FLAGS]


def _summary(docstring: str) -> str:
    return docstring.strip().splitlines()[0] if docstring.strip() else ''


def _value(arguments: list[str], name: str) -> str | None:
    """The value of a flag, before flags are parsed."""
    for index, argument in enumerate(arguments):
        if argument.lstrip('-') == name and index + 1 < len(arguments):
            return arguments[index + 1]
        if argument.lstrip('-').startswith(f'{name}='):
            return argument.split('=', 1)[1]
    return None


def _check_config_file(arguments: list[str]) -> None:
    config = _value(arguments, 'config')
    experiments = ', '.join(map(str, sorted(pathlib.Path('experiments').glob('[!_]*.py'))))
    known = f'the experiments here are {experiments or "none: there is no folder experiments/"}'
    if config is None:
        raise ValueError(f'--config=FILE is missing; {known}')
    path = pathlib.Path(config.split(':')[0])
    if not path.is_file():
        raise ValueError(f'--config={config}: there is no file {path}; {known}')


def _check_required(rest: list[str]) -> None:
    if len(rest) > 1:
        raise ValueError(f'{rest[1]!r} is no flag; flags begin with --')
    if flags.FLAGS.workdir is None and not flags.FLAGS.dry_run:
        raise ValueError('--workdir=DIR is missing: where everything is written')


def _unknown_key(arguments: list[str], error: Exception) -> str:
    """The message for a `--config.KEY` that the experiment does not have."""
    config = _load_config(_value(arguments, 'config'))
    for argument in arguments:
        if not argument.lstrip('-').startswith('config.'):
            continue
        level, parts = config, argument.lstrip('-').split('=')[0].split('.')[1:]
        for depth, part in enumerate(parts):
            if not isinstance(level, ml_collections.ConfigDict) or part not in level:
                inside = '.'.join(['config', *parts[:depth]])
                keys = sorted(level) if isinstance(level, ml_collections.ConfigDict) else []
                return f'no setting {part!r} in {inside}; it has {", ".join(keys) or "none"}'
            level = level[part]
    return f'{type(error).__name__}: {error}'


def _load_config(named: str) -> ml_collections.ConfigDict:
    """The experiment's settings before `--config.KEY=VALUE` changed any."""
    path, *variant = named.split(':', 1)
    spec = importlib.util.spec_from_file_location('experiment', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(*variant)


def _stop(message: str) -> None:
    print(f'error: {message}\n\n{USAGE}see --help', file=sys.stderr)
    sys.exit(2)
