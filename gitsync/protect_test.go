package gitsync

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	v1 "sluice.dev/sluice/api/v1"
)

// Which objects a Rollout's traffic keeps from being pruned, and until when.
func TestKeeps(t *testing.T) {
	rollout := func(text string) *v1.Rollout {
		r := &v1.Rollout{}
		r.Name, r.Namespace = "reviews", "bookinfo"
		if err := yaml.UnmarshalStrict([]byte(text), r); err != nil {
			t.Fatal(err)
		}
		return r
	}
	const (
		head       = "metadata: {name: reviews, namespace: bookinfo}\nspec: {host: reviews, version: v3}\n"
		atRest     = head + "status: {stable: v3, previous: v1, traffic: {weight: 0, stable: {version: v3, subset: v3, labels: {version: v3}}}, history: [{number: 1, from: v1, to: v3, verdict: Promoted, startedAt: \"2026-03-01T11:00:00.000000Z\", finishedAt: \"2026-03-01T11:30:00.000000Z\"}]}"
		unrecorded = head + "status: {stable: v3, previous: v1, since: \"2026-03-01T11:45:00.000000Z\", traffic: {weight: 0, stable: {version: v3, subset: v3}}}"
		midRun     = head + "status: {stable: v1, canary: v3, traffic: {weight: 10, stable: {version: v1, subset: v1}, canary: {version: v3, subset: v3}}}"
		elsewhere  = "metadata: {name: reviews, namespace: bookinfo}\nspec: {host: reviews, version: v3, versions: [{name: v1, destination: {host: reviews-v1}}, {name: v3, destination: {host: v3.partner.com}}]}\n"
		midElse    = elsewhere + "status: {stable: v1, canary: v3, traffic: {weight: 10, stable: {version: v1, subset: \"\", host: reviews-v1}, canary: {version: v3, subset: \"\", host: v3.partner.com}}}"
		afterElse  = elsewhere + "status: {stable: v3, previous: v1, since: \"2026-03-01T11:45:00.000000Z\", traffic: {weight: 0, stable: {version: v3, subset: \"\", host: v3.partner.com}}}"
		reverted   = "metadata: {name: reviews, namespace: bookinfo}\nspec: {host: reviews, version: v1}\nstatus: {stable: v1, traffic: {weight: 0, stable: {version: v1, subset: v1}}, history: [{number: 2, from: v1, to: v3, verdict: Reverted, startedAt: \"2026-03-01T11:00:00.000000Z\", finishedAt: \"2026-03-01T11:59:50.000000Z\"}]}"
		refused    = head + "status: {stable: v1, rejected: {version: v3, reason: GateFailed, at: \"2026-03-01T11:00:00.000000Z\"}, traffic: {weight: 0, stable: {version: v1, subset: v1}}}"
	)
	selecting := &corev1.Service{Spec: corev1.ServiceSpec{Selector: map[string]string{"app": "reviews"}}}
	workload := func(kind, labels string) string {
		return "{apiVersion: apps/v1, kind: " + kind + ", metadata: {name: w}, spec: {template: {metadata: {labels: " + labels + "}}}}"
	}
	of := func(version string) string { return workload("Deployment", "{app: reviews, version: "+version+"}") }
	services := func(one *corev1.Service) map[string]*corev1.Service {
		all := map[string]*corev1.Service{"reviews-v1.bookinfo.svc.cluster.local": {Spec: corev1.ServiceSpec{Selector: map[string]string{"run": "old"}}}}
		if one != nil {
			all["reviews.bookinfo.svc.cluster.local"] = one
		}
		return all
	}
	ends := time.Date(2026, 3, 1, 12, 30, 0, 0, time.UTC)
	for name, tc := range map[string]struct {
		rollout, object string
		service         *corev1.Service
		now             time.Time
		why             string
		until           time.Time
	}{
		"stable":                   {atRest, of("v3"), selecting, noon.Time, "v3 is its stable version", time.Time{}},
		"previous":                 {atRest, of("v1"), selecting, noon.Time, "v1 is its version before, which it keeps until 2026-03-01T12:30:00Z", ends},
		"previous, later":          {atRest, of("v1"), selecting, ends, "", time.Time{}},
		"previous, not kept":       {strings.Replace(atRest, "version: v3}", "version: v3, keepPrevious: 0s}", 1), of("v1"), selecting, noon.Time, "", time.Time{}},
		"previous, kept longer":    {strings.Replace(atRest, "version: v3}", "version: v3, keepPrevious: 2h}", 1), of("v1"), selecting, ends, "v1 is its version before, which it keeps until 2026-03-01T13:30:00Z", ends.Add(time.Hour)},
		"previous, no record":      {unrecorded, of("v1"), selecting, noon.Time, "v1 is its version before, which it keeps until 2026-03-01T12:45:00Z", ends.Add(15 * time.Minute)},
		"no version of it":         {atRest, of("v2"), selecting, noon.Time, "", time.Time{}},
		"another service":          {atRest, workload("Deployment", "{app: ratings, version: v3}"), selecting, noon.Time, "", time.Time{}},
		"no service":               {atRest, workload("Deployment", "{app: ratings, version: v3}"), nil, noon.Time, "v3 is its stable version", time.Time{}},
		"service without selector": {atRest, of("v3"), &corev1.Service{}, noon.Time, "", time.Time{}},
		"canary":                   {midRun, of("v3"), selecting, noon.Time, "v3 is its canary", time.Time{}},
		"stable in mid-run":        {midRun, of("v1"), selecting, noon.Time, "v1 is its stable version", time.Time{}},
		"rejected":                 {refused, of("v3"), selecting, noon.Time, "", time.Time{}},
		"just reverted":            {reverted, of("v3"), selecting, noon.Time, "v3 is what it left a moment ago: proxies hear of it until 2026-03-01T12:00:20Z", noon.Add(20 * time.Second)},
		"reverted before":          {reverted, of("v3"), selecting, noon.Add(20 * time.Second), "", time.Time{}},
		"just returned":            {strings.NewReplacer("from: v1, to: v3, verdict: Reverted", "from: v3, to: v1, verdict: Returned").Replace(reverted), of("v3"), selecting, noon.Time, "v3 is what it left a moment ago: proxies hear of it until 2026-03-01T12:00:20Z", noon.Add(20 * time.Second)},
		"just promoted":            {strings.NewReplacer("from: v1, to: v3, verdict: Reverted", "from: v3, to: v1, verdict: Promoted").Replace(reverted), of("v3"), selecting, noon.Time, "", time.Time{}},
		"not begun, asked for":     {head, of("v3"), nil, noon.Time, "v3 is the version that it is to bring", time.Time{}},
		"not begun, may serve":     {head, of("v1"), selecting, noon.Time, "may be the stable version, which is not known yet,", time.Time{}},
		"not begun, does not":      {head, workload("Deployment", "{app: ratings, version: v1}"), selecting, noon.Time, "", time.Time{}},
		"not begun, initial":       {strings.Replace(head, "version: v3}", "version: v3, initialVersion: v1}", 1), of("v1"), nil, noon.Time, "v1 is its initial version", time.Time{}},
		"StatefulSet":              {atRest, workload("StatefulSet", "{app: reviews, version: v3}"), selecting, noon.Time, "v3 is its stable version", time.Time{}},
		"DaemonSet":                {atRest, workload("DaemonSet", "{app: reviews, version: v3}"), selecting, noon.Time, "v3 is its stable version", time.Time{}},
		"Pod":                      {atRest, "{apiVersion: v1, kind: Pod, metadata: {name: p, labels: {app: reviews, version: v3}}}", selecting, noon.Time, "v3 is its stable version", time.Time{}},
		"WorkloadEntry":            {atRest, "{apiVersion: networking.istio.io/v1, kind: WorkloadEntry, metadata: {name: p, labels: {version: v3}}, spec: {labels: {app: reviews}}}", selecting, noon.Time, "v3 is its stable version", time.Time{}},
		"Job":                      {atRest, "{apiVersion: batch/v1, kind: Job, metadata: {name: p}, spec: {template: {metadata: {labels: {app: reviews, version: v3}}}}}", selecting, noon.Time, "", time.Time{}},
		"another group":            {atRest, strings.Replace(of("v3"), "apps/v1", "example.com/v1", 1), selecting, noon.Time, "", time.Time{}},
		"its Service":              {atRest, "{apiVersion: v1, kind: Service, metadata: {name: reviews, namespace: bookinfo}}", nil, noon.Time, "this is its host", time.Time{}},
		"another Service":          {atRest, "{apiVersion: v1, kind: Service, metadata: {name: ratings}}", nil, noon.Time, "", time.Time{}},
		"its Namespace":            {atRest, "{apiVersion: v1, kind: Namespace, metadata: {name: bookinfo}}", nil, noon.Time, "it is in this namespace", time.Time{}},
		"labels of its own":        {strings.Replace(atRest, "version: v3}", "version: v3, versions: [{name: v3, labels: {build: blue}}]}", 1), workload("Deployment", "{app: reviews, build: blue}"), selecting, noon.Time, "v3 is its stable version", time.Time{}},
		"subset's labels":          {strings.Replace(atRest, "status: {", "status: {subsets: [{name: v1, labels: {build: red}}], ", 1), workload("Deployment", "{app: reviews, build: red}"), selecting, noon.Time, "v1 is its version before, which it keeps until 2026-03-01T12:30:00Z", ends},
		"named workload":           {strings.Replace(atRest, "version: v3}", "version: v3, versions: [{name: v3, workload: {name: w}}]}", 1), workload("Deployment", "{}"), selecting, noon.Time, "v3 is its stable version", time.Time{}},
		"named, of another kind":   {strings.Replace(atRest, "version: v3}", "version: v3, versions: [{name: v3, workload: {name: w, kind: DaemonSet}}]}", 1), workload("Deployment", "{}"), selecting, noon.Time, "", time.Time{}},
		"previous is stable again": {strings.Replace(atRest, "previous: v1", "previous: v3", 1), of("v3"), selecting, noon.Time, "v3 is its stable version", time.Time{}},
		"Service of stable":        {midElse, "{apiVersion: v1, kind: Service, metadata: {name: reviews-v1, namespace: bookinfo}}", nil, noon.Time, "the host of v1, which is its stable version", time.Time{}},
		"Service of previous":      {afterElse, "{apiVersion: v1, kind: Service, metadata: {name: reviews-v1, namespace: bookinfo}}", nil, noon.Time, "the host of v1, which is its version before, which it keeps until 2026-03-01T12:45:00Z", ends.Add(15 * time.Minute)},
		"not listed any more":      {strings.Replace(midElse, "{name: v1, destination: {host: reviews-v1}}, ", "", 1), "{apiVersion: v1, kind: Service, metadata: {name: reviews-v1, namespace: bookinfo}}", nil, noon.Time, "the host of v1, which is its stable version", time.Time{}},
		"of previous, later":       {afterElse, "{apiVersion: v1, kind: Service, metadata: {name: reviews-v1, namespace: bookinfo}}", nil, ends.Add(time.Hour), "", time.Time{}},
		"ServiceEntry of canary":   {midElse, "{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: p, namespace: bookinfo}, spec: {hosts: [other.com, v3.partner.com]}}", nil, noon.Time, "the host of v3, which is its canary", time.Time{}},
		"wildcard ServiceEntry":    {midElse, "{apiVersion: networking.istio.io/v1beta1, kind: ServiceEntry, metadata: {name: p, namespace: bookinfo}, spec: {hosts: [\"*.partner.com\"]}}", nil, noon.Time, "the host of v3, which is its canary", time.Time{}},
		"another ServiceEntry":     {midElse, "{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: p, namespace: bookinfo}, spec: {hosts: [other.com]}}", nil, noon.Time, "", time.Time{}},
		"its ServiceEntry":         {strings.Replace(atRest, "host: reviews", "host: api.partner.com", 1), "{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: p, namespace: bookinfo}, spec: {hosts: [api.partner.com]}}", nil, noon.Time, "this is its host", time.Time{}},
		"pods of stable's Service": {midElse, workload("Deployment", "{run: old}"), selecting, noon.Time, "v1 is its stable version", time.Time{}},
		"not begun, its Service":   {elsewhere, "{apiVersion: v1, kind: Service, metadata: {name: reviews-v1, namespace: bookinfo}}", nil, noon.Time, "may be the host of the stable version, which is not known yet,", time.Time{}},
		"not begun, its pods":      {elsewhere, workload("Deployment", "{run: old}"), selecting, noon.Time, "may be the stable version, which is not known yet,", time.Time{}},
		"pods of no Service":       {midElse, workload("Deployment", "{run: new}"), selecting, noon.Time, "", time.Time{}},
	} {
		object := mustDecode(t, tc.object)[0].Object
		why, until := traffic{rollout: rollout(tc.rollout), services: services(tc.service)}.keeps(object, tc.now)
		if diff := cmp.Diff([]any{tc.why, tc.until}, []any{why, until.UTC()}); diff != "" && (tc.why != why || !tc.until.Equal(until)) {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestPruneOrder(t *testing.T) {
	var stale []v1.InventoryEntry
	for _, m := range mustDecode(t, strings.Join([]string{
		"{apiVersion: v1, kind: Namespace, metadata: {name: ns}}", "{apiVersion: apps/v1, kind: Deployment, metadata: {name: d}}",
		"{apiVersion: sluice.dev/v1, kind: Rollout, metadata: {name: r}}", "{apiVersion: v1, kind: Service, metadata: {name: s}}",
		"{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: r}}", "{apiVersion: v1, kind: ConfigMap, metadata: {name: c}}",
		"{apiVersion: policy/v1, kind: PodDisruptionBudget, metadata: {name: b}}", "{apiVersion: autoscaling/v2, kind: HorizontalPodAutoscaler, metadata: {name: h}}",
		"{apiVersion: networking.istio.io/v1beta1, kind: VirtualService, metadata: {name: r}}",
	}, "\n---\n")) {
		stale = append(stale, entryFor(m.Object))
	}
	rollouts, others := split(stale)
	var kinds []string
	for _, entry := range append(rollouts, others...) {
		kinds = append(kinds, entry.Kind)
	}
	if diff := cmp.Diff([]string{"Rollout", "VirtualService", "DestinationRule", "Deployment", "PodDisruptionBudget", "HorizontalPodAutoscaler", "Service", "ConfigMap", "Namespace"}, kinds); diff != "" {
		t.Error(diff)
	}
	still := mustDecode(t, "{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: r}}")
	if gone := left(others, still); len(gone) != 7 {
		t.Errorf("left the repository: %v; another version of a kind is the same object", gone)
	}
}
