{{- /* What the schema cannot say, refused in words. */ -}}
{{- define "operator.checks" -}}
{{- include "operator.text" (list "image.tag" .Values.image.tag) -}}
{{- range $path, $values := dict
      "commonLabels" .Values.commonLabels
      "dashboards.annotations" .Values.dashboards.annotations
      "dashboards.labels" .Values.dashboards.labels
      "metrics.service.annotations" .Values.metrics.service.annotations
      "nodeSelector" .Values.nodeSelector
      "podAnnotations" .Values.podAnnotations
      "podLabels" .Values.podLabels
      "podMonitor.labels" .Values.podMonitor.labels
      "prometheusRule.labels" .Values.prometheusRule.labels
      "serviceAccount.annotations" .Values.serviceAccount.annotations
      "serviceMonitor.labels" .Values.serviceMonitor.labels -}}
{{- range $key, $value := $values -}}
{{- include "operator.text" (list (printf "%s.%s" $path $key) $value) -}}
{{- end -}}
{{- end -}}
{{- range $index, $value := .Values.extraArgs -}}
{{- include "operator.text" (list (printf "extraArgs[%d]" $index) $value) -}}
{{- end -}}
{{- range .Values.extraEnv -}}
{{- if hasKey . "value" -}}
{{- include "operator.text" (list (printf "extraEnv: %s" .name) .value) -}}
{{- end -}}
{{- end -}}
{{- range $path, $labels := dict "commonLabels" .Values.commonLabels "podLabels" .Values.podLabels -}}
{{- range $key, $value := $labels -}}
{{- if or (hasPrefix "app.kubernetes.io/" $key) (hasPrefix "helm.sh/" $key) -}}
{{- fail (printf "%s.%s: the chart sets labels of app.kubernetes.io/ and helm.sh/ itself; choose another name" $path $key) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- range $key, $value := .Values.podLabels -}}
{{- if hasKey ($.Values.commonLabels | default dict) $key -}}
{{- fail (printf "podLabels.%s: commonLabels has it already; leave it out of one of them" $key) -}}
{{- end -}}
{{- end -}}
{{- if and (not .Values.leaderElection.enabled) (gt (int .Values.replicas) 1) -}}
{{- fail (printf "replicas %d with leaderElection.enabled false: all of them would work on the same jobs; set replicas to 1, or turn leaderElection on" (int .Values.replicas)) -}}
{{- end -}}
{{- $lease := .Values.leaderElection.leaseDuration | trimSuffix "s" | int -}}
{{- $renew := .Values.leaderElection.renewDeadline | trimSuffix "s" | int -}}
{{- $retry := .Values.leaderElection.retryPeriod | trimSuffix "s" | int -}}
{{- if not (and (gt $lease $renew) (gt $renew $retry)) -}}
{{- fail (printf "leaderElection: leaseDuration (%d s) must be longer than renewDeadline (%d s), and that longer than retryPeriod (%d s); 15s, 10s and 2s are the defaults" $lease $renew $retry) -}}
{{- end -}}
{{- if and .Values.serviceMonitor.enabled (not .Values.metrics.service.enabled) -}}
{{- fail "serviceMonitor.enabled needs metrics.service.enabled: Prometheus finds the operators through the Service" -}}
{{- end -}}
{{- end }}

{{- /* A value that must be text: YAML reads 6.10 as 6.1 and 00215e6 as 215000000, and what was meant is lost by then. */ -}}
{{- define "operator.text" -}}
{{- $path := index . 0 -}}
{{- $value := index . 1 -}}
{{- if not (or (kindIs "string" $value) (kindIs "invalid" $value)) -}}
{{- fail (printf "%s: YAML reads %v as a %s, so it is not what you typed any more; quote it in the file of values, or give it by --set-string" $path $value (kindOf $value | replace "float64" "number" | replace "int64" "number")) -}}
{{- end -}}
{{- end }}
