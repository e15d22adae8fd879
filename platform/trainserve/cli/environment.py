"""Commands whose options the environment can give too: what is wrong is said of what the value was given by."""

from __future__ import annotations

import re
from typing import Any

import click
from click.core import ParameterSource

from trainserve.errors import UserError

_FLAG = re.compile(r"--[a-z][-a-z]*")


class ByEnvironment(click.Command):
    """Renames, in what a UserError says, each flag whose value came from the environment to its variable.

    An empty variable is as one that is not set, whatever the option's type.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except UserError as error:
            raise self._renamed(ctx, error) from error

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except UserError as error:
            raise self._renamed(ctx, error) from error

    def _renamed(self, ctx: click.Context, error: UserError) -> UserError:
        variables = {
            flag: str(parameter.envvar)
            for parameter in self.params
            if ctx.get_parameter_source(parameter.name or "") is ParameterSource.ENVIRONMENT
            for flag in parameter.opts
        }
        said = _FLAG.sub(lambda flag: variables.get(flag[0], flag[0]), error.message)
        return UserError(said, hint=error.hint)
