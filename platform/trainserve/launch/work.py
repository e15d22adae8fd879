"""What one rank does from start to end: `python -m trainserve.launch.work`, started by the agent.

Exit codes are those of errors.py: 0 done, 143 checkpointed on request, 200 lost a peer, 2, 3, 65 and 1 for errors.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import torch
import torchvision
from pydantic import ValidationError

import trainserve
from trainserve import log as logs
from trainserve.errors import (
    EXIT_ENVIRONMENT,
    EXIT_OK,
    EXIT_PEER_LOST,
    EXIT_RUN_FAILED,
    EXIT_SIGTERM,
    PlatformError,
    SpecError,
)
from trainserve.kube.names import (
    ENV_ERROR_FILE,
    ENV_JOB,
    ENV_JOB_UID,
    ENV_OMP_NUM_THREADS,
    ENV_OUTPUT,
    ENV_SPEC,
)
from trainserve.launch import lifeline, termination
from trainserve.launch.comeback import bring_back
from trainserve.launch.gpumemory import gpu_memory
from trainserve.launch.pictures import fetched
from trainserve.launch.preflight import before
from trainserve.launch.preflight import report as preflight
from trainserve.launch.progress import serve_progress
from trainserve.launch.pulse import open_pulse
from trainserve.machine import cgroup
from trainserve.machine.files import write_text
from trainserve.spec.classifier import Classifier
from trainserve.train import checkpoint as checkpoints
from trainserve.train import imagecheck, imagefolder
from trainserve.train.agreement import StopRequest
from trainserve.train.checkpoint import Checkpoint
from trainserve.train.distributed import Group, check_same, is_peer_lost, join, peer_timeout_s
from trainserve.train.grace import of_environment
from trainserve.train.imagecheck import BadPicture
from trainserve.train.imagefolder import Listing
from trainserve.train.loop import Outcome, fit
from trainserve.train.predictions import predictions
from trainserve.train.recipe import Recipe, golden_samples, resolve
from trainserve.train.report import Report
from trainserve.train.weights import RECORD

log = logging.getLogger("trainserve.launch.work")  # also where it is __main__


def main() -> int:
    """Run, and end in words: a sentence for what a user can repair, a traceback for what only we can."""
    lifeline.watch()
    logs.setup()
    StopRequest().uninstall()  # until training begins nothing is lost by ending at once
    try:
        return run()
    except PlatformError as error:
        code, text, stack = error.exit_code, str(error), traceback.format_exc()
        print(text, file=sys.stderr)  # noqa: T201  (the sentence, without a logger's prefix)
    except Exception as error:
        stack = traceback.format_exc()
        if is_peer_lost(error):
            code, text = EXIT_PEER_LOST, f"lost contact with another rank: {str(error).splitlines()[0]}"
            log.error("%s", text)
        else:
            code = EXIT_ENVIRONMENT if isinstance(error, OSError) else EXIT_RUN_FAILED  # such as a full disk
            text = f"{type(error).__name__}: {error}"
            sys.stderr.write(stack)
    write_error_file(text, stack)
    # At once: threads of torch's process groups may wait for a dead peer, and would keep a regular exit waiting.
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def run() -> int:
    """Train as TRAINSERVE_SPEC says; on rank 0, leave the bundle and the archive in TRAINSERVE_OUTPUT."""
    classifier = read_spec(os.environ.get(ENV_SPEC, ""))
    output = Path(os.environ.get(ENV_OUTPUT, "output")).absolute()
    stall_s = classifier.spec.train.stall_seconds
    grace = of_environment(os.environ)
    told = serve_progress(os.environ)
    pulse = open_pulse(stall_s=stall_s, peer_s=peer_timeout_s(os.environ, stall_s))
    skew = before.image(os.environ)
    before.master(os.environ)
    group = join(classifier.spec.train.device, stall_s=stall_s, met=preflight.met)
    if group.is_first:
        group.notices += [skew] if skew else []
    if told is not None:
        told.ask_device(lambda: gpu_memory(group.device))
    cores = cgroup.cores()
    threads = int(os.environ.get(ENV_OMP_NUM_THREADS) or max(1, cores // group.ranks_here))
    torch.set_num_threads(threads)
    if group.is_first:
        bring_back(os.environ)
    checked = preflight.joined(group, classifier, output)
    report = Report(output if group.is_first else None, None if told is None else told.hear)
    if group.is_first:
        log.info("%s", checked)
    # Of each rank, so that its log says whose it is and that it came this far.
    log.info("rank %d of %d: %s, threads: %d", group.rank, group.world_size, group.device, threads)
    listing = same_pictures(fetched(classifier, group), group, output, max(1, cores // group.ranks_here))
    recipe = prepare(classifier, listing, group)
    preflight.sized(group, classifier, recipe, output, cores)
    stop = StopRequest()
    stop.install()
    outcome = fit(recipe, group, output, report, stop, cores=cores, pulse=pulse, grace=grace)
    stop.uninstall()
    if outcome.skipped:
        report.notice(f"{outcome.skipped} times a picture was skipped that could no longer be read")
    if not outcome.finished:
        group.leave()
        report.event("stopped", message=f"stopped on request, checkpoint at step {outcome.step}", step=outcome.step)
        report.close()
        return EXIT_SIGTERM
    best = checkpoints.load_best(output, report.notice) if group.is_first else None
    rows = predictions(recipe, group, best, cores=cores)
    group.leave()
    if best is not None:
        write_text(output / "predictions.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
        package(recipe, best, outcome, output, report)
    report.close()
    if told is not None:
        leave_progress(told.progress())
    return EXIT_OK


def read_spec(text: str) -> Classifier:
    """The Classifier of TRAINSERVE_SPEC. Raises SpecError."""
    if not text:
        raise SpecError(f"{ENV_SPEC} is not set", hint="training pods get it from the PyTorchJob's template")
    try:
        return Classifier.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise SpecError(f"{ENV_SPEC}: {field}: {first['msg']}") from error


def same_pictures(classifier: Classifier, group: Group, output: Path, threads: int) -> Listing:
    """The pictures to train on, the same on all ranks and readable. Raises DataError, EnvironmentProblem."""
    data = classifier.spec.data
    listing = imagefolder.scan_for(classifier)
    check_same(group, {"code version": code_version(), "classes": list(listing.classes), "pictures": listing.digest})
    path = output / "data-check.json"
    known = imagecheck.stored(path, listing, data) if group.is_first else None
    found = group.share("known pictures", None if known is None else [[bad.path, bad.reason] for bad in known])
    if found is None:
        own = imagecheck.check(listing, data, threads=threads, shard=(group.rank, group.world_size))
        shards = group.exchange("bad pictures", [[bad.path, bad.reason] for bad in own])
        found = sorted(pair for shard in shards for pair in shard)
        if group.is_first:
            imagecheck.store(path, listing, data, [BadPicture(*pair) for pair in found])
    return imagecheck.vetted(listing, data, [BadPicture(*pair) for pair in found])


def prepare(classifier: Classifier, listing: Listing, group: Group) -> Recipe:
    """The recipe, with rank 0's measure of the pictures. Raises SpecError on all ranks alike."""
    side = imagecheck.median_short_side(listing) if group.is_first and classifier.spec.model.image_size is None else 0
    return resolve(classifier, listing, group.share("median short side", side), group.world_size)


def package(recipe: Recipe, best: Checkpoint, outcome: Outcome, output: Path, report: Report) -> None:
    """The bundle and the .mar of the best checkpoint; doing it again gives the same."""
    from trainserve.package.bundle import write_bundle
    from trainserve.package.mar import build_mar

    classifier = recipe.classifier
    lineage: dict[str, Any] = {
        "job": os.environ.get(ENV_JOB, classifier.metadata.name),
        "jobUid": os.environ.get(ENV_JOB_UID, ""),
        "codeVersion": code_version(),
        "torchVersion": torch.__version__,
        "torchvisionVersion": torchvision.__version__,
        "pythonVersion": ".".join(map(str, sys.version_info[:3])),
        "dataDigest": recipe.listing.digest,
        "seed": recipe.train.seed,
        "checkpoint": best.name,
        "weightsDigest": checkpoints.weights_digest(best.weights),
        "trainSamples": len(recipe.listing.train),
        "valSamples": len(recipe.listing.val),
        "spec": classifier.spec.model_dump(mode="json", by_alias=True),
        "metrics": best.metrics,
    }
    if (output / RECORD).is_file():  # kept from the start of the run, whatever generation this is
        lineage["weights"] = json.loads((output / RECORD).read_bytes())
    bundle = write_bundle(best, golden_samples(recipe.listing), output / "bundle", lineage)
    archive = output / f"{classifier.metadata.name}.mar"
    build_mar(bundle, archive, name=classifier.metadata.name, version="1.0", serve=classifier.spec.serve)
    report.event(
        "done", step=outcome.step, seconds=round(outcome.seconds, 1), bundle=str(bundle), archive=str(archive),
        **best.metrics,
    )  # fmt: skip


def code_version() -> str:
    """The version and a digest of the source that trains, so that two images with one version are told apart."""
    root = Path(trainserve.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(
        [*(root / "train").glob("*.py"), *(root / "launch").glob("*.py"), *(root / "spec").glob("*.py")]
    ):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return f"{trainserve.__version__}+{digest.hexdigest()[:12]}"


def leave_progress(progress: dict[str, Any]) -> None:
    """The last numbers as the pod's termination message: nobody may have asked for them between them and its end."""
    try:
        termination.write(json.dumps({"progress": progress}))
    except OSError as error:
        log.warning("the termination message could not be written: %s", error)


def write_error_file(message: str, stack: str) -> None:
    """What the agent puts into the termination message (docs/architecture.md)."""
    path = os.environ.get(ENV_ERROR_FILE)
    if not path:
        return
    extra = {"py_callstack": stack, "timestamp": str(int(time.time()))}
    try:
        Path(path).write_text(json.dumps({"message": {"message": message, "extraInfo": extra}}))
    except OSError as error:
        log.warning("%s could not be written: %s", path, error)


if __name__ == "__main__":
    sys.exit(main())
