{{/*
A part that serves HTTP: everything but its Secret. Client and server are both this, so that they
cannot drift apart.
*/}}
{{- define "mern.workload" -}}
{{ include "mern.serviceAccount" . }}
---
{{ include "mern.deployment" . }}
---
{{ include "mern.service" . }}
{{- if .values.autoscaling.enabled }}
---
{{ include "mern.hpa" . }}
{{- end }}
{{- end }}

{{- define "mern.deployment" -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  {{- include "mern.metadata" . | nindent 2 }}
spec:
  {{- /* With the autoscaler on, a number here would fight it at every deployment. */}}
  {{- if not .values.autoscaling.enabled }}
  replicas: {{ int .values.replicas }}
  {{- end }}
  selector:
    matchLabels:
      {{- include "mern.selectorLabels" . | nindent 6 }}
  template:
    metadata:
      labels:
        {{- include "mern.podLabels" . | nindent 8 }}
      {{- with include "mern.secretData" . }}
      annotations:
        {{- /* Pods read a Secret when they start: new data, and nothing else of it, is a reason to restart. */}}
        checksum/secret: {{ sha256sum . }}
      {{- end }}
    spec:
      {{- include "mern.podSpec" . | nindent 6 }}
      containers:
        - {{ include "mern.container" . | indent 10 | trim }}
          ports:
            - name: http
              containerPort: {{ int .values.containerPort }}
          {{- /* Not ready takes a pod out of the Service; only a pod that is dead for a minute is restarted. */}}
          readinessProbe:
            httpGet:
              path: {{ .values.probes.path }}
              port: http
            periodSeconds: 5
            timeoutSeconds: 3
            failureThreshold: 3
          livenessProbe:
            httpGet:
              path: {{ .values.probes.path }}
              port: http
            initialDelaySeconds: 15
            periodSeconds: 10
            timeoutSeconds: 3
            failureThreshold: 6
{{- end }}

{{- define "mern.service" -}}
apiVersion: v1
kind: Service
metadata:
  {{- include "mern.metadata" . | nindent 2 }}
  {{- /* The load balancer asks every service for the Ingress's path, unless the service names its own. */}}
  {{- if and .root.Values.ingress.enabled (ne .values.probes.path .root.Values.ingress.healthCheck.path) }}
  annotations:
    alb.ingress.kubernetes.io/healthcheck-path: {{ .values.probes.path }}
  {{- end }}
spec:
  type: ClusterIP
  selector:
    {{- include "mern.selectorLabels" . | nindent 4 }}
  ports:
    - name: http
      port: {{ int .values.service.port }}
      targetPort: http
      appProtocol: http
{{- end }}

{{- define "mern.hpa" -}}
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  {{- include "mern.metadata" . | nindent 2 }}
spec:
  scaleTargetRef:
    apiVersion: apps/v1
    kind: Deployment
    name: {{ include "mern.objectName" . }}
  minReplicas: {{ int .values.autoscaling.minReplicas }}
  maxReplicas: {{ int .values.autoscaling.maxReplicas }}
  metrics:
    - type: Resource
      resource:
        name: cpu
        target:
          type: Utilization
          averageUtilization: {{ int .values.autoscaling.targetCPUUtilizationPercentage }}
{{- end }}
