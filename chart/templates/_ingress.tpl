{{/*
Every annotation the load balancer controller reads, composed in this one place, as JSON. Values are
strings: an annotation that is a number or a boolean is refused by Kubernetes.
*/}}
{{- define "mern.ingressAnnotations" -}}
{{- $ingress := .Values.ingress -}}
{{- $ports := list (dict "HTTP" 80) -}}
{{- $annotations := dict
      "scheme" $ingress.scheme
      "target-type" "ip"
      "healthcheck-path" $ingress.healthCheck.path -}}
{{- if $ingress.tls.enabled -}}
  {{- $ports = append $ports (dict "HTTPS" 443) -}}
  {{- with $ingress.tls.certificateArns -}}
    {{- $_ := set $annotations "certificate-arn" (join "," .) -}}
  {{- end -}}
  {{- if $ingress.tls.redirect -}}
    {{- $_ := set $annotations "ssl-redirect" "443" -}}
  {{- end -}}
{{- end -}}
{{- $_ := set $annotations "listen-ports" (toJson $ports) -}}
{{- $prefixed := dict -}}
{{- range $name, $value := $annotations -}}
  {{- $_ := set $prefixed (printf "alb.ingress.kubernetes.io/%s" $name) $value -}}
{{- end -}}
{{- toJson $prefixed -}}
{{- end }}

{{/*
The server's paths first, then the client for everything else.
*/}}
{{- define "mern.ingressPaths" -}}
{{- $server := include "mern.objectName" (dict "root" . "name" "server") -}}
{{- $client := include "mern.objectName" (dict "root" . "name" "client") -}}
{{- range .Values.ingress.serverPaths }}
- path: {{ . | quote }}
  pathType: Prefix
  backend:
    service:
      name: {{ $server }}
      port:
        name: http
{{- end }}
- path: /
  pathType: Prefix
  backend:
    service:
      name: {{ $client }}
      port:
        name: http
{{- end }}
