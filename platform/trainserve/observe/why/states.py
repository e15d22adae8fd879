"""What there is to say of a run where no rank's failure explains its state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trainserve.kube import moments, names
from trainserve.observe.why.evidence import TELLING, Evidence, PodEvidence
from trainserve.observe.why.rule import Cause

STARTING_S = 60.0  # a job whose pods are not there after so long has something to be asked about
UNSEEN_S = 10.0  # a controller that works writes the first condition within a second
QUIET_S = 120.0  # a running job without an event of training for so long


def of_failed(evidence: Evidence, failed: Mapping[str, Any]) -> Cause | None:
    """Of a job that its controller failed for a reason of its own; None where a rank's failure is the reason."""
    message = str(failed.get("message", ""))
    match failed.get("reason"):
        case names.REASON_DEADLINE:
            limit = (evidence.spec.get("train") or {}).get("deadlineSeconds")
            words = f" of {limit} s" if limit else ""
            return Cause(
                "deadline",
                f"the run was active for longer than its deadline{words} allows; no rank failed",
                evidence.again(f"--deadline-seconds {2 * int(limit)}")
                if evidence.spec_file and limit
                else "raise runPolicy.activeDeadlineSeconds",
            )
        case names.REASON_INVALID:
            return Cause("job-invalid", message, "correct the field that the message names")
        case names.REASON_VERSION_SKEW:
            return Cause("version-skew", message, "use the same version of trainserve for the command and the operator")
    return None


def unexplained(evidence: Evidence, failed: Mapping[str, Any]) -> Cause:
    """A failed job of whose pods nothing is left."""
    sentence = str(evidence.status.get("cause") or failed.get("message") or "no pod says why")
    return Cause("unknown", sentence, f"platform logs {evidence.run}")


def is_stuck(pod: PodEvidence, evidence: Evidence) -> bool:
    """Whether a pod of the current generation waits for what does not come by itself."""
    waits = {
        *(names.REASON_UNSCHEDULABLE, "ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"),
        *("CreateContainerConfigError", "CreateContainerError", "CrashLoopBackOff", "RunContainerError"),
        *("InspectFailed", "RegistryUnavailable", "ImageInspectError", "SignatureValidationFailed"),
        *TELLING,
    }
    return pod.generation == evidence.generation and pod.phase != "Succeeded" and pod.reason in waits


def of_state(evidence: Evidence, last_restart: str) -> Cause:
    """Of a run that has not failed."""
    run, resume = evidence.run, f"platform resume {evidence.run}"
    again = f"; it restarted before, the last time because {last_restart}" if last_restart else ""
    step, steps = evidence.progress.get("step"), evidence.progress.get("steps")
    at = f" at step {step}" + (f" of {steps}" if steps else "") if step else ""
    match evidence.state:
        case names.SUCCEEDED:
            return Cause(
                "none",
                f"nothing is wrong: the run succeeded{again}",
                f"platform serve {run}" if evidence.progress.get("archive") else f"platform status {run}",
            )
        case names.SUSPENDED:
            queue = (evidence.job.get("metadata", {}).get("labels") or {}).get(names.LABEL_KUEUE_QUEUE)
            annotations = evidence.job.get("metadata", {}).get("annotations") or {}
            if queue and names.ANNOTATION_SUSPEND_REASON not in annotations:
                return Cause(
                    "queued",
                    f"nothing is wrong: the run waits{at} in the queue {queue}, which admits it when there is room",
                    f"{evidence.kubectl or 'kubectl'} get workloads,localqueues",
                )
            reason = str(evidence.condition(names.SUSPENDED).get("message", "")).partition("Reason: ")[2]
            return Cause(
                "suspended", f"nothing is wrong: the run was stopped{at}: {reason or 'suspend is true'}", resume
            )
        case names.INTERRUPTED:
            return _interrupted(evidence, at, resume)
        case names.RUNNING:
            return _running(evidence, at, again)
        case names.RESTARTING:
            cause = evidence.status.get("cause") or evidence.condition(names.RESTARTING).get("message", "")
            return Cause("restarting", f"the gang is being restarted: {cause}", f"platform status {run}")
    unseen = _unseen(evidence)
    if unseen is not None:
        return unseen
    created = evidence.condition(names.CREATED).get("lastTransitionTime")
    age = evidence.now - (moments.unix(created) or evidence.now)
    if age > STARTING_S:
        return Cause("pending", f"the run has not begun {age:.0f} s after it was asked for", f"platform status {run}")
    return Cause("none", f"nothing is wrong so far: the run is about to start{again}", f"platform logs {run} --follow")


def _unseen(evidence: Evidence) -> Cause | None:
    """Of a job of a cluster in whose status nobody has written anything; None of others."""
    job = evidence.job
    if not job or evidence.status.get("conditions"):
        return None
    manager = (job["spec"].get("runPolicy") or {}).get("managedBy")
    if manager is not None and manager not in names.MANAGED_BY_US:
        return Cause(
            "managed-elsewhere",
            f"this operator leaves the job alone: its spec.runPolicy.managedBy is {manager}",
            f"ask {manager} about it, or make the job anew without managedBy",
        )
    age = evidence.now - (moments.unix(job["metadata"].get("creationTimestamp")) or evidence.now)
    if age < UNSEEN_S:
        return None
    return Cause(
        "no-controller",
        f"no controller has looked at the job for {age:.0f} s: the operator is not installed, is down, or does not "
        f"watch namespace {job['metadata'].get('namespace')}",
        f"kubectl get pods --all-namespaces -l {names.LABEL_PART_OF}={names.PART_OF}",
    )


def _interrupted(evidence: Evidence, at: str, resume: str) -> Cause:
    if evidence.supervisor_error:
        return Cause(
            "supervisor-failed",
            f"the run was interrupted{at}: its supervisor failed: {evidence.supervisor_error}",
            f"repair that, then {resume}",
        )
    if evidence.rebooted:
        return Cause("rebooted", f"the run was interrupted{at}: the machine was started anew", resume)
    return Cause(
        "supervisor-killed",
        f"the run was interrupted{at}: its supervisor was killed, and took all ranks with it; no rank failed",
        resume,
    )


def _running(evidence: Evidence, at: str, again: str) -> Cause:
    last = evidence.progress.get("lastEvent")
    quiet = evidence.now - float(last) if last else 0.0
    if quiet > QUIET_S:
        return Cause(
            "quiet",
            f"the run goes on{at}, but has told nothing for {quiet:.0f} s{again}",
            f"platform logs {evidence.run} --follow  (a rank that hangs is ended by itself, see train.stallSeconds)",
        )
    return Cause("none", f"nothing is wrong: the run goes on{at}{again}", f"platform logs {evidence.run} --follow")
