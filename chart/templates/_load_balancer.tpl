{{/*
Everything the load balancer controller reads, composed in this one file. The helpers answer JSON, and
all values are strings: Kubernetes refuses an annotation that is a number or a boolean.
*/}}

{{- define "mern.albPrefix" -}}
alb.ingress.kubernetes.io/
{{- end }}

{{/*
Health checks as annotations, from `healthCheck` of the Ingress or of one Service.
*/}}
{{- define "mern.healthCheckAnnotations" -}}
{{- $names := dict
      "path" "healthcheck-path"
      "intervalSeconds" "healthcheck-interval-seconds"
      "timeoutSeconds" "healthcheck-timeout-seconds"
      "healthyThreshold" "healthy-threshold-count"
      "unhealthyThreshold" "unhealthy-threshold-count"
      "successCodes" "success-codes" -}}
{{- $annotations := dict -}}
{{- range $key, $value := . -}}
{{- $_ := set $annotations (printf "%s%s" (include "mern.albPrefix" .) (get $names $key)) (toString $value) -}}
{{- end -}}
{{- toJson $annotations -}}
{{- end }}

{{/*
What one Service wants otherwise than the Ingress says; a Service's own annotation wins. The path that
makes its pods ready is also the one the load balancer asks for.
*/}}
{{- define "mern.serviceAnnotations" -}}
{{- $ingress := .root.Values.ingress -}}
{{- if not $ingress.enabled -}}
{{- toJson dict -}}
{{- else -}}
{{- $check := merge (dict) (.values.service.healthCheck | default dict) -}}
{{- $path := .values.probes.readiness.path | default .values.probes.path -}}
{{- if and (not $check.path) (ne $path $ingress.healthCheck.path) -}}
{{- $_ := set $check "path" $path -}}
{{- end -}}
{{- include "mern.healthCheckAnnotations" $check -}}
{{- end -}}
{{- end }}

{{- define "mern.ingressAnnotations" -}}
{{- $ingress := .Values.ingress -}}
{{- $ports := list (dict "HTTP" 80) -}}
{{- $own := dict "scheme" $ingress.scheme "target-type" $ingress.targetType -}}
{{- with $ingress.tls -}}
{{- if .enabled -}}
  {{- $ports = append $ports (dict "HTTPS" 443) -}}
  {{- with .certificateArns -}}
    {{- $_ := set $own "certificate-arn" (join "," .) -}}
  {{- end -}}
  {{- with .sslPolicy -}}
    {{- $_ := set $own "ssl-policy" . -}}
  {{- end -}}
  {{- if .redirect -}}
    {{- $_ := set $own "ssl-redirect" "443" -}}
  {{- end -}}
{{- end -}}
{{- end -}}
{{- $_ := set $own "listen-ports" (toJson $ports) -}}
{{- with $ingress.group.name -}}
  {{- $_ := set $own "group.name" . -}}
  {{- if not (kindIs "invalid" $ingress.group.order) -}}
    {{- $_ := set $own "group.order" (int $ingress.group.order | toString) -}}
  {{- end -}}
{{- end -}}
{{- $target := merge (dict) ($ingress.targetGroupAttributes | default dict) -}}
{{- if $ingress.zeroDowntime.enabled -}}
  {{- $_ := set $target "deregistration_delay.timeout_seconds" (int $ingress.zeroDowntime.drainSeconds | toString) -}}
{{- end -}}
{{- range $name, $attributes := dict "target-group-attributes" $target "load-balancer-attributes" $ingress.loadBalancerAttributes -}}
  {{- $pairs := list -}}
  {{- range $key, $value := $attributes -}}
    {{- $pairs = append $pairs (printf "%s=%s" $key $value) -}}
  {{- end -}}
  {{- with $pairs -}}
    {{- $_ := set $own $name (join "," .) -}}
  {{- end -}}
{{- end -}}
{{- $annotations := include "mern.healthCheckAnnotations" $ingress.healthCheck | fromJson -}}
{{- range $name, $value := $own -}}
  {{- $_ := set $annotations (printf "%s%s" (include "mern.albPrefix" $) $name) $value -}}
{{- end -}}
{{- toJson $annotations -}}
{{- end }}

{{/*
The annotations that have a value of their own in this chart, set or not.
*/}}
{{- define "mern.ownAnnotations" -}}
{{- $own := list -}}
{{- range list "scheme" "target-type" "listen-ports" "certificate-arn" "ssl-policy" "ssl-redirect" "group.name" "group.order"
      "target-group-attributes" "load-balancer-attributes" "healthcheck-path" "healthcheck-interval-seconds"
      "healthcheck-timeout-seconds" "healthy-threshold-count" "unhealthy-threshold-count" "success-codes" -}}
{{- $own = append $own (printf "%s%s" (include "mern.albPrefix" $) .) -}}
{{- end -}}
{{- toJson $own -}}
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
