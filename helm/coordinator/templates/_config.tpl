{{/*
federation.yaml: `config` of the values, and what this chart decides, which is no part of `config` in the schema. It is
written as JSON, which is YAML: Helm's own YAML would make 4e+09 of 4000000000, which no YAML reader takes for a number.
*/}}
{{- define "fedward.config" -}}
{{- $values := .Values -}}
{{- $broker := dict "host" $values.broker.host "port" $values.broker.port -}}
{{- if $values.broker.enrolmentPort -}}
{{- $_ := set $broker "enrolment_port" $values.broker.enrolmentPort -}}
{{- end -}}
{{- if $values.broker.enabled -}}
{{- $_ := set $broker "authorisation" "dynamic-security" -}}
{{- end -}}
{{- if $values.broker.passwordSecret -}}
{{- $_ := set $broker "password_file" "/secrets/broker/password" -}}
{{- end -}}
{{- $set := dict
  "model" (include "fedward.model" .)
  "state_folder" "/var/lib/fedward/state"
  "identity" (dict "folder" "/var/lib/fedward/identity")
  "http" (dict "host" "0.0.0.0" "port" 8080)
  "broker" $broker
-}}
{{- if $values.authority.existingSecret -}}
{{- $_ := set $set "authority" (dict "folder" "/secrets/authority") -}}
{{- end -}}
{{- if $values.ledger.url -}}
{{- $_ := set $set "ledger" (dict "url" (include "fedward.ledgerUrl" .)) -}}
{{- if $values.ledger.existingSecret -}}
{{- $_ := set $set.ledger "password_file" "/secrets/ledger/password" -}}
{{- end -}}
{{- end -}}
{{- if $values.api.enabled -}}
{{- $api := dict "host" "0.0.0.0" "port" 8443 -}}
{{- if $values.api.tokenSecret -}}
{{- $_ := set $api "token_file" "/secrets/api-token/token" -}}
{{- end -}}
{{- if $values.api.tlsSecret -}}
{{- $folder := "/secrets/api-tls" -}}
{{- $_ := set $api "tls" (dict "certificate_file" (printf "%s/tls.crt" $folder) "key_file" (printf "%s/tls.key" $folder) "ca_file" (printf "%s/ca.crt" $folder)) -}}
{{- end -}}
{{- $_ := set $set "api" $api -}}
{{- end -}}
{{- toPrettyJson (mergeOverwrite (deepCopy $values.config) $set) -}}
{{- end }}

{{- define "fedward.model" -}}
{{- .Values.model.inImage | default (printf "/model/%s" .Values.model.file) -}}
{{- end }}

{{- define "fedward.ledgerUrl" -}}
{{- $url := .Values.ledger.url -}}
{{- if .Values.ledger.existingCaConfigMap -}}
{{- $url }}{{ contains "?" $url | ternary "&" "?" }}sslrootcert=/secrets/ledger-ca/ca.crt
{{- else -}}
{{- $url -}}
{{- end -}}
{{- end }}

{{/* What no schema can say in words that help. */}}
{{- define "fedward.check" -}}
{{- $values := .Values -}}
{{- $models := without (list $values.model.inImage $values.model.existingClaim $values.model.existingConfigMap) "" -}}
{{- if ne (len $models) 1 -}}
{{- fail "model: set one of inImage, existingClaim and existingConfigMap (README.md, The initial model)" -}}
{{- end -}}
{{- if gt (int $values.coordinator.replicas) 1 -}}
{{- if not $values.ledger.url -}}
{{- fail "coordinator.replicas: a second coordinator needs ledger.url: with SQLite there is only one" -}}
{{- end -}}
{{- if ne $values.state.accessMode "ReadWriteMany" -}}
{{- fail "coordinator.replicas: a second coordinator needs state.accessMode ReadWriteMany: both use the same models" -}}
{{- end -}}
{{- end -}}
{{- if and $values.broker.enabled (not $values.broker.existingSecret) -}}
{{- fail "broker.existingSecret: missing; ca.crt, ca.crl, and without certManager tls.crt and tls.key" -}}
{{- end -}}
{{- if and $values.broker.enabled (eq (int $values.broker.port) (int $values.broker.enrolmentPort)) -}}
{{- fail "broker.enrolmentPort: the same as broker.port; one asks for certificates, the other for passwords" -}}
{{- end -}}
{{- if and $values.restore.from (not (or $values.backup.enabled $values.backup.existingClaim)) -}}
{{- fail "restore.from: needs backup.enabled, or backup.existingClaim, where the backup is" -}}
{{- end -}}
{{- if and $values.api.enabled $values.networkPolicy.enabled (not $values.api.from) -}}
{{- fail "api.from: missing; who reaches the API, such as [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: ingress}}}]" -}}
{{- end -}}
{{- $api := $values.config.api | default dict -}}
{{- if and $api.readers (not (and $values.api.enabled $values.api.tlsSecret)) -}}
{{- fail "config.api.readers: given, but no TLS that shows who asks; set api.enabled and api.tlsSecret, or take the readers out" -}}
{{- end -}}
{{- if $values.api.enabled -}}
{{- if not (or $values.api.tokenSecret $api.readers) -}}
{{- fail "api: neither api.tokenSecret nor config.api.readers is given, and nobody is let in without; set api.tokenSecret, or api.tlsSecret and config.api.readers" -}}
{{- end -}}
{{- if not (or $values.api.tlsSecret $api.plain) -}}
{{- fail "api.tlsSecret: missing, and the token would be open to all on the way; set it, or config.api.plain behind something that speaks TLS" -}}
{{- end -}}
{{- if and $values.api.tlsSecret $api.plain -}}
{{- fail "api.tlsSecret and config.api.plain exclude each other: leave one of them out" -}}
{{- end -}}
{{- end -}}
{{- if and $values.certManager.enabled (not $values.certManager.issuer.name) -}}
{{- fail "certManager.issuer.name: missing; an issuer of the federation's authority" -}}
{{- end -}}
{{- if and $values.authority.existingSecret (dig "authority" "command" "" $values.config) -}}
{{- fail "authority.existingSecret and config.authority.command exclude each other" -}}
{{- end -}}
{{- end }}
