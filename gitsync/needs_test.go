package gitsync

import (
	"strings"
	"testing"
	"time"
)

// What a workload that stays needs to start pods and to scale stays with it.
func TestNeeds(t *testing.T) {
	workload := mustDecode(t, `
apiVersion: apps/v1
kind: Deployment
metadata: {name: reviews-v1, namespace: ns}
spec:
  template:
    metadata: {labels: {app: reviews, version: v1}}
    spec:
      serviceAccountName: reviews
      imagePullSecrets: [{name: pull}]
      initContainers: [{name: i, env: [{name: A, valueFrom: {configMapKeyRef: {name: init, key: a}}}]}]
      containers:
      - name: configured
        env: [{name: B, valueFrom: {secretKeyRef: {name: key, key: b}}}]
        envFrom: [{configMapRef: {name: env}}, {secretRef: {name: env-secret}}]
      volumes:
      - {name: a, configMap: {name: volume}}
      - {name: b, secret: {secretName: volume-secret}}
      - {name: c, persistentVolumeClaim: {claimName: claim}}
      - {name: d, projected: {sources: [{configMap: {name: projected}}, {secret: {name: projected-secret}}]}}
      - {name: e, csi: {driver: x, nodePublishSecretRef: {name: csi}}}
`)[0].Object
	noonThen := noon.Time
	kept, ok := newKeptWorkload(workload, noonThen)
	if !ok {
		t.Fatal("no workload")
	}
	simple := func(kind, name string) string {
		return "{apiVersion: v1, kind: " + kind + ", metadata: {name: " + name + ", namespace: ns}}"
	}
	scaler := "{apiVersion: autoscaling/v2, kind: HorizontalPodAutoscaler, metadata: {name: h, namespace: ns}, spec: {scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: reviews-v1}}}"
	budget := "{apiVersion: policy/v1, kind: PodDisruptionBudget, metadata: {name: b, namespace: ns}, spec: {selector: {matchLabels: {version: v1}}}}"
	for text, want := range map[string]bool{
		simple("ConfigMap", "init"): true, simple("ConfigMap", "env"): true, simple("ConfigMap", "volume"): true, simple("ConfigMap", "projected"): true,
		simple("Secret", "pull"): true, simple("Secret", "key"): true, simple("Secret", "env-secret"): true, simple("Secret", "volume-secret"): true,
		simple("Secret", "projected-secret"): true, simple("Secret", "csi"): true, simple("ServiceAccount", "reviews"): true,
		simple("PersistentVolumeClaim", "claim"): true, scaler: true, budget: true,
		simple("ConfigMap", "configured"): false, simple("ConfigMap", "key"): false, simple("Secret", "env"): false, simple("Service", "reviews"): false,
		strings.Replace(simple("ConfigMap", "env"), "namespace: ns", "namespace: m", 1): false,
		strings.Replace(scaler, "reviews-v1", "reviews-v2", 1):                          false,
		strings.Replace(budget, "version: v1}", "version: v2}", 1):                      false,
	} {
		object := mustDecode(t, text)[0].Object
		why, until := keepsNeeded([]keptWorkload{kept}, object)
		if (why != "") != want || want && !until.Equal(noonThen) {
			t.Errorf("%s: %q until %s", text, why, until)
		}
	}
	later, _ := newKeptWorkload(workload, noonThen.Add(time.Hour))
	forever, _ := newKeptWorkload(workload, time.Time{})
	shared := mustDecode(t, simple("ConfigMap", "env"))[0].Object
	for _, all := range [][]keptWorkload{{kept, forever, later}, {forever, kept}, {later, forever}} {
		if _, until := keepsNeeded(all, shared); !until.IsZero() {
			t.Errorf("goes at %s, and one that needs it stays", until)
		}
	}
	if _, until := keepsNeeded([]keptWorkload{kept, later}, shared); !until.Equal(later.until) {
		t.Errorf("goes at %s, before %s", until, later.until)
	}
}
