{{- define "plainroute.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "plainroute.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- $name := include "plainroute.name" . -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* What a selector matches: never changes in the life of a release. Takes (list . COMPONENT). */}}
{{- define "plainroute.selector" -}}
{{- $top := index . 0 -}}
app.kubernetes.io/name: {{ include "plainroute.name" $top }}
app.kubernetes.io/instance: {{ $top.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{/* The labels of an object. Takes (list . COMPONENT). */}}
{{- define "plainroute.labels" -}}
{{- $top := index . 0 -}}
{{ include "plainroute.selector" . }}
app.kubernetes.io/version: {{ $top.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: plainroute
app.kubernetes.io/managed-by: {{ $top.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $top.Chart.Name $top.Chart.Version | replace "+" "_" }}
{{- with $top.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Takes (list . TAG DIGEST). */}}
{{- define "plainroute.image" -}}
{{- $top := index . 0 -}}
{{- $digest := index . 2 -}}
{{ $top.Values.image.repository }}:{{ index . 1 | default $top.Chart.AppVersion }}{{ with $digest }}@{{ . }}{{ end }}
{{- end -}}

{{/* The AgentConfig's spec: the operator's, and what the chart has values for. */}}
{{- define "plainroute.agentConfig" -}}
{{- $spec := deepCopy .Values.config -}}
{{- $_ := set $spec "source" (dict "kubernetes" (dict)) -}}
{{- $_ := set $spec "adminSocket" "/run/plainroute/agent.sock" -}}
{{- $_ := set $spec "stateDir" "/var/lib/plainroute" -}}
{{- $_ := set $spec "bfd" (dict "socket" "/run/plainroute/bfd.sock" "spawn" false) -}}
{{- if .Values.ipam.enabled -}}
{{- $_ := set $spec "ipam" (dict "socket" "/run/plainroute/ipam.sock") -}}
{{- end -}}
{{- $_ := set $spec "metrics" (dict "listen" .Values.metrics.listen) -}}
{{- $_ := set $spec "readiness" (dict "established" .Values.readiness.established) -}}
apiVersion: plainroute.dev/v1alpha1
kind: AgentConfig
metadata:
  name: agent
spec:
  {{- toYaml $spec | nindent 2 }}
{{- end -}}

{{- define "plainroute.metricsPort" -}}
{{- .Values.metrics.listen | splitList ":" | last -}}
{{- end -}}

{{/* The address at which the kubelet asks: the one that is listened at, unless that is every address. */}}
{{- define "plainroute.probeHost" -}}
{{- $host := .Values.metrics.listen | trimSuffix (printf ":%s" (include "plainroute.metricsPort" .)) | trimPrefix "[" | trimSuffix "]" -}}
{{- if not (or (eq $host "0.0.0.0") (eq $host "::")) -}}{{ $host }}{{- end -}}
{{- end -}}

{{- define "plainroute.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
# Root, because the sockets are root's alone and capabilities reach only root without privilege escalation.
runAsUser: 0
runAsGroup: 0
seccompProfile:
  type: RuntimeDefault
{{- end -}}
