"""The templates of pages."""

import re

import jinja2
import markupsafe


def templates() -> jinja2.Environment:
    """The package's templates; what they are given is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader('nic_jax.report'),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters['breakable'] = _breakable
    return environment


def _breakable(name: str) -> markupsafe.Markup:
    """A name that a narrow column may break after its underscores, slashes and hyphens."""
    return markupsafe.Markup('<wbr>').join(re.findall(r'[^_/-]*[_/-]+|[^_/-]+', name))
