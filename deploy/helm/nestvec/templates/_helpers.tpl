{{- define "nestvec.fullname" -}}
{{- if contains "nestvec" .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-nestvec" .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "nestvec.selector" -}}
app.kubernetes.io/name: nestvec
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "nestvec.labels" -}}
{{ include "nestvec.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "nestvec.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}{{ printf "%s@%s" .repository .digest }}{{- else -}}{{ printf "%s:%s" .repository .tag }}{{- end -}}
{{- end -}}
{{- end -}}

{{/* Whether there may be more than one server: "true" or nothing. */}}
{{- define "nestvec.isSeveral" -}}
{{- if or (gt (int .Values.replicas) 1) (ne .Values.autoscaling.kind "none") -}}true{{- end -}}
{{- end -}}

{{/* What fits the schema and cannot work. */}}
{{- define "nestvec.check" -}}
{{- $several := include "nestvec.isSeveral" . -}}
{{- if and $several (eq .Values.files.store "volume") -}}
{{- fail "files.store: volume is for one replica without autoscaling; set files.store to shared, or to none" -}}
{{- end -}}
{{- if and (eq .Values.files.store "shared") (not .Values.files.shared.filesUrl) -}}
{{- fail "files.shared.filesUrl: files.store: shared needs an object store, such as s3://BUCKET/PREFIX" -}}
{{- end -}}
{{- if and $several (eq .Values.cache.kind "claim") (not (has "ReadWriteMany" .Values.cache.accessModes)) -}}
{{- fail "cache.accessModes: several replicas share the claim, so it needs ReadWriteMany; or set cache.kind to emptyDir" -}}
{{- end -}}
{{- if and (eq .Values.cache.kind "existingClaim") (not .Values.cache.existingClaim) -}}
{{- fail "cache.existingClaim: cache.kind is existingClaim, so name it" -}}
{{- end -}}
{{- if and .Values.cache.readOnly (has .Values.cache.kind (list "emptyDir" "claim")) -}}
{{- fail "cache.readOnly: only existingClaim and image have a model already; an empty volume has to be written to" -}}
{{- end -}}
{{- if and .Values.model.offline (has .Values.cache.kind (list "emptyDir" "claim")) (not (hasPrefix "/" .Values.model.name)) -}}
{{- fail "model.offline: an empty cache never gets the model; set cache.kind to existingClaim or image" -}}
{{- end -}}
{{- if and .Values.keys.secret (not .Values.keys.apiKeysItem) (not .Values.keys.keysFileItem) -}}
{{- fail "keys: a secret is named and none of its items; set keys.apiKeysItem or keys.keysFileItem" -}}
{{- end -}}
{{- if and (not .Values.keys.secret) (not .Values.keys.allowUnauthenticated) -}}
{{- fail "keys.secret: name a Secret with keys, or set keys.allowUnauthenticated where something else guards the port" -}}
{{- end -}}
{{- if and .Values.keys.secret .Values.keys.allowUnauthenticated -}}
{{- fail "keys.allowUnauthenticated: has no effect beside keys.secret; set one of them" -}}
{{- end -}}
{{- if and (ne .Values.autoscaling.kind "none") (gt (int .Values.autoscaling.minReplicas) (int .Values.autoscaling.maxReplicas)) -}}
{{- fail "autoscaling.minReplicas: is more than autoscaling.maxReplicas" -}}
{{- end -}}
{{- if and .Values.monitoring.serviceMonitor .Values.settings.protect_operations -}}
{{- fail "settings.protect_operations: the ServiceMonitor has no key; leave it off, as operationsPort is a port of its own" -}}
{{- end -}}
{{- if and .Values.inferencePool.enabled (not .Values.inferencePool.endpointPicker) -}}
{{- fail "inferencePool.endpointPicker: name the Service of the endpoint picker that you run" -}}
{{- end -}}
{{- end -}}

{{/* A setting's value as the server reads it from the environment: lists and tables as JSON or comma-separated. */}}
{{- define "nestvec.value" -}}
{{- if kindIs "map" . -}}{{ toJson . }}
{{- else if kindIs "slice" . -}}{{ join "," . }}
{{- else if kindIs "float64" . -}}{{ if eq (floor .) . }}{{ int64 . }}{{ else }}{{ . }}{{ end }}
{{- else -}}{{ . }}
{{- end -}}
{{- end -}}

{{- define "nestvec.env" -}}
- name: NESTVEC_HOST
  value: "0.0.0.0"
- name: NESTVEC_PORT
  value: "8080"
- name: NESTVEC_OPERATIONS_PORT
  value: {{ .Values.operationsPort | quote }}
- name: NESTVEC_CACHE_DIR
  value: /models
- name: NESTVEC_DATA_DIR
  value: /data
- name: HOME
  value: /tmp
- name: NESTVEC_MODEL
  value: {{ .Values.model.name | quote }}
{{- with .Values.model.revision }}
- name: NESTVEC_MODEL_REVISION
  value: {{ . | quote }}
{{- end }}
- name: NESTVEC_OFFLINE
  value: {{ .Values.model.offline | quote }}
- name: NESTVEC_DRAIN_GRACE_S
  value: {{ .Values.drain.graceSeconds | quote }}
- name: NESTVEC_DRAIN_TIMEOUT_S
  value: {{ .Values.drain.timeoutSeconds | quote }}
{{- if .Values.keys.secret }}
{{- if .Values.keys.apiKeysItem }}
- name: NESTVEC_API_KEYS_FILE
  value: /etc/nestvec/keys/{{ .Values.keys.apiKeysItem }}
{{- end }}
{{- if .Values.keys.keysFileItem }}
- name: NESTVEC_KEYS_FILE
  value: /etc/nestvec/keys/{{ .Values.keys.keysFileItem }}
{{- end }}
{{- else }}
- name: NESTVEC_ALLOW_UNAUTHENTICATED
  value: "true"
{{- end }}
- name: NESTVEC_FILES_API
  value: {{ ne .Values.files.store "none" | quote }}
{{- if eq .Values.files.store "shared" }}
- name: NESTVEC_DATABASE_URL
  valueFrom:
    secretKeyRef:
      name: {{ .Values.files.shared.secret }}
      key: {{ .Values.files.shared.databaseUrlItem }}
- name: NESTVEC_FILES_URL
  value: {{ .Values.files.shared.filesUrl | quote }}
{{- end }}
{{- with .Values.rates }}
{{- if .secret }}
- name: NESTVEC_RATES_URL
  valueFrom:
    secretKeyRef:
      name: {{ .secret }}
      key: {{ .urlItem }}
{{- end }}
{{- end }}
# By this each grants its part of the keys' limits, where they are not counted together; all together never grant more.
- name: NESTVEC_REPLICAS
  value: {{ ternary .Values.replicas .Values.autoscaling.maxReplicas (eq .Values.autoscaling.kind "none") | quote }}
{{- range $name, $value := .Values.settings }}
- name: {{ printf "NESTVEC_%s" (upper $name) }}
  value: {{ include "nestvec.value" $value | quote }}
{{- end }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}
