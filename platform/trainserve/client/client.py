"""`Client`: everything that the command line does, as methods. Each is one call of the module that does it.

The modules are imported in the methods, so that a program, or a verb, pays only for what it uses.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Unpack

from trainserve.client.cluster import naming
from trainserve.client.listener import Listener

if TYPE_CHECKING:
    from trainserve.client.cluster.remove import ClusterRemoved
    from trainserve.client.follow import Outcome
    from trainserve.client.logs import LogLine
    from trainserve.client.models import Archive
    from trainserve.client.report import Report
    from trainserve.client.runs import EventRow, RunStatus
    from trainserve.client.serving import Engine, Served
    from trainserve.client.train import Plan
    from trainserve.client.values import ServeValues, TrainValues
    from trainserve.client.waiting import Wanted
    from trainserve.evaluate.compare import Comparison
    from trainserve.evaluate.evaluation import Evaluation
    from trainserve.evaluate.labelled import Split
    from trainserve.kube.cluster import Manifest
    from trainserve.local.garbage import Garbage
    from trainserve.local.removal import Removed
    from trainserve.machine.check import Check
    from trainserve.observe.events import Event
    from trainserve.observe.summary import Summary
    from trainserve.observe.why.diagnose import Diagnosis
    from trainserve.package.export import Exported
    from trainserve.serve.answers import Answer
    from trainserve.serve.servers import ServerRecord
    from trainserve.serve.tensorboard import Board
    from trainserve.spec.classifier import Classifier
    from trainserve.train.count import Size
    from trainserve.train.datacheck import DataReport
    from trainserve.train.get import Summary as DataSet


class Client:
    """Runs and servers of this user on this machine, in `$TRAINSERVE_HOME` (`~/.trainserve`), and runs on a cluster.

    Runs are named as on the command line: `local://digits` on this machine, `k8s://NAMESPACE/digits` on a cluster,
    `digits` where the current context (client/context.py) is; `kube_context` chooses another cluster of the kubeconfig,
    and then bare names are of that. Errors are those of `trainserve.errors`:
    UserError and its kinds for what the caller got wrong, EnvironmentProblem for what the machine lacks, RunFailed for
    a run that failed. Progress and notices go to the listener; nothing is printed.
    """

    def __init__(self, listener: Listener | None = None, *, kube_context: str | None = None) -> None:
        self._listener = listener or Listener()
        self._kube_context = kube_context

    def get_data(
        self,
        name: str,
        folder: str | Path | None = None,
        *,
        local: str | Path | None = None,
        limit: int | None = None,
    ) -> DataSet:
        """An example data set (digits, cifar10, ...) as a folder of pictures, ./NAME unless given.

        `local` is a folder or file with what would be downloaded; `limit` the most pictures of a class in each part.
        What is downloaded is told to the listener.
        """
        from trainserve.train import get

        return get.get(
            name, Path(folder or name), local=Path(local) if local else None, limit=limit,
            progress=self._listener.downloading,
        )  # fmt: skip

    def check_data(
        self,
        folder: str | Path | None = None,
        *,
        spec: str | Path | None = None,
        sets: Sequence[str] = (),
        threads: int | None = None,
    ) -> DataReport:
        """Everything that `train` would refuse in a folder of pictures, and what it would not notice; `.ok` says which.

        `spec` is a Classifier's YAML file, `sets` are `field=value` each, as `data.skipBad=true`; `threads` one a core.
        """
        from trainserve.machine import cgroup
        from trainserve.spec.load import load
        from trainserve.train.datacheck import check_data

        flags = {} if folder is None else {"spec.data.path": ("folder", str(folder))}
        classifier = load(Path(spec) if spec else None, sets, flags, name_for=lambda _: "data")
        heard = self._listener.pictures_checked
        return check_data(
            classifier, threads=threads or cgroup.cores(), source=str(spec) if spec else None, progress=heard
        )

    def plan(
        self,
        spec: Classifier | str | Path | None = None,
        *,
        sets: Sequence[str] = (),
        name: str | None = None,
        **values: Unpack[TrainValues],
    ) -> Plan:
        """What a run would be, checked, without looking at pictures or changing anything.

        Args:
            spec: a Classifier, or the path of its YAML file.
            sets: `field=value` each, over what the spec says.
            name: the run's name; of the data folder unless given.
            values: the flags of `platform train`, over `sets`: `data="digits", nodes=4, batch_size=64`.

        """
        from trainserve.client import train
        from trainserve.spec.flags import from_keywords

        flags = from_keywords(values, "data", "model", "train", "pod")
        if name is not None:
            flags["metadata.name"] = ("name", name)
        return train.plan(Path(spec) if isinstance(spec, str) else spec, sets, flags)

    def train(
        self,
        spec: Classifier | Plan | str | Path | None = None,
        *,
        sets: Sequence[str] = (),
        name: str | None = None,
        detach: bool = False,
        must_succeed: bool = True,
        **values: Unpack[TrainValues],
    ) -> Outcome:
        """Train; the first arguments are those of `plan`.

        Follows the run to its end, or returns at once with `detach`. A run that is followed belongs to this process:
        it is stopped after a checkpoint on KeyboardInterrupt and when the process ends. Raises DataError and SpecError
        before anything starts, and, with `must_succeed`, the error that a run means which does not end well.
        """
        from trainserve.client import train

        plan = spec if isinstance(spec, train.Plan) else self.plan(spec, sets=sets, name=name, **values)
        outcome = train.train(plan, self._listener, detach=detach)
        return outcome.check() if must_succeed else outcome

    def resume(self, run: str, *, detach: bool = False, must_succeed: bool = True) -> Outcome:
        """Go on with a run that was cancelled, interrupted or failed, from its newest checkpoint; else as `train`.

        On a cluster KeyboardInterrupt ends only the following.
        """
        if found := naming.find(run, self._kube_context):
            from trainserve.client.cluster import calls

            outcome = calls.resume(found, self._listener, detach=detach)
            return outcome.check() if must_succeed else outcome
        from trainserve.client import train

        outcome = train.resume(train.resumable(run), self._listener, detach=detach)
        return outcome.check() if must_succeed else outcome

    def going_on(self, run: str) -> Manifest:
        """The job as `resume` would let it go on; nothing is changed. Raises UserError where it cannot."""
        if found := naming.find(run, self._kube_context):
            from trainserve.client.cluster import calls

            return calls.going_on(found)
        from trainserve.client import train

        return train.going_on(train.resumable(run))

    def runs(self, *, namespace: str | None = None, all_namespaces: bool = False) -> list[Summary]:
        """All runs, newest first: of this machine, or where the current context is a cluster of its namespace.

        `namespace` and `all_namespaces` are of a cluster, also where the context is this machine.
        """
        if place := naming.place(self._kube_context, namespace, asked=all_namespaces):
            from trainserve.client.cluster import calls

            return [*calls.listing(place, all_namespaces=all_namespaces)]
        from trainserve.client import runs

        return runs.summaries()

    def status(self, run: str) -> RunStatus:
        """One run: its numbers, conditions, events, pods and ranks."""
        if found := naming.find(run, self._kube_context):
            from trainserve.client.cluster import calls

            return calls.status(found)
        from trainserve.client import runs
        from trainserve.local import rundir

        return runs.status(rundir.open_run(run))

    def why(self, run: str) -> Diagnosis:
        """Why a run failed, stopped or stands still: the first rank that failed, its last words, one thing to do."""
        if found := naming.find(run, self._kube_context):
            from trainserve.client.cluster import calls

            return calls.why(found)
        from trainserve.local import rundir
        from trainserve.local.why import why

        return why(rundir.open_run(run))

    def outcome(self, run: str) -> Outcome:
        """How a run ended, with the exit code that this means; call it when the run has ended."""
        if found := naming.find(run, self._kube_context):
            from trainserve.client.cluster import calls

            return calls.outcome(found)
        from trainserve.client import follow
        from trainserve.local import rundir

        return follow.outcome(rundir.open_run(run))

    def wait(self, run: str, wanted: Wanted = "Succeeded", *, timeout_s: float | None = None) -> Summary:
        """Block until the run is as wanted; Ended is any end.

        Raises RunFailed when it has ended otherwise, TimedOut after `timeout_s` seconds.
        """
        if found := naming.find(run, self._kube_context):
            from trainserve.client.cluster import calls

            return calls.wait(found, wanted, timeout_s, self._listener)
        from trainserve.client import waiting
        from trainserve.local import rundir

        return waiting.wait(rundir.open_run(run), wanted, timeout_s)

    def logs(
        self,
        run: str,
        *,
        follow: bool = False,
        rank: int | None = None,
        tail: int | None = None,
        previous: bool = False,
    ) -> Iterator[LogLine]:
        """What the ranks wrote, each line once; with `follow` as they write it, until the run ends.

        `tail`: of each pod only so many of the newest lines, and what follows them. `previous`: only what was written
        before the newest start.
        """
        if found := naming.find(run, self._kube_context):
            from trainserve.client.cluster import calls

            return calls.logs(found, self._listener, follow=follow, rank=rank, tail=tail, previous=previous)
        from trainserve.client import logs
        from trainserve.local import rundir

        return logs.lines(rundir.open_run(run), follow=follow, rank=rank, tail=tail, previous=previous)

    def goes_on(self, run: str) -> str | None:
        """How somebody who stops looking at a run comes back to it; None where it does not go on."""
        if found := naming.find(run, self._kube_context):
            from trainserve.client.cluster import follow

            return follow.comes_back(found)
        from trainserve.local import rundir

        here = rundir.open_run(run)
        return (
            f"{here.name} goes on:\n  platform status {here.name}\n  platform cancel {here.name}"
            if here.alive()
            else None
        )

    def told(self, run: str, *, follow: bool = False) -> Iterator[EventRow]:
        """Kubernetes' Events of a run and its pods, oldest first; with `follow` as they come, until the run ends."""
        if found := naming.find(run, self._kube_context):
            from trainserve.client.cluster import calls

            return calls.told(found, self._listener, follow=follow)
        from trainserve.client import runs
        from trainserve.local import rundir

        return runs.told(rundir.open_run(run), follow=follow)

    def events(self, run: str, *, follow: bool = False) -> Iterator[Event]:
        """Steps, epochs, checkpoints and notices of rank 0 (observe/events.py); with `follow` until the run ends."""
        from trainserve.client import logs
        from trainserve.local import rundir

        return logs.run_events(rundir.open_run(run), follow=follow)

    def cancel(self, *runs: str, now: bool = False) -> list[Summary]:
        """Stop runs after a checkpoint, or at once; everything is kept. Returns when no process of them is left.

        The state of one that cannot be read is Damaged. KeyboardInterrupt ends the waiting, not the stopping.
        """
        from trainserve.client import stop
        from trainserve.client.runs import readable
        from trainserve.local import rundir

        there, here = naming.parted(runs, self._kube_context)
        found = list(dict.fromkeys(map(rundir.open_run, here)))  # all of them, before any is stopped
        ended: list[Summary] = []
        if there:
            from trainserve.client.cluster import calls

            ended += calls.cancel(there, self._listener, now=now)
        stop.cancel(found, self._listener, now=now)
        for run in found:
            run.check_there()
        return [*ended, *(readable(run) for run in found)]

    def remove(self, *runs: str, force: bool = False) -> list[Removed | ClusterRemoved]:
        """Remove runs with everything they made; with `force` also such as go on, which are killed first.

        On a cluster the output stays. Without `force` raises UserError for one that goes on, before any is removed.
        """
        from trainserve.local import removal, rundir

        there, here = naming.parted(runs, self._kube_context)
        found = list(dict.fromkeys(map(rundir.open_run, here)))
        if not force:
            for run in found:
                removal.refuse_going(run)
        removed: list[Removed | ClusterRemoved] = []
        if there:
            from trainserve.client.cluster import calls

            removed += calls.remove(there, self._listener, force=force)
        for run in found:
            gone = removal.remove(run, force=force)
            removed.append(gone)
            self._listener.notice(removal.sentence(gone))
        return removed

    def gc(self, *, yes: bool = False, older_than_s: float = 7 * 86400.0, keep: int = 1) -> Garbage:
        """What can be thrown away; with `yes` it is. Checkpoints and logs only of runs that ended so long ago."""
        from trainserve.local import garbage

        found = garbage.find(older_than_s=older_than_s, keep=keep)
        return garbage.remove(found) if yes else found

    def doctor(self) -> list[Check]:
        """What this machine has of what training and serving need; `stops` is true of what is required and missing."""
        from trainserve.client import doctor

        return doctor.doctor()

    def package(
        self,
        run: str | Path,
        out: str | Path | None = None,
        *,
        name: str | None = None,
        version: str = "1.0",
        **values: Unpack[ServeValues],
    ) -> Archive:
        """A finished run, or the folder of a bundle, as a .mar for TorchServe; `out` is NAME.mar unless given."""
        from trainserve.client import models
        from trainserve.spec.flags import from_keywords

        flags = from_keywords(values, "serve")
        return models.package(run, Path(out) if out else None, name=name, version=version, flags=flags)

    def report(self, *runs: str, data: str | Path | None = None, out: str | Path | None = None) -> Report:
        """One HTML file about a run, or several beside each other, in whatever state they are.

        `data` is where the pictures are now, or others to ask the network about; `out` is report.html in the output
        folder of the first run unless given.
        """
        from trainserve.client.report import report

        return report(runs, self._listener, data=Path(data) if data else None, out=Path(out) if out else None)

    def evaluate(
        self,
        model: str | Path,
        data: str | Path | None = None,
        *,
        split: Split | None = None,
        batch_size: int | None = None,
        device: Literal["auto", "cpu", "cuda"] | None = None,
        skip_bad: bool = False,
        ignore_unknown: bool = False,
        served: str | None = None,
    ) -> Evaluation:
        """The answers of a run, bundle, .mar or server (name or URL) to labelled pictures.

        `data` holds one folder a class; None is the pictures that the model was validated with. Where these have moved,
        `split="val"` finds them in `data`. `measure` of
        `trainserve.evaluate.measures` makes numbers of it. A run goes before a server of the same
        name; `served` is which model of a server is meant.
        """
        from trainserve.client.evaluate import evaluate

        return evaluate(
            model, Path(data) if data else None, self._listener, split=split, batch_size=batch_size, device=device,
            skip_bad=skip_bad, ignore_unknown=ignore_unknown, served=served,
        )  # fmt: skip

    def compare(
        self,
        *models: str | Path,
        data: str | Path | None = None,
        split: Split | None = None,
        skip_bad: bool = False,
        ignore_unknown: bool = False,
    ) -> Comparison:
        """What differs between runs, bundles or .mar files; the first is what the others are compared with.

        With `data` each is asked about these pictures; else the answers of their own validations are compared.
        """
        from trainserve.client.compare import compare

        return compare(
            models, self._listener, data=Path(data) if data else None, split=split, skip_bad=skip_bad,
            ignore_unknown=ignore_unknown,
        )  # fmt: skip

    def export(
        self,
        run: str | Path,
        form: Literal["torchscript", "torch-export", "onnx"],
        out: str | Path | None = None,
        *,
        dynamic_batch: bool = True,
    ) -> Exported:
        """A finished run, or the folder of a bundle, in a format that needs nothing of this platform, checked.

        `out` is the run's name with .pt, .pt2 or .onnx unless given. Raises RunFailed, and writes nothing, where the
        file answers otherwise than training did.
        """
        from trainserve.client.export import export

        return export(run, form, Path(out) if out else None, dynamic_batch=dynamic_batch)

    def models(
        self, *, image_size: int = 224, classes: int = 1000, stem: Literal["imagenet", "small"] = "imagenet"
    ) -> list[Size]:
        """The networks that can be trained, and how large each is with these pictures and classes."""
        from trainserve.train import count

        return count.measure_all(image_size=image_size, classes=classes, stem=stem)

    def tensorboard(self, *runs: str, port: int = 0) -> AbstractContextManager[Board]:
        """TensorBoard on 127.0.0.1 over the curves of runs (all that have some) for the length of a `with` block."""
        from trainserve.client.tensorboard import board

        return board(runs, self._listener, port=port)

    def serve(
        self,
        *models: str | Path,
        name: str | None = None,
        port: int | None = None,
        grpc_port: int | None = None,
        management_port: int | None = None,
        engine: Engine = "torchserve",
    ) -> AbstractContextManager[Served]:
        """Serve runs or archives on 127.0.0.1 for the length of a `with` block, which begins when all are ready.

        `name` is what `predict` finds the server by (the first model's unless given); ports are free ones. The engine
        `native` (FastAPI, with a page for people) has neither gRPC nor a management port.
        """
        from trainserve.client import serving

        return serving.serving(
            models,
            self._listener,
            name=name,
            port=port,
            grpc_port=grpc_port,
            management_port=management_port,
            engine=engine,
        )

    def servers(self) -> list[ServerRecord]:
        """Servers that run now, by name."""
        from trainserve.serve.servers import running_servers

        return running_servers()

    def predict(
        self,
        server: str,
        pictures: str | Path | Iterable[str | Path],
        *,
        model: str | None = None,
        top: int | None = None,
        grpc: bool = False,
    ) -> list[Answer]:
        """The classes of pictures, from a server by its name, a model's name or a URL; a folder is its pictures.

        A picture that was refused has its error in its Answer.
        """
        from trainserve.client import serving

        several = [pictures] if isinstance(pictures, str | Path) else pictures
        paths = [Path(picture) for picture in several]
        return serving.predict(server, paths, model=model, top=top, use_grpc=grpc)
