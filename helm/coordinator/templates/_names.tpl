{{/* Names and labels. Each takes (list root component) but the first. */}}

{{- define "fedward.name" -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- end }}

{{- define "fedward.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: fedward
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{- define "fedward.labels" -}}
{{- $root := index . 0 -}}
{{ include "fedward.selector" . }}
app.kubernetes.io/part-of: fedward
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version }}
{{- end }}

{{/* Name, namespace and labels of an object: (list root component name). */}}
{{- define "fedward.metadata" -}}
{{- $root := index . 0 -}}
name: {{ include "fedward.name" $root }}-{{ index . 2 }}
namespace: {{ $root.Release.Namespace }}
labels:
  {{- include "fedward.labels" . | nindent 2 }}
{{- end }}

{{/* (list root image): by digest where there is one, whatever the tag says. */}}
{{- define "fedward.image" -}}
{{- $root := index . 0 -}}
{{- $image := index . 1 -}}
{{- $name := printf "%s/%s" $root.Values.images.registry $image.repository -}}
{{- if $image.digest -}}
{{ $name }}@{{ $image.digest }}
{{- else -}}
{{ $name }}:{{ $image.tag | default $root.Chart.AppVersion }}
{{- end -}}
{{- end }}

{{- define "fedward.stateClaim" -}}
{{ .Values.state.existingClaim | default (printf "%s-state" (include "fedward.name" .)) }}
{{- end }}

{{- define "fedward.backupClaim" -}}
{{ .Values.backup.existingClaim | default (printf "%s-backups" (include "fedward.name" .)) }}
{{- end }}
