{{- /* Names are the same in every release: a second operator for the same namespaces is refused by Helm itself, and
`kubectl apply -k manifests/overlays/default` is the same objects. */ -}}
{{- define "operator.name" -}}
trainserve-operator
{{- end }}

{{- /* What selects the operators: no version, no release, nothing that a value changes. */ -}}
{{- define "operator.selector" -}}
app.kubernetes.io/name: {{ include "operator.name" . }}
{{- end }}

{{- define "operator.labels" -}}
{{ include "operator.selector" . }}
{{ include "operator.labelsBesideName" . }}
{{- end }}

{{- define "operator.labelsBesideName" -}}
app.kubernetes.io/part-of: trainserve
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | replace "+" "-" | trunc 63 | trimSuffix "-" | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "operator.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default (.Chart.AppVersion | replace "+" "-") }}
{{- end -}}
{{- end }}

{{- /* The address of /metrics: an IPv6 host is in brackets. */ -}}
{{- define "operator.metricsAddress" -}}
{{- $host := .Values.metrics.host -}}
{{ contains ":" $host | ternary (printf "[%s]" $host) $host }}:{{ int .Values.metrics.port }}
{{- end }}

{{- /* What Pod Security "restricted" asks of a pod, and of a container. No user is named: the image's own is used, or
the one that the cluster gives. */ -}}
{{- define "operator.podSecurity" -}}
runAsNonRoot: true
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "operator.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}
