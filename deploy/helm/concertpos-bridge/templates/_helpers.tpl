{{- define "bridge.name" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "bridge.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "bridge.labels" -}}
{{ include "bridge.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "bridge.secret" -}}
{{- if .Values.secret.existing -}}
{{- if .Values.secret.values }}{{ fail "secret.existing and secret.values exclude each other" }}{{ end -}}
{{- .Values.secret.existing -}}
{{- else -}}
{{- if not .Values.secret.values }}{{ fail "set secret.existing to the Secret with the instances' keys, or secret.values to the keys" }}{{ end -}}
{{- if .Values.cluster.enabled -}}
{{- range tuple "database" "cluster" }}{{ if not (hasKey $.Values.secret.values .) }}{{ fail (printf "several replicas need secret.values.%s" .) }}{{ end }}{{ end -}}
{{- end -}}
{{- include "bridge.name" . -}}
{{- end -}}
{{- end -}}

{{- define "bridge.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end -}}
