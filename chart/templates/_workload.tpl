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
{{- if .values.podDisruptionBudget.enabled }}
---
{{ include "mern.pdb" . }}
{{- end }}
{{- if .values.networkPolicy.enabled }}
---
{{ include "mern.networkPolicy" . }}
{{- end }}
{{- end }}

{{- define "mern.deployment" -}}
{{- $rollout := include "mern.rollout" . | fromJson -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  {{- include "mern.metadata" . | nindent 2 }}
  {{- if $rollout.zeroDowntime }}
  annotations:
    {{- /* For whoever waits for the rollout: a shorter wait can give up on one that is going well. */}}
    mern/least-rollout-seconds: {{ int $rollout.leastTimeout | quote }}
  {{- end }}
spec:
  {{- /* With the autoscaler on, a number here would fight it at every deployment. */}}
  {{- if not .values.autoscaling.enabled }}
  replicas: {{ int .values.replicas }}
  {{- end }}
  selector:
    matchLabels:
      {{- include "mern.selectorLabels" . | nindent 6 }}
  strategy:
    type: RollingUpdate
    rollingUpdate:
      maxUnavailable: {{ include "mern.intOrPercent" .values.rollingUpdate.maxUnavailable }}
      maxSurge: {{ include "mern.intOrPercent" .values.rollingUpdate.maxSurge }}
  template:
    metadata:
      labels:
        {{- include "mern.podLabels" . | nindent 8 }}
      {{- with include "mern.secretChecksum" . }}
      annotations:
        {{- /* Pods read a Secret when they start: new data, and nothing else of it, is a reason to restart. */}}
        checksum/secret: {{ quote . }}
      {{- end }}
    spec:
      {{- include "mern.podSpec" . | nindent 6 }}
      terminationGracePeriodSeconds: {{ int $rollout.grace }}
      containers:
        - {{ include "mern.container" . | indent 10 | trim }}
          ports:
            - name: http
              containerPort: {{ int .values.containerPort }}
          {{- if $rollout.sleep }}
          lifecycle:
            preStop:
              sleep:
                seconds: {{ int $rollout.sleep }}
          {{- end }}
          {{- /* Slow to start is not dead; not ready gets no requests; only what stays dead is restarted. */}}
          {{- range $name := list "startup" "readiness" "liveness" }}
          {{- $probe := get $.values.probes $name }}
          {{ $name }}Probe:
            httpGet:
              path: {{ $probe.path | default $.values.probes.path | quote }}
              port: http
            periodSeconds: {{ int $probe.periodSeconds }}
            timeoutSeconds: {{ int $probe.timeoutSeconds }}
            failureThreshold: {{ int $probe.failureThreshold }}
          {{- end }}
{{- end }}

{{- define "mern.service" -}}
apiVersion: v1
kind: Service
metadata:
  {{- include "mern.metadata" . | nindent 2 }}
  {{- with merge (include "mern.serviceAnnotations" . | fromJson) (.values.service.annotations | default dict) }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  {{- /* A load balancer that sends to nodes needs a port on every node. */}}
  type: {{ ternary "NodePort" "ClusterIP" (and .root.Values.ingress.enabled (eq .root.Values.ingress.targetType "instance")) }}
  selector:
    {{- include "mern.selectorLabels" . | nindent 4 }}
  ports:
    - name: http
      port: {{ int .values.service.port }}
      targetPort: http
      appProtocol: http
{{- end }}

{{- define "mern.hpa" -}}
{{- $autoscaling := .values.autoscaling -}}
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  {{- include "mern.metadata" . | nindent 2 }}
spec:
  scaleTargetRef:
    apiVersion: apps/v1
    kind: Deployment
    name: {{ include "mern.objectName" . }}
  minReplicas: {{ int $autoscaling.minReplicas }}
  maxReplicas: {{ int $autoscaling.maxReplicas }}
  metrics:
    {{- range $resource, $target := dict "cpu" $autoscaling.targetCPUUtilizationPercentage "memory" $autoscaling.targetMemoryUtilizationPercentage }}
    {{- if $target }}
    - type: Resource
      resource:
        name: {{ $resource }}
        target:
          type: Utilization
          averageUtilization: {{ int $target }}
    {{- end }}
    {{- end }}
  {{- with $autoscaling.behavior }}
  behavior:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}

{{- define "mern.pdb" -}}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  {{- include "mern.metadata" . | nindent 2 }}
spec:
  {{- range $name := list "minAvailable" "maxUnavailable" }}
  {{- $value := index $.values.podDisruptionBudget $name }}
  {{- if not (kindIs "invalid" $value) }}
  {{ $name }}: {{ include "mern.intOrPercent" $value }}
  {{- end }}
  {{- end }}
  {{- /* A pod that is broken anyway must not keep a node from being drained. */}}
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels:
      {{- include "mern.selectorLabels" . | nindent 6 }}
{{- end }}
