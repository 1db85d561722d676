{{- define "mern.image" -}}
{{- with .values.image -}}
{{- if .digest -}}
{{- printf "%s@%s" .repository .digest | quote -}}
{{- else -}}
{{- printf "%s:%s" .repository (.tag | default $.root.Chart.AppVersion) | quote -}}
{{- end -}}
{{- end -}}
{{- end }}

{{/*
The name of the objects of the part that owns these pods.
*/}}
{{- define "mern.ownerName" -}}
{{- include "mern.objectName" (dict "root" .root "name" (.owner | default .name)) -}}
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
serviceAccountName: {{ include "mern.ownerName" . }}
automountServiceAccountToken: false
{{- /* Addresses of unrelated Services do not belong into the environment. */}}
enableServiceLinks: false
{{- with .values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . | quote }}
  {{- end }}
{{- end }}
{{- with .values.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- with .values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with include "mern.topologySpread" . }}
topologySpreadConstraints:
  {{- . | trim | nindent 2 }}
{{- end }}
securityContext:
  seccompProfile:
    type: RuntimeDefault
  {{- if eq .root.Values.podSecurity "restricted" }}
  runAsNonRoot: true
  {{- with .values.runAsUser }}
  runAsUser: {{ int64 . }}
  {{- end }}
  {{- end }}
{{- with .values.volumes }}
volumes:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/*
Pods apart from each other, so that one zone or node takes few of them down. Only pods of the same
revision are counted: the old ones of a rollout are about to go.
*/}}
{{- define "mern.topologySpread" -}}
{{- $keys := dict "zone" "topology.kubernetes.io/zone" "host" "kubernetes.io/hostname" -}}
{{- range $name, $when := .values.topologySpread | default dict }}
{{- if $when }}
- topologyKey: {{ get $keys $name }}
  maxSkew: 1
  whenUnsatisfiable: {{ $when }}
  labelSelector:
    matchLabels:
      {{- include "mern.selectorLabels" $ | nindent 6 }}
  matchLabelKeys: [pod-template-hash]
{{- end }}
{{- end }}
{{- end }}

{{/*
The fields of a container that all parts share. Secret values come from a Secret as a whole, so that no
value, and no list of their names, stands in a pod template.
*/}}
{{- define "mern.container" -}}
name: {{ .name }}
image: {{ include "mern.image" . }}
imagePullPolicy: {{ .values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  {{- if .values.readOnlyRootFilesystem }}
  readOnlyRootFilesystem: true
  {{- end }}
  {{- if eq .root.Values.podSecurity "restricted" }}
  capabilities:
    drop: [ALL]
  {{- end }}
{{- with include "mern.secretName" . }}
envFrom:
  - secretRef:
      name: {{ . | quote }}
{{- end }}
{{- with include "mern.env" . }}
env:
  {{- . | trim | nindent 2 }}
{{- end }}
resources:
  {{- toYaml .values.resources | nindent 2 }}
{{- with .values.volumeMounts }}
volumeMounts:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/*
Environment variables that are no secret: `env` and the region, sorted by name, then `extraEnv`. The
AWS libraries disagree on which of the two names of the region they read.
*/}}
{{- define "mern.env" -}}
{{- $env := dict -}}
{{- with .values.awsRegion -}}
{{- $env = dict "AWS_REGION" . "AWS_DEFAULT_REGION" . -}}
{{- end -}}
{{- range $name, $value := merge (dict) (.values.env | default dict) $env }}
- name: {{ $name | quote }}
  value: {{ $value | quote }}
{{- end }}
{{- with .values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}
