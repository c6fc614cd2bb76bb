package apitest

import (
	"encoding/json"
	"testing"
	"time"

	istio "istio.io/api/networking/v1alpha3"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	v1 "sluice.dev/sluice/api/v1"
)

func TestHostIsImmutable(t *testing.T) {
	stored := patched(t, rollout, `{}`)
	stored.SetName("immutable")
	store(t, namespace, rollouts, stored)
	resource := client.Resource(rollouts).Namespace(namespace)
	patch := func(spec string) (*unstructured.Unstructured, error) {
		return resource.Patch(t.Context(), stored.GetName(), types.MergePatchType, []byte(`{"spec":`+spec+`}`), metav1.PatchOptions{})
	}
	if _, err := patch(`{"host":"reviews","version":"v4"}`); err != nil {
		t.Errorf("the same host was refused: %v", err)
	}
	_, err := patch(`{"host":"ratings"}`)
	if err == nil {
		t.Fatal("another host was accepted")
	}
	checkCause(t, err, "spec.host", "host is immutable: make another Rollout for another host")
}

// An empty list of these is not the same as none: one apply must get there from any other.
func TestOneApplyEmptiesAList(t *testing.T) {
	apply := func(name, spec string) map[string]any {
		object := patched(t, rollout, spec)
		object.SetName(name)
		stored, err := client.Resource(rollouts).Namespace(namespace).Apply(t.Context(), name, object, metav1.ApplyOptions{FieldManager: "test"})
		if err != nil {
			t.Fatal(err)
		}
		return stored.Object["spec"].(map[string]any) //nolint:forcetypeassert // what was applied has one
	}
	for name, test := range map[string]struct{ full, empty string }{
		"gates":    {`gates: [{name: errors, metric: errorRate, max: 1%}]`, `gates: []`},
		"signals":  {`breaker: {signals: [Overflow]}`, `breaker: {signals: []}`},
		"usegates": {step(`useGates: [errors]`), step(`useGates: []`)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			apply("empties-"+name, test.full)
			got, want := jsonOf(t, apply("empties-"+name, test.empty)), jsonOf(t, apply("empty-"+name, test.empty))
			if got != want {
				t.Errorf("got %s, want %s", got, want)
			}
		})
	}
}

// The operator's own status writes are never refused, however the spec's rules may read.
func TestWholeStatusIsStored(t *testing.T) {
	at := metav1.NewMicroTime(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC))
	match := v1.HTTPMatches{{Headers: map[string]*istio.StringMatch{"end-user": {MatchType: &istio.StringMatch_Exact{Exact: "jason"}}}}}
	target := func(name string) v1.Target {
		return v1.Target{Version: name, Subset: name, Labels: map[string]string{"version": name}}
	}
	canary := target("v3")
	managed := v1.ManagedVirtualService{Name: "reviews", Routes: []v1.ManagedRoute{{Key: "#0123", SavedMirror: `{"host":"x"}`}}}
	records := []v1.StepRecord{{Name: "half", StartedAt: at, FinishedAt: at, Gates: []v1.GateRecord{{Name: "errors", Verdict: "Pass"}}}}
	status := &v1.RolloutStatus{
		Stable: "v1", Canary: "v3", Previous: "v0", Since: &at, StableRevision: "abc",
		Run:  &v1.Run{Number: 1, From: "v1", To: "v3", StartedAt: at, Plan: []string{"a", "b"}, Steps: records},
		Step: &v1.StepStatus{Name: "slow", Display: "2/4 slow", StartedAt: at, Applied: &at},
		Traffic: &v1.Traffic{
			Stable: target("v1"), Canary: &canary, Mirror: &v1.MirrorTraffic{Percentage: 100}, Match: match,
			Fault: &v1.FaultInjection{
				Host: "ratings", Match: match,
				Abort: &istio.HTTPFaultInjection_Abort{ErrorType: &istio.HTTPFaultInjection_Abort_HttpStatus{HttpStatus: 503}},
			},
		},
		Subsets:             []v1.Subset{{Name: "v1", Labels: map[string]string{"version": "v1"}, Added: true}},
		VirtualServices:     []v1.ManagedVirtualService{managed},
		DestinationRule:     &v1.ManagedDestinationRule{Name: "reviews", Created: true},
		FaultVirtualService: &managed,
		SkippedRoutes:       []string{"reviews/#0"},
		Proven:              []v1.Proof{{Version: "v1", At: at}},
		Rejected:            &v1.Rejection{Version: "v2", Reason: "GateFailed", At: at},
		LastFailure:         &v1.Failure{Version: "v2", Time: at},
		History:             []v1.RunRecord{{Number: 1, From: "v1", To: "v2", Verdict: "GateFailed", StartedAt: at, FinishedAt: at, Steps: records}},
	}
	status.SetPhase(v1.PhaseProgressing, "Step", "2/4 slow", 1, metav1.NewTime(at.Time))
	create(t, "whole-status", rollouts, &v1.Rollout{
		TypeMeta:   metav1.TypeMeta{APIVersion: "sluice.dev/v1", Kind: "Rollout"},
		ObjectMeta: metav1.ObjectMeta{Name: "reviews"},
		Spec:       v1.RolloutSpec{Host: "reviews", Version: "v3"},
	}, status)
	stored, err := client.Resource(rollouts).Namespace("whole-status").Get(t.Context(), "reviews", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	got, want := jsonOf(t, stored.Object["status"]), jsonOf(t, status)
	if got != want {
		t.Errorf("the schema dropped or changed fields of the status: got\n%s\nwant\n%s", got, want)
	}
}

// jsonOf returns the value as JSON with sorted keys.
func jsonOf(t *testing.T, value any) string {
	t.Helper()
	text, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	var fields any
	if err := json.Unmarshal(text, &fields); err != nil {
		t.Fatal(err)
	}
	if text, err = json.Marshal(fields); err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// A time that Go's MicroTime can not read would break the informer of all Rollouts.
func TestStatusTimesDecode(t *testing.T) {
	stored := patched(t, rollout, `{}`)
	stored.SetName("times")
	store(t, namespace, rollouts, stored)
	resource := client.Resource(rollouts).Namespace(namespace)
	for since, accepted := range map[string]bool{
		"2026-01-02T03:04:05.000006Z":      true,
		"2026-01-02T03:04:05.000006+01:00": true,
		"2026-01-02T03:04:05Z":             false,
		"2026-02-30T03:04:05.000000Z":      false,
		"2026-01-02T03:04:60.000000Z":      false,
		"2026-01-02t03:04:05.000006z":      false,
		"2026-01-02T24:04:05.000006Z":      false,
	} {
		patch := []byte(`{"status":{"since":"` + since + `"}}`)
		stored, err := resource.Patch(t.Context(), "times", types.MergePatchType, patch, metav1.PatchOptions{DryRun: []string{metav1.DryRunAll}}, "status")
		if accepted != (err == nil) {
			t.Errorf("%s: accepted %v, want %v: %v", since, err == nil, accepted, err)
		}
		if err != nil {
			continue
		}
		if err := json.Unmarshal([]byte(jsonOf(t, stored.Object)), &v1.Rollout{}); err != nil {
			t.Errorf("%s is stored, but does not decode: %v", since, err)
		}
	}
}
