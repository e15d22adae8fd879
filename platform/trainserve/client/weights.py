"""What `--weights` means on this machine, as pods understand it."""

from __future__ import annotations

from trainserve.client.models import bundle_of
from trainserve.errors import UserError, nearest
from trainserve.local.rundir import SCHEME
from trainserve.machine.home import expanded
from trainserve.spec.classifier import Classifier
from trainserve.train import weightfiles


def settled(classifier: Classifier) -> Classifier:
    """The same with `spec.model.weights` as `imagenet` or an absolute path: a run's name becomes its bundle's folder.

    Raises UserError where there is no such file or run, or it is of another network.
    """
    model = classifier.spec.model
    if model.weights is None:
        return classifier
    word = _settled(model.weights)
    weightfiles.check(word, model.arch)
    spec = classifier.spec.model_copy(update={"model": model.model_copy(update={"weights": word})})
    return classifier.model_copy(update={"spec": spec})


def _settled(word: str) -> str:
    if word == weightfiles.IMAGENET:
        return word
    path = expanded(word)
    is_path = weightfiles.looks_like_a_path(word) or path.is_file() or (path / weightfiles.BUNDLE_JSON).is_file()
    if is_path and not word.startswith(SCHEME):
        return str(path.absolute())
    try:
        return str(bundle_of(word)[1].absolute())
    except UserError:
        if nearest(word, [weightfiles.IMAGENET]):
            raise UserError(
                f"{weightfiles.FIELD}: {word!r} is no run here, did you mean {weightfiles.IMAGENET!r}?"
            ) from None
        raise
