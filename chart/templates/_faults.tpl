{{/*
What the schema cannot say, one sentence per fault, all faults together. No sentence quotes a secret.
*/}}
{{- define "mern.faults" -}}
{{- range $key, $name := dict "mernClient" "client" "mernServer" "server" }}
{{- $part := dict "root" $ "name" $name "key" $key "values" (get $.Values $key) }}
{{- include "mern.podFaults" $part }}
{{- include "mern.autoscalingFaults" $part }}
{{- include "mern.rolloutFaults" $part }}
{{- include "mern.serviceFaults" $part }}
{{- end }}
{{- include "mern.podFaults" (dict "root" $ "key" "pythonScript" "values" .Values.pythonScript) }}
{{- range $key := list "mernServer" "pythonScript" }}
{{- include "mern.secretFaults" (dict "key" $key "values" (get $.Values $key)) }}
{{- end }}
{{- include "mern.awsFaults" .Values.pythonScript }}
{{- include "mern.ingressFaults" . }}
{{- end }}

{{- define "mern.podFaults" -}}
{{- $key := .key }}
{{- if and .values.image.tag .values.image.digest }}
- {{ $key }}.image has a tag and a digest: the digest would win and the tag would lie. Give one of them.
{{- end }}

{{- range $resource, $request := .values.resources.requests }}
{{- if hasKey $.values.resources.limits $resource }}
{{- $limit := get $.values.resources.limits $resource }}
{{- if gt (include "mern.quantity" $request | float64) (include "mern.quantity" $limit | float64) }}
- {{ $key }}.resources.requests.{{ $resource }} ({{ $request }}) is above the limit ({{ $limit }}).
{{- end }}
{{- end }}
{{- end }}

{{- /* Names that have a source already, each with where it comes from. */}}
{{- $taken := dict }}
{{- if hasKey .values "awsRegion" }}
{{- $taken = dict "AWS_REGION" "awsRegion" "AWS_DEFAULT_REGION" "awsRegion" "AWS_ACCESS_KEY_ID" "awsAccessKeyId" "AWS_SECRET_ACCESS_KEY" "awsSecretAccessKey" }}
{{- end }}
{{- if hasKey .values "mongodbUri" }}
{{- $_ := set $taken "MONGODB_URI" "mongodbUri" }}
{{- end }}
{{- range $name, $_ := .values.secrets }}
{{- $source := get $taken $name }}
{{- if $source }}
- {{ $key }}.secrets.{{ $name }} is what {{ $key }}.{{ $source }} is for: remove it from {{ $key }}.secrets.
{{- else }}
{{- $_ := set $taken $name "secrets" }}
{{- end }}
{{- end }}
{{- range $name, $_ := .values.env }}
{{- $source := get $taken $name }}
{{- if $source }}
- {{ $key }}.env.{{ $name }} is what {{ $key }}.{{ $source }} is for: remove it from {{ $key }}.env.
{{- else }}
{{- $_ := set $taken $name "env" }}
{{- end }}
{{- end }}
{{- range .values.extraEnv }}
{{- $source := get $taken .name }}
{{- if $source }}
- {{ $key }}.extraEnv sets {{ .name }}, which {{ $key }}.{{ $source }} is for or sets already.
{{- else }}
{{- $_ := set $taken .name "extraEnv" }}
{{- end }}
{{- end }}

{{- $volumes := dict }}
{{- range .values.volumes }}
{{- if hasKey $volumes .name }}
- {{ $key }}.volumes has two named {{ .name }}.
{{- end }}
{{- $_ := set $volumes .name true }}
{{- end }}
{{- $paths := dict }}
{{- range .values.volumeMounts }}
{{- if not (hasKey $volumes .name) }}
- {{ $key }}.volumeMounts mounts {{ .name }}, which is not in {{ $key }}.volumes.
{{- end }}
{{- if hasKey $paths .mountPath }}
- {{ $key }}.volumeMounts has two at {{ .mountPath }}.
{{- end }}
{{- $_ := set $paths .mountPath true }}
{{- end }}

{{- range $number, $toleration := .values.tolerations }}
{{- $exists := eq ($toleration.operator | default "Equal") "Exists" }}
{{- if not (or $toleration.key $exists) }}
- {{ $key }}.tolerations[{{ $number }}] has no key: only operator Exists goes without.
{{- end }}
{{- if and $toleration.value $exists }}
- {{ $key }}.tolerations[{{ $number }}] has a value, and operator Exists that takes none.
{{- end }}
{{- if and (hasKey $toleration "tolerationSeconds") (ne ($toleration.effect | default "") "NoExecute") }}
- {{ $key }}.tolerations[{{ $number }}] has tolerationSeconds, which goes with effect NoExecute only.
{{- end }}
{{- end }}

{{- with .values.networkPolicy }}
{{- if and .egress (not .restrictEgress) }}
- {{ $key }}.networkPolicy.egress has rules, but everything is allowed while {{ $key }}.networkPolicy.restrictEgress is off.
{{- end }}
{{- end }}
{{- end }}

{{- define "mern.autoscalingFaults" -}}
{{- $key := .key }}
{{- $resources := .values.resources }}
{{- with .values.autoscaling }}
{{- if .enabled }}
{{- if gt (int .minReplicas) (int .maxReplicas) }}
- {{ $key }}.autoscaling.minReplicas ({{ .minReplicas }}) is above maxReplicas ({{ .maxReplicas }}).
{{- end }}
{{- if not (or .targetCPUUtilizationPercentage .targetMemoryUtilizationPercentage) }}
- {{ $key }}.autoscaling has nothing to go by: give targetCPUUtilizationPercentage, targetMemoryUtilizationPercentage or both.
{{- end }}
{{- range $resource, $target := dict "cpu" .targetCPUUtilizationPercentage "memory" .targetMemoryUtilizationPercentage }}
{{- if and $target (not (or (get $resources.requests $resource) (get $resources.limits $resource))) }}
- {{ $key }}.autoscaling aims at a percentage of the {{ $resource }} request, and there is none: give {{ $key }}.resources.requests.{{ $resource }}.
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "mern.rolloutFaults" -}}
{{- $key := .key }}
{{- $rollout := include "mern.rollout" . | fromJson }}
{{- $replicas := include "mern.replicas" (dict "values" .values "bound" "minReplicas") | int }}
{{- $unavailable := .values.rollingUpdate.maxUnavailable | toString | trimSuffix "%" }}
{{- $surge := .values.rollingUpdate.maxSurge | toString | trimSuffix "%" }}
{{- if $rollout.zeroDowntime }}
{{- if lt (int $rollout.sleep) (int $rollout.leastSleep) }}
- {{ $key }}.termination.preStopSleepSeconds ({{ $rollout.sleep }}) is below the {{ $rollout.leastSleep }} that ingress.zeroDowntime needs: propagationSeconds + drainSeconds.
{{- end }}
{{- if ne $unavailable "0" }}
- {{ $key }}.rollingUpdate.maxUnavailable has to be 0 for ingress.zeroDowntime: a new pod comes before an old one goes.
{{- end }}
{{- end }}
{{- if and (eq $surge "0") (or $rollout.zeroDowntime (eq $unavailable "0")) }}
- {{ $key }}.rollingUpdate.maxSurge has to be at least 1: with no pod more and no pod less, nothing could be replaced.
{{- end }}
{{- if lt (int $rollout.grace) (int $rollout.leastGrace) }}
- {{ $key }}.termination.gracePeriodSeconds ({{ $rollout.grace }}) is below {{ $rollout.leastGrace }}, the sleep before the stop plus shutdownSeconds: the pod would be killed at work.
{{- end }}

{{- with .values.podDisruptionBudget }}
{{- $most := .maxUnavailable }}
{{- $least := .minAvailable }}
{{- if and $rollout.zeroDowntime (not (and .enabled (kindIs "invalid" $least) (eq (toString $most) "1"))) }}
- {{ $key }}.podDisruptionBudget has to be enabled with maxUnavailable 1 and no minAvailable for ingress.zeroDowntime.
{{- else if .enabled }}
{{- if eq (kindIs "invalid" $most) (kindIs "invalid" $least) }}
- {{ $key }}.podDisruptionBudget takes one of maxUnavailable and minAvailable; set the other to null.
{{- else if and (not (kindIs "invalid" $most)) (eq (toString $most | trimSuffix "%") "0") }}
- {{ $key }}.podDisruptionBudget.maxUnavailable forbids every eviction: no node could be drained.
{{- else if and (not (kindIs "invalid" $least)) (gt $replicas 0) (ge (include "mern.share" (dict "of" $replicas "value" $least) | int) $replicas) }}
- {{ $key }}.podDisruptionBudget.minAvailable ({{ $least }}) forbids every eviction at {{ $replicas }} pods: no node could be drained.
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "mern.serviceFaults" -}}
{{- $ingress := .root.Values.ingress }}
{{- $own := include "mern.ownAnnotations" . | fromJsonArray }}
{{- range $name, $_ := .values.service.annotations }}
{{- if has $name $own }}
- {{ $.key }}.service.annotations sets {{ $name }}: use {{ $.key }}.service.healthCheck, or the values of ingress.
{{- end }}
{{- end }}
{{- $check := merge (dict) (.values.service.healthCheck | default dict) $ingress.healthCheck }}
{{- if and .values.service.healthCheck (ge (int $check.timeoutSeconds) (int $check.intervalSeconds)) }}
- {{ .key }}.service.healthCheck: timeoutSeconds ({{ $check.timeoutSeconds }}) has to be below intervalSeconds ({{ $check.intervalSeconds }}).
{{- end }}
{{- end }}

{{- define "mern.secretFaults" -}}
{{- $key := .key }}
{{- with .values }}
{{- if .existingSecret }}
{{- if or .mongodbUri .secrets .awsAccessKeyId .awsSecretAccessKey }}
- {{ $key }}.existingSecret names a Secret that somebody else fills, yet credentials are given as values: remove one or the other.
{{- end }}
{{- else if .existingSecretChecksum }}
- {{ $key }}.existingSecretChecksum is of no Secret: {{ $key }}.existingSecret is empty.
{{- else if not .mongodbUri }}
- {{ $key }}.mongodbUri is missing. Credentials have no default: give it with the deployment, or name a Secret by {{ $key }}.existingSecret.
{{- else if not (regexMatch "^mongodb(\\+srv)?://\\S+$" .mongodbUri) }}
- {{ $key }}.mongodbUri is no MongoDB connection string: it starts with mongodb:// or mongodb+srv:// and holds no blank or line break.
{{- end }}
{{- end }}
{{- end }}

{{- define "mern.awsFaults" -}}
{{- if ne (empty .awsAccessKeyId) (empty .awsSecretAccessKey) }}
- pythonScript.awsAccessKeyId and pythonScript.awsSecretAccessKey belong together: give both, or neither where the script has a role.
{{- end }}
{{- if and .awsAccessKeyId (hasKey (.serviceAccount.annotations | default dict) "eks.amazonaws.com/role-arn") }}
- pythonScript has an access key and a role: the key would win and the role would do nothing. Remove one of them.
{{- end }}
{{- end }}

{{- define "mern.ingressFaults" -}}
{{- $own := include "mern.ownAnnotations" . | fromJsonArray }}
{{- with .Values.ingress }}
{{- range $name, $_ := .annotations }}
{{- if has $name $own }}
- ingress.annotations sets {{ $name }}, which the chart composes from the other values of ingress: use those.
{{- end }}
{{- end }}
{{- if ge (int .healthCheck.timeoutSeconds) (int .healthCheck.intervalSeconds) }}
- ingress.healthCheck.timeoutSeconds ({{ .healthCheck.timeoutSeconds }}) has to be below intervalSeconds ({{ .healthCheck.intervalSeconds }}).
{{- end }}
{{- if and .enabled .tls.enabled (not .tls.certificateArns) (not .hosts) }}
- ingress.tls needs ingress.tls.certificateArns, or ingress.hosts by which the controller finds the certificates.
{{- end }}
{{- if and (not (kindIs "invalid" .group.order)) (not .group.name) }}
- ingress.group.order orders the Ingresses of a group: give ingress.group.name too.
{{- end }}
{{- if and .enabled .zeroDowntime.enabled }}
{{- if ne .targetType "ip" }}
- ingress.zeroDowntime needs ingress.targetType ip: only then does the load balancer know the pods it sends to.
{{- end }}
{{- $delay := get (.targetGroupAttributes | default dict) "deregistration_delay.timeout_seconds" }}
{{- if and $delay (ne $delay (int .zeroDowntime.drainSeconds | toString)) }}
- ingress.targetGroupAttributes sets deregistration_delay.timeout_seconds to {{ $delay }}, which ingress.zeroDowntime.drainSeconds ({{ .zeroDowntime.drainSeconds }}) is for.
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/*
A quantity as a plain number, to compare two of them.
*/}}
{{- define "mern.quantity" -}}
{{- $factors := dict "" 1 "m" 0.001 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "P" 1e15 "E" 1e18
      "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 "Pi" 1125899906842624 "Ei" 1152921504606846976 -}}
{{- if kindIs "string" . -}}
{{- mulf (regexFind "^[0-9.]+" . | float64) (get $factors (regexReplaceAll "^[0-9.]+" . "")) -}}
{{- else -}}
{{- . -}}
{{- end -}}
{{- end }}
