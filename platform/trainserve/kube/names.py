"""Every name, label, annotation, env name, port, reason and message: nowhere else is one spelt out."""

from __future__ import annotations

from dataclasses import dataclass

from trainserve import __version__


@dataclass(frozen=True)
class Kind:
    """One kind of Kubernetes object, as a client addresses it."""

    group: str  # "" is the core group
    version: str
    kind: str
    plural: str

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    def __str__(self) -> str:
        return self.kind


CLASSIFIER = Kind("trainserve.dev", "v1alpha1", "Classifier", "classifiers")
PYTORCHJOB = Kind("kubeflow.org", "v1", "PyTorchJob", "pytorchjobs")
POD = Kind("", "v1", "Pod", "pods")
POD_LOG = Kind("", "v1", "Pod", "pods/log")  # what its node answers through the API server
SERVICE = Kind("", "v1", "Service", "services")
EVENT = Kind("", "v1", "Event", "events")
LEASE = Kind("coordination.k8s.io", "v1", "Lease", "leases")
NODE = Kind("", "v1", "Node", "nodes")
POD_GROUP = Kind("scheduling.k8s.io", "v1beta1", "PodGroup", "podgroups")
VOLCANO_POD_GROUP = Kind("scheduling.volcano.sh", "v1beta1", "PodGroup", "podgroups")
SCHEDULER_PLUGINS_POD_GROUP = Kind("scheduling.x-k8s.io", "v1alpha1", "PodGroup", "podgroups")
AUTOSCALER = Kind("autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers")
CRD = Kind("apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions")
DEPLOYMENT = Kind("apps", "v1", "Deployment", "deployments")
VALIDATING_WEBHOOKS = Kind(
    "admissionregistration.k8s.io", "v1", "ValidatingWebhookConfiguration", "validatingwebhookconfigurations"
)
NAMESPACE = Kind("", "v1", "Namespace", "namespaces")
CLAIM = Kind("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims")
VOLUME = Kind("", "v1", "PersistentVolume", "persistentvolumes")
SECRET = Kind("", "v1", "Secret", "secrets")
CONFIG_MAP = Kind("", "v1", "ConfigMap", "configmaps")
STORAGE_CLASS = Kind("storage.k8s.io", "v1", "StorageClass", "storageclasses")
SERVICE_ACCOUNT = Kind("", "v1", "ServiceAccount", "serviceaccounts")
ROLE = Kind("rbac.authorization.k8s.io", "v1", "Role", "roles")
ROLE_BINDING = Kind("rbac.authorization.k8s.io", "v1", "RoleBinding", "rolebindings")
CLUSTER_ROLE = Kind("rbac.authorization.k8s.io", "v1", "ClusterRole", "clusterroles")
CLUSTER_ROLE_BINDING = Kind("rbac.authorization.k8s.io", "v1", "ClusterRoleBinding", "clusterrolebindings")

# Labels of Kubeflow's Training Operator v1: its SDK and Kueue select by them.
LABEL_OPERATOR_NAME = "training.kubeflow.org/operator-name"
LABEL_JOB_NAME = "training.kubeflow.org/job-name"
LABEL_REPLICA_TYPE = "training.kubeflow.org/replica-type"
LABEL_REPLICA_INDEX = "training.kubeflow.org/replica-index"
LABEL_JOB_ROLE = "training.kubeflow.org/job-role"
OPERATOR_NAME = "pytorchjob-controller"

# Of everything that is installed: whose it is (https://kubernetes.io/docs/concepts/overview/working-with-objects/common-labels/).
LABEL_NAME = "app.kubernetes.io/name"
LABEL_PART_OF = "app.kubernetes.io/part-of"
PART_OF = "trainserve"
OPERATOR_NAMESPACE = "trainserve-system"  # where the controller is installed
OPERATOR_ACCOUNT = "trainserve-operator"  # its ServiceAccount, and what its roles are called
OPERATOR_LEASE = "trainserve-operator"  # who holds it is the one controller that works
CHECKED_JOB = "trainserve-check"  # the PyTorchJob that an installation is tried out with, by dry runs only
LABEL_POD_SECURITY = "pod-security.kubernetes.io/enforce"  # of a namespace
POD_SECURITY = "restricted"  # what every pod that is installed passes
LABEL_AGGREGATE_TO = "rbac.authorization.k8s.io/aggregate-to-{role}"  # view, edit, admin: Kubernetes' own roles

# Kubeflow's Training Operator v1, as its manifests install it.
KUBEFLOW_DEPLOYMENT = "training-operator"
KUBEFLOW_LEASE = "1ca428e5.training-operator.kubeflow.org"  # held where it runs with --leader-elect
ENV_KUBEFLOW_NAMESPACE = "KUBEFLOW_NAMESPACE"  # of its container: the one namespace that it works in
KUBEFLOW_WEBHOOKS = "validator.training-operator.kubeflow.org"  # its ValidatingWebhookConfiguration
KUBEFLOW_WEBHOOK = "validator.pytorchjob.training-operator.kubeflow.org"  # the one in it for our kind
ANNOTATION_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
ANNOTATION_CONTROLLER_GEN = "controller-gen.kubebuilder.io/version"  # on CRDs that were made of Go types

# Of a node (https://kubernetes.io/docs/reference/labels-annotations-taints/).
LABEL_HOSTNAME = "kubernetes.io/hostname"
RESOURCE_GPU = "nvidia.com/gpu"
LABEL_OS = "kubernetes.io/os"
LABEL_ARCH = "kubernetes.io/arch"
TAINT_NOT_READY = "node.kubernetes.io/not-ready"
NODE_LEASE_NAMESPACE = "kube-node-lease"  # whose Leases say which nodes are alive
NODE_READY = "Ready"
NODE_OK = "KubeletReady"
NODE_STOPPED = "KubeletStopped"
POD_TERMINATED = "Terminated"  # a kubelet's word for a pod that it ended because the node shuts down
POD_REJECTED = "NodeShutdown"  # and for one that came when it did
DISRUPTION_TARGET = "DisruptionTarget"
TERMINATION_BY_KUBELET = "TerminationByKubelet"
STATUS_UNKNOWN = "ContainerStatusUnknown"  # of a container whose end nobody saw

# Ours.
LABEL_NODE = "trainserve.dev/node"  # on a node of `platform node run`, whose pods are processes of one machine
NODE_OF_PROCESSES = "processes"
LABEL_GENERATION = "trainserve.dev/generation"  # which gang a pod belongs to, from status.generation
LABEL_CLASSIFIER = "trainserve.dev/classifier"
ANNOTATION_RESTART = "trainserve.dev/restart"  # "in-place": upstream's way, no gang restart
ANNOTATION_SUSPEND_REASON = "trainserve.dev/suspend-reason"
ANNOTATION_PROGRESS = "trainserve.dev/progress"  # of a pod that nobody else can ask: its node writes what it answers
ANNOTATION_WANTED = "trainserve.dev/wanted"  # a digest of the spec that an autoscaler was last given by us
ANNOTATION_AFTER_GENERATION = "trainserve.dev/after-generation"  # of a job that goes on for a failed one of its name
ANNOTATION_VERSION = "trainserve.dev/version"  # of the command that made the job
RESTART_IN_PLACE = "in-place"

# Which gang a pod belongs to, for the schedulers of https://volcano.sh and of kubernetes-sigs/scheduler-plugins.
ANNOTATION_VOLCANO_GROUP = "scheduling.k8s.io/group-name"
ANNOTATION_VOLCANO_TASK = "volcano.sh/task-spec"
LABEL_SCHEDULER_PLUGINS_GROUP = "scheduling.x-k8s.io/pod-group"
VOLCANO_SCHEDULER = "volcano"
SCHEDULER_PLUGINS_SCHEDULER = "scheduler-plugins-scheduler"  # as its own chart calls it
# Kueue's, of plain pods: https://kueue.sigs.k8s.io/docs/tasks/run/plain_pods/.
LABEL_KUEUE_QUEUE = "kueue.x-k8s.io/queue-name"
LABEL_KUEUE_PRIORITY = "kueue.x-k8s.io/priority-class"
LABEL_KUEUE_GROUP = "kueue.x-k8s.io/pod-group-name"
ANNOTATION_KUEUE_GROUP_SIZE = "kueue.x-k8s.io/pod-group-total-count"

# How long a training pod that is stopped may take, in s, before it is killed: the step in progress (which may take
# minutes on few cores), then a checkpoint of some GB to a slow disk. A pod that is ready sooner ends sooner.
STOP_GRACE_S = 120
POD_GRACE_S = 30  # what Kubernetes gives a pod that does not say
# The same for a gang that has lost a rank: it cannot agree on a checkpoint any more, and ranks that wait for the lost
# one in a collective would hold back the restart until they are killed.
BROKEN_GANG_GRACE_S = 30
# The same for a run on this machine that its user stops: whoever waits for it waits half a minute at most. Where the
# step and the checkpoint take longer, the checkpoint before counts.
CANCEL_GRACE_S = 20

# A pod that mounts a claim for `platform data push` and for reading an output.
HELPER_PREFIX = "trainserve-reach-"  # of its name; random letters follow
LABEL_HELPER = "trainserve.dev/helper"  # on it
HELPER_REACH = "reach"  # the label's value
HELPER_IDLE_S = 120  # it ends by itself when nobody has asked it for so long: whoever made it is dead
HELPER_LONGEST_S = 24 * 3600  # activeDeadlineSeconds: whatever happens
HELPER_CONTAINER = "reach"
HELPER_MOUNT = "/volume"

REPLICA_MASTER = "Master"
REPLICA_WORKER = "Worker"
CONTAINER = "pytorch"
INIT_CONTAINER = "init-pytorch"
VOLUME_SHM = "trainserve-shm"
# Volumes of a job that the command has made for a cluster, and where a pod sees them.
VOLUME_DATA = "data"
VOLUME_CACHE = "cache"
VOLUME_OUTPUT = "output"
VOLUME_WEIGHTS = "weights"
VOLUME_TMP = "tmp"
MOUNT_DATA = "/data"
MOUNT_CACHE = "/cache"
MOUNT_OUTPUT = "/output"
MOUNT_WEIGHTS = "/weights"
MOUNT_TMP = "/tmp"  # noqa: S108  a mount point
MOUNT_SHM = "/dev/shm"  # noqa: S108
IMAGE_PYTHON = "python"  # what the trainer image calls its Python
POD_USER = 65532  # of our images, and its group, which the volumes of a training pod are made writable for
PORT_NAME = "pytorchjob-port"
PORT = 23456
PROGRESS_PORT_NAME = "progress"  # of a container that answers GET /progress and GET /metrics
PROGRESS_PORT = 9464
LOGS_PORT = 9465  # where the Master's agent takes the lines of other nodes, to keep them in the output
LOGS_FOLDER = "logs"  # of an output: logs/g<generation>/<pod>-rank<k>.log
PROGRESS_PATH = "/progress"
METRICS_PATH = "/metrics"

# Env that the PyTorchJob API defines.
ENV_MASTER_ADDR = "MASTER_ADDR"
ENV_MASTER_PORT = "MASTER_PORT"
ENV_PET_MASTER_ADDR = "PET_MASTER_ADDR"
ENV_PET_MASTER_PORT = "PET_MASTER_PORT"
ENV_PET_RDZV_ENDPOINT = "PET_RDZV_ENDPOINT"
ENV_WORLD_SIZE = "WORLD_SIZE"
ENV_RANK = "RANK"
ENV_PET_NODE_RANK = "PET_NODE_RANK"
ENV_PET_NNODES = "PET_NNODES"
ENV_PET_NPROC_PER_NODE = "PET_NPROC_PER_NODE"
ENV_PET_RDZV_BACKEND = "PET_RDZV_BACKEND"
ENV_PET_RDZV_ID = "PET_RDZV_ID"
ENV_PET_RDZV_CONF = "PET_RDZV_CONF"
ENV_PET_MAX_RESTARTS = "PET_MAX_RESTARTS"
ENV_PET_STANDALONE = "PET_STANDALONE"
ENV_PYTHONUNBUFFERED = "PYTHONUNBUFFERED"

# Env of torch's launcher and of OpenMP, which agent and ranks share.
ENV_ERROR_FILE = "TORCHELASTIC_ERROR_FILE"
ENV_OMP_NUM_THREADS = "OMP_NUM_THREADS"

# Env of ours, in a training pod.
ENV_SPEC = "TRAINSERVE_SPEC"  # the resolved Classifier as JSON
ENV_OUTPUT = "TRAINSERVE_OUTPUT"  # folder for checkpoints, events, bundle: only rank 0 touches it
ENV_STORE = "TRAINSERVE_STORE"  # URL of a bucket's folder that ENV_OUTPUT is brought back from and sent to
ENV_VERSION = "TRAINSERVE_VERSION"  # of the command that made the job
ENV_JOB = "TRAINSERVE_JOB"  # "<namespace>/<name>"
ENV_JOB_UID = "TRAINSERVE_JOB_UID"
ENV_GENERATION = "TRAINSERVE_GENERATION"
ENV_GRACE = "TRAINSERVE_GRACE_S"  # terminationGracePeriodSeconds of the pod, which it cannot ask for
ENV_PEER_TIMEOUT = "TRAINSERVE_PEER_TIMEOUT_S"  # longest wait of a rank for a silent peer, in seconds; default 600
ENV_WAIT_FOR = "TRAINSERVE_WAIT_FOR"  # "<host>:<port>", in our init container only
ENV_TERMINATION_LOG = "TRAINSERVE_TERMINATION_LOG"  # set by the local kubelet; in a pod /dev/termination-log
ENV_LIFELINE_FD = "TRAINSERVE_LIFELINE_FD"  # read end of a pipe; its end of file means: the supervisor is gone, die
ENV_HOST_NODES = "TRAINSERVE_HOST_NODES"  # set by the local kubelet: nodes of the job that share this machine's cores
ENV_HEARTBEAT = "TRAINSERVE_HEARTBEAT"  # of a rank, set by its agent: the file that its sign of life is in
ENV_PROGRESS_ADDRESS = "TRAINSERVE_PROGRESS_ADDRESS"  # "<host>:<port>" where rank 0 answers; no host: all addresses
ENV_POD_DIR = "TRAINSERVE_POD_DIR"  # the local kubelet's folder for this pod; the agent writes ranks.json there

ENV_OPERATOR_PREFIX = "PLATFORM_OPERATOR_"  # of what `platform operator run` takes from its environment
ACCOUNT_FOLDER = "/var/run/secrets/kubernetes.io/serviceaccount"  # in a pod that is given its account

ENV_KUBECONFIG = "KUBECONFIG"  # of kubectl: the files that say which cluster, and as whom
ENV_CUDA_DEVICES = "CUDA_VISIBLE_DEVICES"  # of CUDA: the GPUs that a process may use
ENV_USER_HOME = "HOME"
ENV_HOME = "TRAINSERVE_HOME"  # folder of runs and servers on a laptop; ~/.trainserve without it

# What a training pod is given, by the command or by the controller: nobody else may set these.
OWN_ENV = (
    ENV_SPEC,
    ENV_OUTPUT,
    ENV_STORE,
    ENV_VERSION,
    ENV_JOB,
    ENV_JOB_UID,
    ENV_GENERATION,
    ENV_GRACE,
    ENV_PROGRESS_ADDRESS,
    ENV_HEARTBEAT,
    ENV_LIFELINE_FD,
    ENV_HOST_NODES,
    ENV_WAIT_FOR,
    ENV_POD_DIR,
    ENV_MASTER_ADDR,
    ENV_MASTER_PORT,
    ENV_WORLD_SIZE,
    ENV_RANK,
    ENV_ERROR_FILE,
    ENV_PET_MASTER_ADDR,
    ENV_PET_MASTER_PORT,
    ENV_PET_RDZV_ENDPOINT,
    ENV_PET_NODE_RANK,
    ENV_PET_NNODES,
    ENV_PET_NPROC_PER_NODE,
    ENV_PET_RDZV_BACKEND,
    ENV_PET_RDZV_ID,
    ENV_PET_RDZV_CONF,
    ENV_PET_MAX_RESTARTS,
    ENV_PET_STANDALONE,
)

# The env names that carry addresses: exactly these are substituted by the local kubelet, where pods share one host.
ADDRESS_ENV = (
    ENV_MASTER_ADDR,
    ENV_MASTER_PORT,
    ENV_PET_MASTER_ADDR,
    ENV_PET_MASTER_PORT,
    ENV_PET_RDZV_ENDPOINT,
    ENV_WAIT_FOR,
)

# Condition types and reasons, upstream's words.
CREATED = "Created"
RUNNING = "Running"
RESTARTING = "Restarting"
SUCCEEDED = "Succeeded"
FAILED = "Failed"
SUSPENDED = "Suspended"

PENDING = "Pending"  # ours: pods are refused or cannot be placed; of a run: its supervisor has not created the job yet

VERSION_SKEW = "VersionSkew"  # ours: made by a command of another version; first in the list, never the state

# A state of a run on this machine beside the conditions.
INTERRUPTED = "Interrupted"  # unfinished, not suspended, and no supervisor: it died

# Conditions that schedulers write: of a pod, and of a PodGroup.
CONDITION_POD_SCHEDULED = "PodScheduled"
CONDITION_GROUP_PLACED = "PodGroupInitiallyScheduled"

REASON_CREATED = "PyTorchJobCreated"
REASON_RUNNING = "PyTorchJobRunning"
REASON_RESTARTING = "PyTorchJobRestarting"
REASON_SUCCEEDED = "PyTorchJobSucceeded"
REASON_FAILED = "PyTorchJobFailed"
REASON_SUSPENDED = "PyTorchJobSuspended"
REASON_RESUMED = "PyTorchJobResumed"
REASON_BACKOFF_LIMIT = "BackoffLimitExceeded"
REASON_DEADLINE = "DeadlineExceeded"

REASON_QUOTA = "QuotaExceeded"
REASON_UNSCHEDULABLE = "Unschedulable"  # Kubernetes' own word, of a pod and of a PodGroup
REASON_SCHEDULE_TIMEOUT = "ScheduleTimeout"
REASON_SCALED = "PyTorchJobScaled"
REASON_ADOPTED = "PyTorchJobAdopted"
REASON_INVALID = "PyTorchJobInvalid"
REASON_STALLED = "Stalled"  # ours: a rank made no step for too long, and its node's agent ended it
REASON_VERSION_SKEW = "VersionSkew"
REASON_NOT_SUPPORTED = "NotSupported"
REASON_DEPRECATED = "Deprecated"
REASON_RESTART_POLICY_OVERRIDDEN = "SettedPodTemplateRestartPolicy"  # upstream's spelling

# Reasons of events about children, upstream's words: "SuccessfulCreatePod", "FailedDeleteService", ...
REASON_SUCCESSFUL_CREATE = "SuccessfulCreate"
REASON_FAILED_CREATE = "FailedCreate"
REASON_SUCCESSFUL_DELETE = "SuccessfulDelete"
REASON_FAILED_DELETE = "FailedDelete"
REASON_FAILED_UPDATE = "FailedUpdate"  # ours
REASON_STOPPED = "SuccessfulStop"
EVENT_COMPONENT = "pytorchjob-controller"

REASON_STARTED = "Started"  # of an event: where the logs of a pod are
REASON_NAMESPACE = "NamespaceNotTaken"  # of a container: the node takes pods of other namespaces only
REASON_NODE_LOST = "NodeLost"  # of a pod: what it ran on is gone; the local kubelet says so of a dead supervisor's

MANAGED_BY_US = ("", "kubeflow.org/training-operator")  # "" is nobody in particular, so ours

# Messages of conditions, upstream's words; what is ours follows them, after a blank.
MESSAGE_CREATED = "PyTorchJob {job} is created."
MESSAGE_RUNNING = "PyTorchJob {job} is running."
MESSAGE_SUCCEEDED = "PyTorchJob {job} is successfully completed."
MESSAGE_FAILED = "PyTorchJob {job} is failed because {count} {replica_type} replica(s) failed."
MESSAGE_RESTARTING = "PyTorchJob {job} is restarting because {count} {replica_type} replica(s) failed."
MESSAGE_SCALED = "PyTorchJob {job} is restarting because its size changed."
MESSAGE_ADOPTED = "PyTorchJob {job} goes on with {count} pods that Kubeflow's operator has made."
MESSAGE_BACKOFF_LIMIT = "Job {job} has failed because it has reached the specified backoff limit"
MESSAGE_DEADLINE = "Job {job} has failed because it was active longer than specified deadline"
MESSAGE_SUSPENDED = "PyTorchJob {job} is suspended."
MESSAGE_RESUMED = "PyTorchJob {job} is resumed."
MESSAGE_UNSCHEDULABLE = "PyTorchJob {job} waits for a place: {placed} of {count} pods have a node."
MESSAGE_SCHEDULE_TIMEOUT = (
    "PyTorchJob {job} gives back what it holds: after {seconds} s only {placed} of {count} pods have a node."
)
MESSAGE_INVALID = "PyTorchJob {job} is failed because its spec is not valid: {problem}"
MESSAGE_REFUSED = "PyTorchJob {job} is failed because {problem}"
MESSAGE_VERSION_SKEW = "PyTorchJob {job} goes on, though {difference}."

# Who set `suspend: true`, in ANNOTATION_SUSPEND_REASON.
SUSPEND_BY_USER = "cancelled by the user"
SUSPEND_BY_OWNER = "the command that started it has ended"
SUSPEND_BY_INTERRUPT = "interrupted by Ctrl-C"
SUSPEND_BY_HANGUP = "its terminal was closed (--detach lets a run go on without one)"

# Of images that a registry has: whose they are; `image_for` adds which one, and its version.
IMAGES = "ghcr.io/trainserve"
IMAGE_TRAINER = "trainer"  # what training pods run
IMAGE_SERVER = "server"  # what answers
IMAGE_OPERATOR = "operator"  # the controller
LOCAL_IMAGE = "localhost/trainserve:local"  # of jobs made for a laptop: the packages that run the command
LOCAL_NAMESPACE = "local"  # the namespace of everything on a laptop


def image_for(role: str, version: str = __version__) -> str:
    """`ghcr.io/trainserve/<role>:<version>`: the image that goes with the version that is installed here."""
    return f"{IMAGES}/{role}:{version.replace('+', '-')}"  # a tag has no plus sign


def replica_name(job: str, replica_type: str, index: int) -> str:
    """`<job>-<master|worker>-<index>`: the name of a replica's Pod and of its Service."""
    return f"{job}-{replica_type.lower()}-{index}"


def pod_group_name(job: str, generation: int) -> str:
    """`<job>-g<N>`: the PodGroup of gang N."""
    return f"{job}-g{generation}"


def job_selector(job: str) -> dict[str, str]:
    """The labels that select a job's pods and services (what Kueue uses too)."""
    return {LABEL_JOB_NAME: job, LABEL_OPERATOR_NAME: OPERATOR_NAME}


def replica_labels(job: str, replica_type: str, index: int) -> dict[str, str]:
    """Labels of a replica's Pod and Service, and the Service's selector."""
    return {
        **job_selector(job),
        LABEL_REPLICA_TYPE: replica_type.lower(),
        LABEL_REPLICA_INDEX: str(index),
    }
