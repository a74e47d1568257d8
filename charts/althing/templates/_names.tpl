{{/* One name for everything of the operator: nodes let pods in by this label. */}}
{{- define "althing.name" -}}althing-operator{{- end }}

{{- define "althing.selector" -}}
app.kubernetes.io/name: {{ include "althing.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "althing.labels" -}}
{{ include "althing.selector" . }}
app.kubernetes.io/component: operator
app.kubernetes.io/part-of: althing
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{/* Cluster-scoped names carry the namespace, so that two installations do not share them. */}}
{{- define "althing.clusterName" -}}{{ include "althing.name" . }}-{{ .Release.Namespace }}{{- end }}

{{/* Rights in a namespace with networks, Secrets left out. */}}
{{- define "althing.namespaceRules" -}}
- apiGroups: [althing.dev]
  resources: [blockchainnetworks]
  verbs: [get, list, watch]
- apiGroups: [althing.dev]
  resources: [consensusgroups, validatornodes]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [althing.dev]
  resources: [blockchainnetworks/status, consensusgroups/status, validatornodes/status]
  verbs: [update]
- apiGroups: [althing.dev]
  resources: [blockchainnetworks/finalizers, consensusgroups/finalizers, validatornodes/finalizers]
  verbs: [update]
- apiGroups: [apps]
  resources: [statefulsets, deployments]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [autoscaling]
  resources: [horizontalpodautoscalers]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [services, configmaps, serviceaccounts]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [persistentvolumeclaims]
  verbs: [get, list, watch, create, patch]
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies, ingresses]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [gateway.networking.k8s.io]
  resources: [tlsroutes]
  verbs: [get, list, watch, create, patch, delete]
{{- if .Values.certManager.enabled }}
- apiGroups: [cert-manager.io]
  resources: [certificaterequests]
  verbs: [get, create, delete]
{{- end }}
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch, patch]
- apiGroups: [""]
  resources: [pods/eviction]
  verbs: [create]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end }}

{{/* Secrets are read by name and never deleted; those made once outlive their network. */}}
{{- define "althing.secretRules" -}}
- apiGroups: [""]
  resources: [secrets]
  verbs: [get, create, patch]
{{- end }}
