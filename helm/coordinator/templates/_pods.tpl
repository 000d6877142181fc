{{/*
What every pod has. No service links: Kubernetes would put variables such as FEDWARD_COORDINATOR_PORT into the
environment, and the program takes everything that begins with FEDWARD_ for a setting, and refuses to start.
*/}}
{{- define "fedward.pod" -}}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- with .Values.images.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end }}

{{- define "fedward.container" -}}
securityContext:
  allowPrivilegeEscalation: false
  capabilities: {drop: [ALL]}
  readOnlyRootFilesystem: true
{{- end }}

{{- define "fedward.coordinatorImage" -}}
image: {{ include "fedward.image" (list . .Values.images.coordinator) }}
imagePullPolicy: {{ .Values.images.pullPolicy }}
{{- end }}

{{/* What the coordinator and every job of it mount. */}}
{{- define "fedward.mounts" -}}
- {name: config, mountPath: /etc/fedward, readOnly: true}
- {name: tmp, mountPath: /tmp}
- {name: state, mountPath: /var/lib/fedward}
{{- if not .Values.model.inImage }}
- {name: model, mountPath: /model, readOnly: true}
{{- end }}
{{- include "fedward.ledgerMounts" . }}
{{- end }}

{{- define "fedward.ledgerMounts" -}}
{{- if .Values.ledger.existingSecret }}
- {name: ledger, mountPath: /secrets/ledger, readOnly: true}
{{- end }}
{{- if .Values.ledger.existingCaConfigMap }}
- {name: ledger-ca, mountPath: /secrets/ledger-ca, readOnly: true}
{{- end }}
{{- end }}

{{- define "fedward.volumes" -}}
- name: config
  configMap: {name: {{ include "fedward.name" . }}-config}
- name: state
  persistentVolumeClaim: {claimName: {{ include "fedward.stateClaim" . }}}
{{- with .Values.model.existingClaim }}
- name: model
  persistentVolumeClaim: {claimName: {{ . }}, readOnly: true}
{{- end }}
{{- with .Values.model.existingConfigMap }}
- name: model
  configMap: {name: {{ . }}}
{{- end }}
{{- include "fedward.ledgerVolumes" . }}
{{- end }}

{{/* Secrets are read by the group: the files are root's, and the program refuses a key that anybody else can read. */}}
{{- define "fedward.ledgerVolumes" -}}
{{- with .Values.ledger.existingSecret }}
- name: ledger
  secret: {secretName: {{ . }}, defaultMode: 0440, items: [{key: password, path: password}]}
{{- end }}
{{- with .Values.ledger.existingCaConfigMap }}
- name: ledger-ca
  configMap: {name: {{ . }}}
{{- end }}
{{- end }}

{{/* A job on a volume that one node has at a time runs where the coordinator does. */}}
{{- define "fedward.besideCoordinator" -}}
{{- if ne .Values.state.accessMode "ReadWriteMany" }}
affinity:
  podAffinity:
    requiredDuringSchedulingIgnoredDuringExecution:
      - topologyKey: kubernetes.io/hostname
        labelSelector:
          matchLabels:
            {{- include "fedward.selector" (list . "coordinator") | nindent 12 }}
{{- end }}
{{- end }}
