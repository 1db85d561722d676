{{/*
Every helper of this chart takes one dict that describes a part of the application:
  root    the root context
  name    what follows the release in object names: client, server, python-script
  values  the part's own values
  owner   where it is not the part itself: the part whose account and Secret its pods use
*/}}

{{/*
The name of a part's objects: RELEASE-NAME.

A Service name is a DNS label: 63 characters, no dots, a letter first. A CronJob has 52, because
Kubernetes appends 11 to name its Jobs. A release name may break all of these, so it is reshaped when
it must be, and then carries a hash of the original: two releases never meet in one name.
*/}}
{{- define "mern.objectName" -}}
{{- $limit := ternary 52 63 (eq .name "python-script") -}}
{{- $room := sub $limit (add 1 (len .name)) | int -}}
{{- $release := .root.Release.Name -}}
{{- $base := $release | replace "." "-" -}}
{{- if not (regexMatch "^[a-z]" $base) -}}
{{- $base = printf "r%s" $base -}}
{{- end -}}
{{- if or (ne $base $release) (gt (len $base) $room) -}}
{{- $base = printf "%s-%s" ($base | trunc (sub $room 9 | int) | trimSuffix "-") (sha256sum $release | trunc 8) -}}
{{- end -}}
{{- printf "%s-%s" $base .name -}}
{{- end }}

{{/*
What selects a part's pods. A Deployment's selector can never change, so nothing else belongs here.
*/}}
{{- define "mern.selectorLabels" -}}
app.kubernetes.io/name: {{ .root.Chart.Name }}-{{ .name }}
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
{{- end }}

{{/*
Labels of pods: no versions, or a new chart version alone would restart every pod.
*/}}
{{- define "mern.podLabels" -}}
{{ include "mern.selectorLabels" . }}
app.kubernetes.io/component: {{ .name }}
app.kubernetes.io/part-of: {{ .root.Chart.Name }}
{{- end }}

{{- define "mern.labels" -}}
{{ include "mern.podLabels" . }}
app.kubernetes.io/version: {{ include "mern.version" . | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/*
The image's tag as a label: a tag may be longer than a label, and begin or end with what a label may
not. Of a digest, the beginning tells versions apart.
*/}}
{{- define "mern.version" -}}
{{- $image := .values.image | default dict -}}
{{- $version := $image.tag | default .root.Chart.AppVersion -}}
{{- with $image.digest -}}
{{- $version = . | replace ":" "-" | trunc 19 -}}
{{- end -}}
{{- regexReplaceAll "^[^A-Za-z0-9]+|[^A-Za-z0-9]+$" ($version | trunc 63) "" -}}
{{- end }}

{{- define "mern.metadata" -}}
name: {{ include "mern.objectName" . }}
namespace: {{ .root.Release.Namespace | quote }}
labels:
  {{- include "mern.labels" . | nindent 2 }}
{{- end }}
