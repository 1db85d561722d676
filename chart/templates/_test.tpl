{{/*
`helm test`: a pod that asks a part's Service for its health. It takes the script's image, because that
one is sure to hold Python: no image of somebody else is needed.
*/}}
{{- define "mern.test" -}}
{{- $script := .root.Values.pythonScript -}}
{{- $test := dict "root" .root "name" (printf "%s-test" .name) "owner" .name
      "values" (pick $script "image" "resources" "runAsUser" "priorityClassName" "nodeSelector" "tolerations") -}}
{{- $url := printf "http://%s:%d%s" (include "mern.objectName" .) (int .values.service.port) .values.probes.path -}}
apiVersion: v1
kind: Pod
metadata:
  {{- include "mern.metadata" $test | nindent 2 }}
  annotations:
    helm.sh/hook: test
    helm.sh/hook-delete-policy: before-hook-creation
spec:
  {{- include "mern.podSpec" $test | nindent 2 }}
  restartPolicy: Never
  containers:
    - {{ include "mern.container" $test | indent 6 | trim }}
      command:
        - python3
        - -c
        - import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=10).status)
        - {{ $url | quote }}
{{- end }}
