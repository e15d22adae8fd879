"""Contexts: by name, where runs go and what every run there needs, so that it is typed once.

`$TRAINSERVE_HOME/contexts.json`: {"current": "lab", "contexts": {"lab": {"backend": "kubernetes", ...}}}. The context
`local`, this machine, is always there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args

from trainserve.errors import UserError, nearest
from trainserve.machine.files import write_json
from trainserve.machine.home import home
from trainserve.spec import location
from trainserve.spec.classifier import STORE_WORDS
from trainserve.spec.pod import checked_image

Backend = Literal["local", "kubernetes"]
BACKENDS: tuple[Backend, ...] = get_args(Backend)
LOCAL = "local"
_NAME = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.@]{0,61}[A-Za-z0-9])?")
_NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_PRINTABLE = re.compile(r"(?! )[^\x00-\x1f\x7f-\x9f\ud800-\udfff]{1,253}(?<! )")


@dataclass(frozen=True)
class Context:
    """Where runs go. None is not said: the kubeconfig's, the installed version's, or no default."""

    name: str
    backend: Backend = "local"
    kube_context: str | None = None
    namespace: str | None = None
    image: str | None = None
    output: str | None = None  # a claim or a bucket's URL
    data_store: str | None = None  # where a folder of this machine is pushed to


_MEND = "mend it, or remove it"
_FIELDS = {field.name for field in fields(Context)}
_WORDS = {"kube_context": "kubeContext", "data_store": "dataStore"}  # as the file has them
_ATTRIBUTES = {word: name for name, word in _WORDS.items()}
_OPTIONAL = [_WORDS.get(field.name, field.name) for field in fields(Context) if field.default is None]


@dataclass(frozen=True)
class Contexts:
    """All of them, `local` first, and which one counts where none is named."""

    current: str
    each: dict[str, Context]

    def named(self, name: str | None = None) -> Context:
        """The one of this name, or the current one. Raises UserError with the nearest name."""
        found = self.each.get(name or self.current)
        if found is None:
            near = nearest(name or self.current, self.each)
            raise UserError(
                f"no context is named {name or self.current!r}" + (f", did you mean {near!r}?" if near else ""),
                hint="platform context list; platform context set NAME --backend kubernetes makes one",
            )
        return found


def chosen(backend: Backend | None) -> Context:
    """The current context; another backend than its own takes nothing of it but that. Raises UserError."""
    current = read().named()
    return current if backend in {None, current.backend} else Context(current.name, backend or LOCAL)


def path() -> Path:
    return home() / "contexts.json"


def read() -> Contexts:
    """What the file says; without one, this machine. Raises UserError for a file that is not what `save` writes."""
    try:
        return _parsed(json.loads(path().read_bytes()))
    except FileNotFoundError:
        return Contexts(LOCAL, {LOCAL: Context(LOCAL)})
    except RecursionError:
        raise UserError(f"{path()}: is no file of contexts: it is nested too deeply", hint=_MEND) from None
    except (ValueError, UserError) as error:
        raise UserError(f"{path()}: is no file of contexts: {error}", hint=_MEND) from error


def _parsed(document: object) -> Contexts:
    """What `save` has written. Raises UserError, which says what is wrong with it."""
    found = _mapping(document, "the file")
    current = found.get("current")
    if not isinstance(current, str):
        raise UserError(f"current: {current!r:.60} is not allowed; allowed: the name of a context")
    each = {
        name: _context(name, _mapping(values, f"context {name!r}"))
        for name, values in _mapping(found.get("contexts"), "contexts").items()
    }
    if LOCAL in each:
        raise UserError(f"context {LOCAL!r} is this machine, and stands in no file")
    return Contexts(current, {LOCAL: Context(LOCAL), **each})


def _mapping(value: object, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UserError(f"{what}: {value!r:.60} is not allowed; allowed: a mapping")
    return value


def save(context: Context) -> Contexts:
    """Add a context, or replace the one of its name. Raises UserError that lists every wrong value."""
    if context.name == LOCAL:
        raise UserError(f"the context {LOCAL!r} is this machine, and stays so", hint="choose another name")
    if problems := _problems(context):
        raise UserError("\n".join(problems), hint="platform context set --help")
    known = read()
    return _write(replace(known, each={**known.each, context.name: context}))


def change(name: str, values: Mapping[str, str | None], unset: Sequence[str] = ()) -> Context:
    """Make or change a context by its fields; of a new one the backend is kubernetes. None is not given.

    Raises UserError that lists every wrong value.
    """
    known = read()
    before = known.each.get(name) or Context(name, "kubernetes")
    given = {key: value for key, value in values.items() if value is not None}
    taken: dict[str, None] = {}
    for word in unset:
        key = _ATTRIBUTES.get(word, word.replace("-", "_"))
        if key in {"name", "backend"} or key not in _FIELDS:
            raise UserError(
                f"--unset {word}: no such field that can be unset", hint=f"known are {', '.join(_OPTIONAL)}"
            )
        if key in given:
            raise UserError(f"--unset {word}: it is given a value, too", hint="leave one of them out")
        taken[key] = None
    texts: dict[str, Any] = {**given, **taken}
    changed = replace(before, **texts)
    save(changed)
    return changed


def use(name: str) -> Contexts:
    """Make a context the one that counts where none is named. Raises UserError where there is none of the name."""
    known = read()
    known.named(name)
    return _write(replace(known, current=name))


def remove(name: str) -> Contexts:
    """Forget a context; where it was the current one, that is `local` then. Raises UserError."""
    known = read()
    known.named(name)
    if name == LOCAL:
        raise UserError(f"the context {LOCAL!r} is this machine, and stays")
    each = {other: context for other, context in known.each.items() if other != name}
    return _write(Contexts(LOCAL if known.current == name else known.current, each))


def document(context: Context) -> dict[str, Any]:
    """As the file has it, without what is not said."""
    return {_WORDS.get(key, key): value for key, value in asdict(context).items() if value is not None}


def _write(contexts: Contexts) -> Contexts:
    each = {
        name: {key: value for key, value in document(context).items() if key != "name"}
        for name, context in contexts.each.items()
        if name != LOCAL
    }
    path().parent.mkdir(parents=True, exist_ok=True)
    write_json(path(), {"current": contexts.current, "contexts": each}, indent=2)
    return contexts


def _context(name: str, values: dict[str, Any]) -> Context:
    if unknown := sorted(set(values) - {"backend", *_OPTIONAL}):
        raise UserError(
            f"context {name!r} has a field {unknown[0]!r}, which this version does not know; known are backend, "
            + ", ".join(_OPTIONAL)
        )
    given = {_ATTRIBUTES.get(key, key): value for key, value in values.items()}
    if wrong := [key for key, value in given.items() if not isinstance(value, str)]:
        raise UserError(f"context {name!r}: {wrong[0]} is no text")
    context = Context(name, **given)
    if problems := _problems(context):
        raise UserError("; ".join(problems))
    return context


def _problems(context: Context) -> list[str]:
    found = []
    if not _NAME.fullmatch(context.name):
        found.append(f"name: {context.name!r} is not allowed; allowed: letters, digits, -, _, . and @, at most 63")
    if context.backend not in BACKENDS:
        found.append(f"backend: {context.backend!r} is not allowed; allowed: one of {', '.join(BACKENDS)}")
    if context.backend == LOCAL:
        others = [key for key in document(context) if key not in {"name", "backend"}]
        found += [f"{key}: has no effect with backend local; use backend kubernetes" for key in others]
    if context.namespace is not None and not _NAMESPACE.fullmatch(context.namespace):
        found.append(f"namespace: {context.namespace!r} is no name of a namespace: small letters, digits and -")
    if context.kube_context is not None and not _PRINTABLE.fullmatch(context.kube_context):
        shown = ascii(context.kube_context)
        found.append(f"kubeContext: {shown:.80} is not allowed; allowed: a context of the kubeconfig, such as kind-dev")
    if context.image is not None:
        try:
            checked_image(context.image)
        except ValueError as error:
            found.append(f"image: {error}")
    for key, value in (("output", context.output), ("dataStore", context.data_store)):
        if value is None:
            continue
        try:
            if not location.is_store(location.parse(value)):
                found.append(f"{key}: {value!r} is not allowed; allowed: {STORE_WORDS}")
        except ValueError as error:
            found.append(f"{key}: {error}")
    return found
