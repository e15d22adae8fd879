"""`platform completion`: the shell completes verbs, flags, names of runs and servers, fields of the spec."""

from __future__ import annotations

import sys

import click
from click.shell_completion import get_completion_class

from trainserve.cli.output import say

SHELLS = ("bash", "zsh", "fish")
INSTALL = {
    "bash": "echo 'eval \"$(platform completion bash)\"' >> ~/.bashrc",
    "zsh": "echo 'eval \"$(platform completion zsh)\"' >> ~/.zshrc",
    "fish": "platform completion fish > ~/.config/fish/completions/platform.fish",
}


@click.command("completion", short_help="Print a script with which the shell completes names.")
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion_command(context: click.Context, shell: str) -> int:
    """Print the script with which SHELL completes verbs, flags, names of runs and servers, and fields for --set.

    \b
    bash  eval "$(platform completion bash)"          in ~/.bashrc
    zsh   eval "$(platform completion zsh)"           in ~/.zshrc, after compinit
    fish  platform completion fish > ~/.config/fish/completions/platform.fish
    """  # noqa: D301  backslash b is click's mark for lines that are not wrapped
    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(context.find_root().command, {}, "platform", "_PLATFORM_COMPLETE").source())
    if sys.stdout.isatty():  # not where a shell reads it
        say(f"# to have it in every shell:\n#   {INSTALL[shell]}")
    return 0
