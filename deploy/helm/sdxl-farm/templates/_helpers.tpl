{{/* The release's name, with the chart's unless it says so already; short enough for what is appended. */}}
{{- define "sdxl-farm.name" -}}
{{- $name := .Release.Name -}}
{{- if not (contains .Chart.Name $name) -}}{{- $name = printf "%s-%s" $name .Chart.Name -}}{{- end -}}
{{- $name | trunc 36 | trimSuffix "-" -}}
{{- end }}

{{/* Labels by which a part is found: (list $ "producer"). */}}
{{- define "sdxl-farm.selector" -}}
app.kubernetes.io/name: {{ (index . 0).Chart.Name }}
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{/* All labels of a part: (list $ "producer"). */}}
{{- define "sdxl-farm.labels" -}}
{{ include "sdxl-farm.selector" . }}
app.kubernetes.io/version: {{ (index . 0).Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ (index . 0).Release.Service }}
helm.sh/chart: {{ (index . 0).Chart.Name }}-{{ (index . 0).Chart.Version }}
{{- end }}

{{- define "sdxl-farm.secret" -}}
{{ .Values.secret.existing | default (include "sdxl-farm.name" .) }}
{{- end }}

{{/* Environment of a container: (list $ (dict "FARM_HOST" "0.0.0.0")), its own settings last. */}}
{{- define "sdxl-farm.environment" -}}
{{- $root := index . 0 -}}
{{- range $name := list "FARM_DATABASE_URL" "FARM_BROKER_URL" "FARM_STORE_URL" }}
- name: {{ $name }}
  valueFrom: {secretKeyRef: {name: {{ include "sdxl-farm.secret" $root }}, key: {{ $name }}}}
{{- end }}
{{- range $name := list "AWS_ACCESS_KEY_ID" "AWS_SECRET_ACCESS_KEY" }}
- name: {{ $name }}
  valueFrom: {secretKeyRef: {name: {{ include "sdxl-farm.secret" $root }}, key: {{ $name }}, optional: true}}
{{- end }}
{{- $fixed := dict "HOME" "/data" "FARM_DATA" "/data" }}
{{- range $name, $value := mergeOverwrite $fixed $root.Values.settings (index . 1) }}
- name: {{ $name }}
  value: {{ $value | toString | quote }}
{{- end }}
{{- end }}

{{/* Settings of what reads the catalog. It is no part of what runs before the installation, when there is no ConfigMap. */}}
{{- define "sdxl-farm.catalogSettings" -}}
{{- if .Values.catalog }}FARM_CATALOG: /etc/sdxl-farm/catalog.toml{{ end }}
{{- end }}

{{- define "sdxl-farm.container" -}}
image: {{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end }}

{{/* Where a container may write; the image's /data is where it expects its files. */}}
{{- define "sdxl-farm.mounts" -}}
- {name: tmp, mountPath: /tmp}
- {name: data, mountPath: /data}
{{- end }}

{{- define "sdxl-farm.volumes" -}}
- {name: tmp, emptyDir: {}}
- {name: data, emptyDir: {}}
{{- end }}

{{- define "sdxl-farm.catalogMount" -}}
{{- if .Values.catalog }}
- {name: catalog, mountPath: /etc/sdxl-farm, readOnly: true}
{{- end }}
{{- end }}

{{- define "sdxl-farm.catalogVolume" -}}
{{- if .Values.catalog }}
- {name: catalog, configMap: {name: {{ include "sdxl-farm.name" . }}-catalog}}
{{- end }}
{{- end }}

{{/* What changes with these must start pods anew. */}}
{{- define "sdxl-farm.checksums" -}}
checksum/catalog: {{ .Values.catalog | sha256sum }}
checksum/secret: {{ .Values.secret | toJson | sha256sum }}
{{- end }}

{{/* What all pods share: who they are, and that they may do little. */}}
{{- define "sdxl-farm.pod" -}}
serviceAccountName: {{ .Values.serviceAccountName }}
automountServiceAccountToken: false
# These would be variables such as FARM_PORT.
enableServiceLinks: false
# The first process of a container would not hear SIGTERM until it has started; so it is not the first.
shareProcessNamespace: true
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{ toJson . }}
{{- end }}
securityContext:
  runAsNonRoot: true
  # The image's user; the group may write to volumes.
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- end }}

{{/* Where a part's pods may run: of its values. */}}
{{- define "sdxl-farm.placement" -}}
{{- with .nodeSelector }}
nodeSelector: {{ toJson . }}
{{- end }}
{{- with .tolerations }}
tolerations: {{ toJson . }}
{{- end }}
{{- end }}
