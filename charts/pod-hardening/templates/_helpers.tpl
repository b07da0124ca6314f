{{/*
What templates share. Names are fixed, whatever the release is called: the custom resources are the whole cluster's, so
there can be one installation, and a second one is to fail when Helm finds the first one's objects.
*/}}
{{- define "pod-hardening.webhook" -}}
pod-hardening
{{- end -}}

{{- define "pod-hardening.manager" -}}
pod-hardening-manager
{{- end -}}

{{/* The Secret with the certificate, where it comes from files. */}}
{{- define "pod-hardening.tlsSecret" -}}
{{- if eq .Values.tls.mode "files" -}}
{{ required "tls.files.secretName must name the Secret that tls.mode \"files\" reads" .Values.tls.files.secretName }}
{{- else -}}
{{ include "pod-hardening.webhook" . }}-tls
{{- end -}}
{{- end -}}

{{/* What selects the pods of both Deployments, or, with a component, of one. Never changes: Deployments cannot. */}}
{{- define "pod-hardening.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "pod-hardening.labels" -}}
{{ include "pod-hardening.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "pod-hardening.image" -}}
{{- with .Values.image -}}
{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}{{ with .digest }}@{{ . }}{{ end }}
{{- end -}}
{{- end -}}

{{/*
A Deployment. Takes a list: the chart's scope, the component (the key of its values, and its label), its name, the
arguments of the program, further ports, and volumes, each of which is mounted at / and its name.

All that the profile Hardened would fill in is written out: no webhook is there for these pods.
*/}}
{{- define "pod-hardening.deployment" -}}
{{- $ := index . 0 -}}
{{- $component := index . 1 -}}
{{- $name := index . 2 -}}
{{- $args := index . 3 -}}
{{- $ports := index . 4 -}}
{{- $volumes := index . 5 -}}
{{- $values := index $.Values $component -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ $name }}
  namespace: {{ $.Release.Namespace }}
  labels:
    {{- include "pod-hardening.labels" $ | nindent 4 }}
    app.kubernetes.io/component: {{ $component }}
spec:
  replicas: {{ $values.replicas }}
  revisionHistoryLimit: 3
  minReadySeconds: 5
  strategy:
    type: RollingUpdate
    rollingUpdate:
      # A new pod is ready before an old one goes.
      maxUnavailable: 0
      maxSurge: 1
  selector:
    matchLabels:
      {{- include "pod-hardening.selector" $ | nindent 6 }}
      app.kubernetes.io/component: {{ $component }}
  template:
    metadata:
      {{- with $values.podAnnotations }}
      annotations:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      labels:
        {{- include "pod-hardening.selector" $ | nindent 8 }}
        app.kubernetes.io/component: {{ $component }}
        {{- with mergeOverwrite (dict) $.Values.commonLabels $values.podLabels }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
    spec:
      serviceAccountName: {{ $name }}
      automountServiceAccountToken: true
      enableServiceLinks: false
      {{- with $.Values.image.pullSecrets }}
      imagePullSecrets:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $values.priorityClassName }}
      priorityClassName: {{ . }}
      {{- end }}
      # Above the 10 seconds for which a replica serves on after SIGTERM.
      terminationGracePeriodSeconds: 30
      securityContext:
        runAsNonRoot: true
        runAsUser: 65532
        runAsGroup: 65532
        fsGroup: 65532
        fsGroupChangePolicy: OnRootMismatch
        seccompProfile:
          type: RuntimeDefault
      containers:
      - name: {{ $component }}
        image: {{ include "pod-hardening.image" $ }}
        imagePullPolicy: {{ $.Values.image.pullPolicy }}
        args:
        {{- range concat $args (list
            (printf "--metrics-listen=%s:8080" $.Values.listenAddress)
            (printf "--log-format=%s" $.Values.log.format)
            (printf "--log-level=%s" $.Values.log.level)) $values.extraArgs }}
        - {{ . | quote }}
        {{- end }}
        ports:
        {{- range $ports }}
        - {{ toJson . }}
        {{- end }}
        - {"containerPort":8080,"name":"metrics","protocol":"TCP"}
        # It answers as soon as it runs, whatever becomes of the API server.
        startupProbe:
          httpGet: {path: /livez, port: metrics}
          periodSeconds: 2
          timeoutSeconds: 2
          failureThreshold: 60
        livenessProbe:
          httpGet: {path: /livez, port: metrics}
          periodSeconds: 10
          timeoutSeconds: 2
          failureThreshold: 3
        # A replica that hangs is out of rotation within 5 + 5 + 2 seconds.
        readinessProbe:
          httpGet: {path: /readyz, port: metrics}
          periodSeconds: 5
          timeoutSeconds: 2
          failureThreshold: 2
        {{- with $values.resources }}
        resources:
          {{- toYaml . | nindent 10 }}
        {{- end }}
        securityContext:
          allowPrivilegeEscalation: false
          privileged: false
          readOnlyRootFilesystem: true
          procMount: Default
          capabilities:
            drop: [ALL]
        {{- with $volumes }}
        volumeMounts:
        {{- range . }}
        # As a whole: a file mounted by its subPath never changes.
        - {name: {{ .name }}, mountPath: /{{ .name }}, readOnly: true}
        {{- end }}
        {{- end }}
      {{- with $volumes }}
      volumes:
        {{- toYaml . | nindent 6 }}
      {{- end }}
      topologySpreadConstraints:
      {{- range list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
      - topologyKey: {{ . }}
        maxSkew: 1
        whenUnsatisfiable: ScheduleAnyway
        matchLabelKeys: [pod-template-hash]
        labelSelector:
          matchLabels:
            {{- include "pod-hardening.selector" $ | nindent 12 }}
            app.kubernetes.io/component: {{ $component }}
      {{- end }}
      {{- with $values.nodeSelector }}
      nodeSelector:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $values.tolerations }}
      tolerations:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $values.affinity }}
      affinity:
        {{- toYaml . | nindent 8 }}
      {{- end }}
{{- end -}}

{{/*
Lets a drain take one pod at a time; with one replica there is none, as it would let no drain end. Takes a list: the
chart's scope, the component, its name.
*/}}
{{- define "pod-hardening.disruptionBudget" -}}
{{- $ := index . 0 -}}
{{- $component := index . 1 -}}
{{- if gt (int (index $.Values $component).replicas) 1 -}}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ index . 2 }}
  namespace: {{ $.Release.Namespace }}
  labels:
    {{- include "pod-hardening.labels" $ | nindent 4 }}
    app.kubernetes.io/component: {{ $component }}
spec:
  maxUnavailable: 1
  # A pod that does not work anyway must not hold up a drain.
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels:
      {{- include "pod-hardening.selector" $ | nindent 6 }}
      app.kubernetes.io/component: {{ $component }}
{{- end -}}
{{- end -}}

{{/*
A ServiceAccount. Its token is mounted only where a pod asks for it. Takes a list: the chart's scope, the component, its
name.
*/}}
{{- define "pod-hardening.serviceAccount" -}}
{{- $ := index . 0 -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ index . 2 }}
  namespace: {{ $.Release.Namespace }}
  labels:
    {{- include "pod-hardening.labels" $ | nindent 4 }}
    app.kubernetes.io/component: {{ index . 1 }}
automountServiceAccountToken: false
{{- end -}}

{{/*
Gives a ServiceAccount the rights of the ClusterRole, or the Role, of its own name. Takes a list: the chart's scope, the
component, its name, and "ClusterRole" or "Role".
*/}}
{{- define "pod-hardening.binding" -}}
{{- $ := index . 0 -}}
{{- $kind := index . 3 -}}
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ $kind }}Binding
metadata:
  name: {{ index . 2 }}
  {{- if eq $kind "Role" }}
  namespace: {{ $.Release.Namespace }}
  {{- end }}
  labels:
    {{- include "pod-hardening.labels" $ | nindent 4 }}
    app.kubernetes.io/component: {{ index . 1 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: {{ $kind }}
  name: {{ index . 2 }}
subjects:
- kind: ServiceAccount
  name: {{ index . 2 }}
  namespace: {{ $.Release.Namespace }}
{{- end -}}
