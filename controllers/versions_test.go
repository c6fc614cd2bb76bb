package controllers

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v1 "sluice.dev/sluice/api/v1"
	"sluice.dev/sluice/internal/pipeline"
)

func rolloutOf(spec v1.RolloutSpec) *v1.Rollout {
	r := &v1.Rollout{Spec: spec}
	r.Name, r.Namespace, r.UID = "reviews", "bookinfo", "uid"
	if r.Spec.Host == "" {
		r.Spec.Host = "reviews"
	}
	return r
}

func labelled(pairs ...string) map[string]string {
	set := map[string]string{}
	for i := 0; i < len(pairs); i += 2 {
		set[pairs[i]] = pairs[i+1]
	}
	return set
}

func TestResolveSubset(t *testing.T) {
	serving := func(subset string, added bool) v1.RolloutStatus {
		return v1.RolloutStatus{
			Traffic: &v1.Traffic{Stable: v1.Target{Version: "v1", Subset: subset, Labels: labelled("version", "v1")}},
			Subsets: []v1.Subset{{Name: subset, Labels: labelled("version", "v1"), Added: added}},
		}
	}
	cases := map[string]struct {
		listed     []v1.Version
		status     v1.RolloutStatus
		found      []v1.Subset
		version    string
		wantSubset string
		wantLabels map[string]string
	}{
		"by name": {version: "v3", wantSubset: "v3", wantLabels: labelled("version", "v3")},
		"labels of the found subset": {
			found: []v1.Subset{{Name: "v3", Labels: labelled("release", "c")}}, version: "v3",
			wantSubset: "v3", wantLabels: labelled("release", "c"),
		},
		"listed labels beat found ones": {
			listed: []v1.Version{{Name: "v3", Labels: labelled("version", "three")}},
			found:  []v1.Subset{{Name: "v3", Labels: labelled("release", "c")}}, version: "v3",
			wantSubset: "v3", wantLabels: labelled("version", "three"),
		},
		"listed subset": {
			listed: []v1.Version{{Name: "v3", Subset: "canary"}}, version: "v3",
			wantSubset: "canary", wantLabels: labelled("version", "v3"),
		},
		"the only found subset of the version": {
			found: []v1.Subset{{Name: "production", Labels: labelled("version", "v1")}}, version: "v1",
			wantSubset: "production", wantLabels: labelled("version", "v1"),
		},
		"two found subsets of the version": {
			found:   []v1.Subset{{Name: "a", Labels: labelled("version", "v1")}, {Name: "b", Labels: labelled("version", "v1")}},
			version: "v1", wantSubset: "v1", wantLabels: labelled("version", "v1"),
		},
		"what serves keeps its name": {
			status:  serving("production", false),
			found:   []v1.Subset{{Name: "production", Labels: labelled("version", "v1")}, {Name: "v1", Labels: labelled("x", "y")}},
			version: "v1", wantSubset: "production", wantLabels: labelled("version", "v1"),
		},
		"an edit of a subset that Sluice added is not taken over": {
			status: serving("v1", true), found: []v1.Subset{{Name: "v1", Labels: labelled("version", "other")}},
			version: "v1", wantSubset: "v1", wantLabels: labelled("version", "v1"),
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			rollout := rolloutOf(v1.RolloutSpec{Versions: tc.listed})
			rollout.Status = tc.status
			subset, set := resolveSubset(rollout, tc.version, tc.found)
			if subset != tc.wantSubset {
				t.Errorf("subset %q, want %q", subset, tc.wantSubset)
			}
			if diff := cmp.Diff(tc.wantLabels, set); diff != "" {
				t.Errorf("labels (-want +got):\n%s", diff)
			}
		})
	}
}

func deploymentOf(name string, generation, observed int64, ready int32, set map[string]string) *appsv1.Deployment {
	d := &appsv1.Deployment{}
	d.Name, d.Generation = name, generation
	d.Spec.Template.Labels = set
	d.Status.ObservedGeneration, d.Status.ReadyReplicas = observed, ready
	return d
}

func TestDeploymentAvailability(t *testing.T) {
	set := labelled("app", "reviews")
	unavailable := deploymentOf("d", 1, 1, 1, set)
	unavailable.Status.Conditions = []appsv1.DeploymentCondition{{Type: appsv1.DeploymentAvailable, Status: corev1.ConditionFalse}}
	updating := deploymentOf("d", 2, 2, 1, set)
	updating.Status.Replicas, updating.Status.UpdatedReplicas = 2, 1
	cases := map[string]struct {
		deployment *appsv1.Deployment
		want       bool
	}{
		"ready at its generation":                  {deploymentOf("d", 2, 2, 1, set), true},
		"not yet at its generation":                {deploymentOf("d", 2, 1, 1, set), false},
		"nothing ready":                            {deploymentOf("d", 2, 2, 0, set), false},
		"fewer than it needs":                      {unavailable, false},
		"the old pods are the ones that are ready": {updating, false},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if got := deployment(tc.deployment).available; got != tc.want {
				t.Errorf("available %v, want %v", got, tc.want)
			}
		})
	}
}

// While a workload is updated, its ready replicas may be those of the old template.
func TestOldPodsDoNotMakeAnUpdateAvailable(t *testing.T) {
	for name, tc := range map[string]struct{ updated, want bool }{"all are new": {true, true}, "one is old": {false, false}} {
		t.Run(name, func(t *testing.T) {
			updated := int32(2)
			if !tc.updated {
				updated = 1
			}
			set := &appsv1.StatefulSet{Status: appsv1.StatefulSetStatus{ReadyReplicas: 1, Replicas: 2, UpdatedReplicas: updated}}
			daemons := &appsv1.DaemonSet{Status: appsv1.DaemonSetStatus{NumberReady: 1, CurrentNumberScheduled: 2, UpdatedNumberScheduled: updated}}
			for _, w := range []workload{statefulSet(set), daemonSet(daemons)} {
				if w.available != tc.want || w.ready != 1 {
					t.Errorf("%s: available %v, %d ready; want %v, 1 ready", w.kind, w.available, w.ready, tc.want)
				}
			}
		})
	}
}

func TestRevisionFollowsTheTemplateOnly(t *testing.T) {
	a := deployment(deploymentOf("a", 1, 1, 1, labelled("version", "v1")))
	scaled := deployment(deploymentOf("a", 2, 2, 5, labelled("version", "v1")))
	changed := deploymentOf("a", 1, 1, 1, labelled("version", "v1"))
	changed.Spec.Template.Spec.Containers = []corev1.Container{{Image: "reviews:v1.1"}}
	b := deployment(changed)
	if a.revision() != scaled.revision() {
		t.Error("scaling changed the revision")
	}
	if a.revision() == b.revision() {
		t.Error("another image did not change the revision")
	}
}

func TestObserveVersions(t *testing.T) {
	rollout := rolloutOf(v1.RolloutSpec{Version: "v3"})
	rollout.Status.Stable = "v1"
	s := &sight{place: place{
		workloads: []workload{deployment(deploymentOf("reviews-v3", 1, 1, 0, labelled("app", "reviews", "version", "v3")))},
		endpoints: []endpoint{
			{"pod a", labelled("app", "reviews", "version", "v1"), true}, {"pod b", labelled("app", "reviews", "version", "v1"), true},
		},
	}}
	got, serving := observeVersions(rollout, s, nil)
	if serving != nil {
		t.Errorf("serving %v although stable is known", serving)
	}
	v3 := got["v3"]
	if !v3.Found || v3.Available || v3.Workload != "reviews-v3" || v3.Revision == "" {
		t.Errorf("v3 is %+v; a workload without a ready replica is found and not available", v3)
	}
	want := pipeline.Version{Found: true, Available: true, Ready: 2, Labels: labelled("version", "v1"), Subset: "v1"}
	if diff := cmp.Diff(want, got["v1"]); diff != "" {
		t.Errorf("v1 by its endpoints (-want +got):\n%s", diff)
	}
}

// serviceOf selects the pods of an app.
func serviceOf(app string) *corev1.Service {
	return &corev1.Service{Spec: corev1.ServiceSpec{Selector: labelled("app", app)}}
}

func TestReadinessComesFromWorkloadsAndEndpoints(t *testing.T) {
	set := labelled("app", "reviews", "version", "v3")
	ready := func(name string, replicas int32) workload { return deployment(deploymentOf(name, 1, 1, replicas, set)) }
	pod := endpoint{"pod a", set, true}
	for name, tc := range map[string]struct {
		sight sight
		want  pipeline.Version
	}{
		"the second of two workloads is the ready one": {
			sight{place: place{service: serviceOf("reviews"), workloads: []workload{ready("blue", 0), ready("green", 1)}, endpoints: []endpoint{pod}}},
			pipeline.Version{Found: true, Available: true, Ready: 1, Workload: "green"},
		},
		"more endpoints than the workload knows of": {
			sight{place: place{service: serviceOf("reviews"), workloads: []workload{ready("blue", 1)}, endpoints: []endpoint{pod, pod}}},
			pipeline.Version{Found: true, Available: true, Ready: 2, Workload: "blue"},
		},
		"no endpoint of the Service": {
			sight{place: place{service: serviceOf("reviews"), workloads: []workload{ready("blue", 1)}}},
			pipeline.Version{Found: true, Ready: 1, Workload: "blue"},
		},
		"an endpoint without the version's labels": {
			sight{place: place{service: serviceOf("reviews"), workloads: []workload{ready("blue", 1)}, endpoints: []endpoint{{"pod a", labelled("app", "reviews"), true}}}},
			pipeline.Version{Found: true, Ready: 1, Workload: "blue"},
		},
		"an endpoint that is not ready": {
			sight{place: place{service: serviceOf("reviews"), workloads: []workload{ready("blue", 1)}, endpoints: []endpoint{{"pod a", set, false}}}},
			pipeline.Version{Found: true, Ready: 1, Workload: "blue"},
		},
		"a Service without a selector": {
			sight{place: place{service: &corev1.Service{}, workloads: []workload{ready("blue", 1)}}},
			pipeline.Version{Found: true, Available: true, Ready: 1, Workload: "blue"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got := tc.sight.version(rolloutOf(v1.RolloutSpec{}), "v3", nil)
			got.Revision, got.Labels, got.Subset = "", nil, ""
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// Two workloads of a version: a run does not leave the one that it began with because the other becomes ready too.
func TestTheKnownWorkloadIsPreferred(t *testing.T) {
	set := labelled("app", "reviews", "version", "v3")
	green := deploymentOf("green", 1, 1, 1, set)
	green.Spec.Template.Spec.Containers = []corev1.Container{{Image: "reviews:v3.1"}}
	known := deployment(green)
	rollout := rolloutOf(v1.RolloutSpec{Version: "v3"})
	rollout.Status.Run = &v1.Run{To: "v3", Revision: known.revision()}
	for ready, want := range map[int32]string{0: "blue", 1: "green"} {
		green.Status.ReadyReplicas = ready
		s := &sight{place: place{workloads: []workload{deployment(deploymentOf("blue", 1, 1, 1, set)), deployment(green)}}}
		if got := s.version(rollout, "v3", nil).Workload; got != want {
			t.Errorf("with %d ready replicas of green the workload is %s, want %s", ready, got, want)
		}
	}
}

func TestServing(t *testing.T) {
	cases := map[string]struct {
		endpoints []endpoint
		listed    []v1.Version
		want      []string
	}{
		"nothing ready":         {want: nil},
		"one version":           {endpoints: []endpoint{{"pod a", labelled("version", "v1"), true}, {"pod b", labelled("version", "v1"), true}}, want: []string{"v1"}},
		"two versions":          {endpoints: []endpoint{{"pod a", labelled("version", "v2"), true}, {"pod b", labelled("version", "v1"), true}}, want: []string{"v1", "v2"}},
		"by the listed labels":  {endpoints: []endpoint{{"pod a", labelled("release", "old"), true}}, listed: []v1.Version{{Name: "v1", Labels: labelled("release", "old")}}, want: []string{"v1"}},
		"of no version at all":  {endpoints: []endpoint{{"pod a", labelled("app", "x"), true}}, want: []string{"none", "none (pod a has no label version)"}},
		"a version and no name": {endpoints: []endpoint{{"pod a", labelled("app", "x"), true}, {"pod b", labelled("version", "v1"), true}}, want: []string{"none", "none (pod a has no label version)", "v1"}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			rollout := rolloutOf(v1.RolloutSpec{Version: "v3", Versions: tc.listed})
			versions, serving := observeVersions(rollout, &sight{place: place{endpoints: tc.endpoints}}, nil)
			if diff := cmp.Diff(tc.want, serving); diff != "" {
				t.Errorf("serving (-want +got):\n%s", diff)
			}
			for _, v := range serving {
				if _, ok := versions[v]; !ok {
					t.Errorf("version %s serves and was not observed", v)
				}
			}
		})
	}
}

// A restart of all pods at once is not the same as a host that nobody serves: discovery would give it to an ungated version.
func TestUnready(t *testing.T) {
	ready, unready := endpoint{"pod a", labelled("version", "v1"), true}, endpoint{"pod b", labelled("version", "v1"), false}
	for name, tc := range map[string]struct {
		endpoints []endpoint
		want      bool
	}{
		"no endpoints at all": {nil, false},
		"none is ready":       {[]endpoint{unready}, true},
		"one is ready":        {[]endpoint{unready, ready}, false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := (&sight{place: place{endpoints: tc.endpoints}}).unready(); got != tc.want {
				t.Errorf("unready %v, want %v", got, tc.want)
			}
		})
	}
}

func TestPodsThatAreEndpoints(t *testing.T) {
	pod := func(phase corev1.PodPhase, ready corev1.ConditionStatus) *corev1.Pod {
		return &corev1.Pod{Status: corev1.PodStatus{Phase: phase, Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: ready}}}}
	}
	goes := pod(corev1.PodRunning, corev1.ConditionTrue)
	now := metav1.NewTime(start)
	goes.DeletionTimestamp = &now
	for name, tc := range map[string]struct {
		pod          *corev1.Pod
		lives, ready bool
	}{
		"ready":         {pod(corev1.PodRunning, corev1.ConditionTrue), true, true},
		"not ready yet": {pod(corev1.PodPending, corev1.ConditionFalse), true, false},
		"evicted":       {pod(corev1.PodFailed, corev1.ConditionFalse), false, false},
		"over":          {pod(corev1.PodSucceeded, corev1.ConditionFalse), false, false},
		"goes":          {goes, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			trimmed, err := trimPod(tc.pod)
			if err != nil {
				t.Fatal(err)
			}
			kept, ok := trimmed.(*corev1.Pod)
			if !ok || podLives(kept) != tc.lives || podReady(kept) != tc.ready {
				t.Errorf("lives %v, ready %v; want %v, %v", podLives(kept), podReady(kept), tc.lives, tc.ready)
			}
		})
	}
}

func TestOverlaps(t *testing.T) {
	versions := map[string]pipeline.Version{
		"v1": {Labels: labelled("version", "v1")},
		"v2": {Labels: labelled("version", "v2"), Workload: "shared"},
		"v3": {Labels: labelled("version", "v3"), Workload: "shared"},
		"v4": {Labels: labelled("version", "v1", "track", "canary")},
		"v5": {Labels: labelled("version", "v5")},
	}
	noteOverlaps(versions)
	want := map[string]string{"v1": "v4", "v2": "v3", "v3": "v2", "v4": "v1", "v5": ""}
	for name, other := range want {
		if got := versions[name].Overlaps; got != other {
			t.Errorf("%s overlaps %q, want %q", name, got, other)
		}
	}
}

// Alone is a stable version that serves, and beside which nothing else is ready.
func TestAlone(t *testing.T) {
	at := func(version string, ready bool) endpoint {
		return endpoint{"pod " + version, map[string]string{"version": version}, ready}
	}
	for name, tc := range map[string]struct {
		endpoints []endpoint
		want      bool
	}{
		"alone":              {[]endpoint{at("v1", true), at("v3", false)}, true},
		"beside another":     {[]endpoint{at("v1", true), at("v3", true)}, false},
		"beside none's":      {[]endpoint{at("v1", true), {"pod x", nil, true}}, false},
		"nothing is ready":   {[]endpoint{at("v1", false)}, false},
		"nothing is visible": {nil, false},
	} {
		s := &sight{place: place{endpoints: tc.endpoints}}
		stable := v1.Target{Version: "v1", Subset: "v1", Labels: map[string]string{"version": "v1"}}
		if got := s.alone(&v1.Rollout{Status: v1.RolloutStatus{Traffic: &v1.Traffic{Stable: stable}}}); got != tc.want {
			t.Errorf("%s: alone is %t", name, got)
		}
	}
	if (&sight{}).alone(&v1.Rollout{}) {
		t.Error("alone before there is a stable version")
	}
}
