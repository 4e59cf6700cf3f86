{{/* Names, labels and the pieces that every pod is made of. */}}

{{- define "cryptoalpha.name" -}}
{{- if .Values.nameOverride }}{{ .Values.nameOverride | trunc 40 | trimSuffix "-" }}
{{- else if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 40 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "cryptoalpha.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "cryptoalpha.labels" -}}
{{ include "cryptoalpha.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{/* `dict "top" $ "gpu" bool`: the image, by digest where one is given. */}}
{{- define "cryptoalpha.image" -}}
{{- $image := .top.Values.image }}
{{- $tag := $image.tag | default .top.Chart.AppVersion }}
{{- if and .gpu .top.Values.gpu.enabled }}{{ $tag = .top.Values.gpu.tag }}{{ end }}
{{- if and $image.digest (not (and .gpu .top.Values.gpu.enabled)) }}{{ $image.repository }}@{{ $image.digest }}{{ else }}{{ $image.repository }}:{{ $tag }}{{ end }}
{{- end }}

{{- define "cryptoalpha.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* `dict "top" $ "gpu" bool "account" name "token" bool`: what every pod says of itself before its containers. Service links are off:
they would put variables such as CRYPTOALPHA_PORT into the containers, which are read as settings. */}}
{{- define "cryptoalpha.pod" -}}
{{- if ne (default "" .account) "operator" }}
serviceAccountName: {{ .account | default (include "cryptoalpha.name" .top) }}
automountServiceAccountToken: {{ .token | default false }}
{{- end }}
enableServiceLinks: false
{{- with .top.Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
securityContext: {{- toYaml .top.Values.podSecurityContext | nindent 2 }}
{{- with .top.Values.scheduling.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .top.Values.scheduling.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- $gpu := and .gpu .top.Values.gpu.enabled }}
{{- if and $gpu .top.Values.gpu.runtimeClassName }}
runtimeClassName: {{ .top.Values.gpu.runtimeClassName }}
{{- end }}
{{- with concat .top.Values.scheduling.tolerations (ternary .top.Values.gpu.tolerations list (not (not $gpu))) }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* `dict "top" $ "resources" {…} "gpu" bool`: resources, with the GPU where there is one. */}}
{{- define "cryptoalpha.resources" -}}
{{- $found := deepCopy .resources }}
{{- if and .gpu .top.Values.gpu.enabled }}
{{- $found = mergeOverwrite $found (dict "limits" (dict .top.Values.gpu.resource (toString .top.Values.gpu.count))) }}
{{- end }}
{{- toYaml $found }}
{{- end }}

{{- define "cryptoalpha.environment" -}}
- {name: CRYPTOALPHA_HOME, value: /var/lib/cryptoalpha}
- {name: CRYPTOALPHA_CONFIG, value: /etc/cryptoalpha/cryptoalpha.yaml}
- {name: NUMBA_CACHE_DIR, value: /tmp/numba}
- {name: OMP_NUM_THREADS, value: "1"}
{{- if .Values.secret }}
- {name: CRYPTOALPHA_SECRETS_DIR, value: /run/secrets/cryptoalpha}
{{- end }}
{{- if .Values.streams.enabled }}
- {name: CRYPTOALPHA_DATA__STREAMS__BACKEND, value: servers}
- {name: CRYPTOALPHA_DATA__STREAMS__LISTEN, value: "true"}
- {name: CRYPTOALPHA_DATA__STREAMS__KAFKA_SERVERS, value: {{ required "streams.kafka: where is Kafka?" .Values.streams.kafka | quote }}}
- {name: CRYPTOALPHA_DATA__STREAMS__REDIS_ADDRESS, value: {{ required "streams.redis: where is Redis?" .Values.streams.redis | quote }}}
{{- end }}
{{- with .Values.env }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "cryptoalpha.mounts" -}}
- {name: settings, mountPath: /etc/cryptoalpha, readOnly: true}
- {name: scratch, mountPath: /tmp}
{{- if .Values.secret }}
- {name: secret, mountPath: /run/secrets/cryptoalpha, readOnly: true}
{{- end }}
{{- end }}

{{- define "cryptoalpha.volumes" -}}
- name: settings
  configMap: {name: {{ include "cryptoalpha.name" . }}}
- name: scratch
  emptyDir: {sizeLimit: 2Gi}
{{- if .Values.secret }}
- name: secret
  secret: {secretName: {{ .Values.secret }}, defaultMode: 288}
{{- end }}
{{- end }}

{{- define "cryptoalpha.modelsClaim" -}}
{{- .Values.models.claim | default (printf "%s-models" (include "cryptoalpha.name" .)) }}
{{- end }}

{{/* Volumes and mounts of those who write the store: the engine's own claim, and the models'. They run on the engine's node. */}}
{{- define "cryptoalpha.storeMounts" -}}
- {name: store, mountPath: /var/lib/cryptoalpha}
- {name: models, mountPath: /var/lib/cryptoalpha/models}
{{- end }}

{{- define "cryptoalpha.storeVolumes" -}}
- name: store
  persistentVolumeClaim: {claimName: store-{{ include "cryptoalpha.name" . }}-engine-0}
- name: models
  persistentVolumeClaim: {claimName: {{ include "cryptoalpha.modelsClaim" . }}}
{{- end }}

{{- define "cryptoalpha.besideTheEngine" -}}
affinity:
  podAffinity:
    requiredDuringSchedulingIgnoredDuringExecution:
      - topologyKey: kubernetes.io/hostname
        labelSelector:
          matchLabels:
            {{- include "cryptoalpha.selector" . | nindent 12 }}
            app.kubernetes.io/component: engine
{{- end }}

{{- define "cryptoalpha.settingsSum" -}}
checksum/settings: {{ toJson .Values.settings | sha256sum }}
{{- end }}
