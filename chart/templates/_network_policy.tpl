{{/*
Who may talk to a part's pods, and, where `restrictEgress` is on, whom they may talk to: always DNS, or
no name could be looked up. A part that serves nothing lets nobody in.
*/}}
{{- define "mern.networkPolicy" -}}
{{- $policy := .values.networkPolicy -}}
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  {{- include "mern.metadata" . | nindent 2 }}
spec:
  podSelector:
    matchLabels:
      {{- include "mern.selectorLabels" . | nindent 6 }}
  policyTypes:
    - Ingress
    {{- if $policy.restrictEgress }}
    - Egress
    {{- end }}
  {{- if .values.containerPort }}
  ingress:
    - ports:
        - protocol: TCP
          port: http
      {{- with $policy.from }}
      from:
        {{- toYaml . | nindent 8 }}
        - podSelector:
            matchLabels:
              {{- include "mern.selectorLabels" (dict "root" $.root "name" (printf "%s-test" $.name)) | nindent 14 }}
      {{- end }}
  {{- else }}
  ingress: []
  {{- end }}
  {{- if $policy.restrictEgress }}
  egress:
    - ports:
        - protocol: UDP
          port: 53
        - protocol: TCP
          port: 53
    {{- with $policy.egress }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- end }}
{{- end }}
