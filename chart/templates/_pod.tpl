{{- define "mern.image" -}}
{{- printf "%s:%s" .values.image.repository (.values.image.tag | default .root.Chart.AppVersion) | quote -}}
{{- end }}

{{- define "mern.serviceAccount" -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  {{- include "mern.metadata" . | nindent 2 }}
  {{- with .values.serviceAccount.annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- /* No part talks to the Kubernetes API. The token for an AWS role is another one, mounted by its webhook. */}}
automountServiceAccountToken: false
{{- end }}

{{/*
The fields of a pod spec that all parts share.
*/}}
{{- define "mern.podSpec" -}}
serviceAccountName: {{ include "mern.objectName" . }}
automountServiceAccountToken: false
{{- /* Addresses of unrelated Services do not belong into the environment. */}}
enableServiceLinks: false
securityContext:
  seccompProfile:
    type: RuntimeDefault
  {{- if eq .root.Values.podSecurity "restricted" }}
  runAsNonRoot: true
  {{- with .values.runAsUser }}
  runAsUser: {{ int64 . }}
  {{- end }}
  {{- end }}
{{- end }}

{{/*
The fields of a container that all parts share. Secret values come from the part's own Secret as a
whole, so that no value, and no list of their names, stands in a pod template.
*/}}
{{- define "mern.container" -}}
name: {{ .name }}
image: {{ include "mern.image" . }}
imagePullPolicy: {{ .values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  {{- if eq .root.Values.podSecurity "restricted" }}
  capabilities:
    drop: [ALL]
  {{- end }}
{{- if include "mern.secretData" . }}
envFrom:
  - secretRef:
      name: {{ include "mern.objectName" . }}
{{- end }}
{{- with include "mern.env" . }}
env:
  {{- . | nindent 2 }}
{{- end }}
resources:
  {{- toYaml .values.resources | nindent 2 }}
{{- end }}

{{/*
Plain environment variables, sorted by name: `env`, and the region for what talks to AWS. The AWS
libraries disagree on which of the two names they read.
*/}}
{{- define "mern.env" -}}
{{- $env := dict -}}
{{- with .values.awsRegion -}}
{{- $env = dict "AWS_REGION" . "AWS_DEFAULT_REGION" . -}}
{{- end -}}
{{- range $name, $value := merge (dict) (.values.env | default dict) $env }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- end }}
