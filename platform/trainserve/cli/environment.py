"""Commands whose options the environment can give too: what is wrong is said of what the value was given by."""

from __future__ import annotations

import re
from typing import Any

import click
from click.core import ParameterSource

from trainserve.errors import PlatformError

_FLAG = re.compile(r"--[a-z][-a-z]*")


class ByEnvironment(click.Command):
    """Renames, in what an error says, each flag whose value came from the environment to its variable.

    An empty variable is as one that is not set, whatever the option's type.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except PlatformError as error:
            self._rename(ctx, error)
            raise

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except PlatformError as error:
            self._rename(ctx, error)
            raise

    def _rename(self, ctx: click.Context, error: PlatformError) -> None:
        variables = {
            flag: str(parameter.envvar)
            for parameter in self.params
            if ctx.get_parameter_source(parameter.name or "") is ParameterSource.ENVIRONMENT
            for flag in parameter.opts
        }
        error.message = _FLAG.sub(lambda flag: variables.get(flag[0], flag[0]), error.message)
