{{/*
The numbers by which pods are replaced, computed together, as JSON.

The load balancer learns of a change with a delay: `propagation` until it stops sending to a pod that is
to go, then `drain` for the requests under way. For zero downtime a pod therefore stays up for both
before it is told to stop, and is killed no sooner than after its own shutdown. New pods come before old
ones go. Without a load balancer, five seconds cover the delay of the cluster's own Services.

A rollout takes the time of one batch, start and load balancer's health checks, for each batch; whoever
waits for it, as Helm does, has to wait that long.
*/}}
{{- define "mern.rollout" -}}
{{- $ingress := .root.Values.ingress -}}
{{- $zero := and $ingress.enabled $ingress.zeroDowntime.enabled -}}
{{- $leastSleep := 5 -}}
{{- if $zero -}}
{{- $leastSleep = add $ingress.zeroDowntime.propagationSeconds $ingress.zeroDowntime.drainSeconds -}}
{{- end -}}
{{- $termination := .values.termination -}}
{{- $sleep := $leastSleep -}}
{{- if not (kindIs "invalid" $termination.preStopSleepSeconds) -}}
{{- $sleep = int $termination.preStopSleepSeconds -}}
{{- end -}}
{{- $leastGrace := add $sleep $termination.shutdownSeconds -}}
{{- $grace := $leastGrace -}}
{{- if not (kindIs "invalid" $termination.gracePeriodSeconds) -}}
{{- $grace = int $termination.gracePeriodSeconds -}}
{{- end -}}

{{- $most := include "mern.replicas" (dict "values" .values "bound" "maxReplicas") | int -}}
{{- $surge := include "mern.share" (dict "of" $most "value" .values.rollingUpdate.maxSurge) | int | max 1 -}}
{{- $probes := .values.probes -}}
{{- $check := merge (dict) .values.service.healthCheck $ingress.healthCheck -}}
{{- $start := add (mul $probes.startup.periodSeconds $probes.startup.failureThreshold) $probes.readiness.periodSeconds -}}
{{- $batch := $start -}}
{{- if $ingress.enabled -}}
{{- $batch = add $start (mul $check.intervalSeconds $check.healthyThreshold) -}}
{{- end -}}
{{- $leastTimeout := mul (ceil (divf $most $surge)) $batch -}}

{{- dict "zeroDowntime" $zero "leastSleep" $leastSleep "sleep" $sleep "leastGrace" $leastGrace "grace" $grace
      "leastTimeout" $leastTimeout | toJson -}}
{{- end }}

{{/*
How many pods there are at the given bound: `minReplicas` or `maxReplicas`.
*/}}
{{- define "mern.replicas" -}}
{{- if .values.autoscaling.enabled -}}
{{- get .values.autoscaling .bound | int -}}
{{- else -}}
{{- int .values.replicas -}}
{{- end -}}
{{- end }}

{{/*
A number of pods that may be given as a percentage, rounded up.
*/}}
{{- define "mern.share" -}}
{{- if kindIs "string" .value -}}
{{- divf (mulf .of (trimSuffix "%" .value | float64)) 100 | ceil | int -}}
{{- else -}}
{{- int .value -}}
{{- end -}}
{{- end }}

{{- define "mern.intOrPercent" -}}
{{- if kindIs "string" . }}{{ quote . }}{{ else }}{{ int . }}{{ end -}}
{{- end }}
