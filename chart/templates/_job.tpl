{{/*
The Job that a run of the script is: on its schedule, and once after a deployment.
*/}}
{{- define "mern.jobSpec" -}}
backoffLimit: {{ int .values.backoffLimit }}
{{- with .values.activeDeadlineSeconds }}
activeDeadlineSeconds: {{ int64 . }}
{{- end }}
template:
  metadata:
    labels:
      {{- include "mern.podLabels" . | nindent 6 }}
    {{- /* No checksum of the Secret: each run is a new pod and reads it afresh. */}}
  spec:
    {{- include "mern.podSpec" . | nindent 4 }}
    {{- /* A failed pod stays, with its log; the Job starts another. */}}
    restartPolicy: Never
    containers:
      - {{ include "mern.container" . | indent 8 | trim }}
{{- end }}
