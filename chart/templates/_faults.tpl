{{/*
What the schema cannot say, one sentence per fault, all faults together. No sentence quotes a secret.
*/}}
{{- define "mern.faults" -}}
{{- range $key := list "mernServer" "pythonScript" }}
{{- $uri := (get $.Values $key).mongodbUri }}
{{- if not $uri }}
- {{ $key }}.mongodbUri is missing. Credentials have no default: give it with the deployment.
{{- else if not (regexMatch "^mongodb(\\+srv)?://\\S+$" $uri) }}
- {{ $key }}.mongodbUri is no MongoDB connection string: it starts with mongodb:// or mongodb+srv:// and holds no blank or line break.
{{- end }}
{{- end }}

{{- $env := .Values.mernServer.env | default dict }}
{{- if hasKey (.Values.mernServer.secrets | default dict) "MONGODB_URI" }}
- mernServer.secrets.MONGODB_URI is set by mernServer.mongodbUri: remove it from mernServer.secrets.
{{- end }}
{{- range $name := append (keys (.Values.mernServer.secrets | default dict) | sortAlpha) "MONGODB_URI" | uniq }}
{{- if hasKey $env $name }}
- mernServer.env.{{ $name }} would hide the secret of the same name: remove it from mernServer.env.
{{- end }}
{{- end }}

{{- $script := .Values.pythonScript }}
{{- range $name := list "MONGODB_URI" "AWS_ACCESS_KEY_ID" "AWS_SECRET_ACCESS_KEY" "AWS_REGION" "AWS_DEFAULT_REGION" }}
{{- if hasKey ($script.env | default dict) $name }}
- pythonScript.env.{{ $name }} has a value of its own: remove it from pythonScript.env.
{{- end }}
{{- end }}
{{- if ne (empty $script.awsAccessKeyId) (empty $script.awsSecretAccessKey) }}
- pythonScript.awsAccessKeyId and pythonScript.awsSecretAccessKey belong together: give both, or neither where the script has a role.
{{- end }}

{{- range $key := list "mernClient" "mernServer" }}
{{- with (get $.Values $key).autoscaling }}
{{- if gt (int .minReplicas) (int .maxReplicas) }}
- {{ $key }}.autoscaling.minReplicas ({{ .minReplicas }}) is above maxReplicas ({{ .maxReplicas }}).
{{- end }}
{{- end }}
{{- end }}

{{- with .Values.ingress }}
{{- $composed := include "mern.ingressAnnotations" $ | fromJson }}
{{- range $name := keys .annotations | sortAlpha }}
{{- if hasKey $composed $name }}
- ingress.annotations sets {{ $name }}, which the chart composes from the other values of ingress: use those.
{{- end }}
{{- end }}
{{- if and .enabled .tls.enabled (not .tls.certificateArns) (not .hosts) }}
- ingress.tls needs ingress.tls.certificateArns, or ingress.hosts by which the controller finds the certificates.
{{- end }}
{{- end }}
{{- end }}
