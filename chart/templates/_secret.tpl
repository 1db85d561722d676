{{/*
The data of a part's Secret as JSON, keys sorted; nothing where a part has no secrets. The environment
variables are named here and nowhere else.
*/}}
{{- define "mern.secretData" -}}
{{- $data := dict -}}
{{- range $name, $value := .values.secrets -}}
{{- $_ := set $data $name (b64enc $value) -}}
{{- end -}}
{{- range $name, $key := dict "MONGODB_URI" "mongodbUri" "AWS_ACCESS_KEY_ID" "awsAccessKeyId" "AWS_SECRET_ACCESS_KEY" "awsSecretAccessKey" -}}
{{- with get $.values $key -}}
{{- $_ := set $data $name (b64enc .) -}}
{{- end -}}
{{- end -}}
{{- with $data -}}
{{- toJson . -}}
{{- end -}}
{{- end }}

{{/*
The Secret that a part's pods read: the one somebody else made, or ours; nothing for a part without.
*/}}
{{- define "mern.secretName" -}}
{{- if .values.existingSecret -}}
{{- .values.existingSecret -}}
{{- else if include "mern.secretData" . -}}
{{- include "mern.ownerName" . -}}
{{- end -}}
{{- end }}

{{/*
Another text when the data of the Secret that a part's pods read is another.
*/}}
{{- define "mern.secretChecksum" -}}
{{- if .values.existingSecret -}}
{{- .values.existingSecretChecksum -}}
{{- else -}}
{{- with include "mern.secretData" . }}{{ sha256sum . }}{{ end -}}
{{- end -}}
{{- end }}

{{/*
`data`, not `stringData`: a key removed from `stringData` would stay in the cluster.
*/}}
{{- define "mern.secret" -}}
{{- with include "mern.secretData" . -}}
---
apiVersion: v1
kind: Secret
metadata:
  {{- include "mern.metadata" $ | nindent 2 }}
type: Opaque
data:
  {{- . | fromJson | toYaml | nindent 2 }}
{{- end }}
{{- end }}
