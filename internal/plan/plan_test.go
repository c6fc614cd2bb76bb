package plan_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"sluice.dev/sluice/internal/manifest"
	"sluice.dev/sluice/internal/plan"
)

const namespace = "bookinfo"

func input(t *testing.T, objects []manifest.Object) plan.Input {
	t.Helper()
	in := plan.Input{PropagationDelay: 2 * time.Second, Now: time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)}
	for _, o := range objects {
		o.SetNamespace(namespace)
		if o.GetKind() == "Rollout" && in.Rollout == nil {
			in.Rollout = o.Unstructured
		} else {
			in.Objects = append(in.Objects, o.Unstructured)
		}
	}
	return in
}

func read(t *testing.T, text string) plan.Input {
	t.Helper()
	objects, err := manifest.Read("test.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return input(t, objects)
}

func load(t *testing.T, names ...string) plan.Input {
	t.Helper()
	objects, err := manifest.Load(t.Context(), names, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	return input(t, objects)
}

func makePlan(t *testing.T, in plan.Input) *plan.Plan {
	t.Helper()
	p, err := plan.Make(context.Background(), in)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// outline is a plan in lines: stages with their least durations, and what each writes.
func outline(p *plan.Plan) []string {
	var lines []string
	for _, s := range p.Stages {
		lines = append(lines, strings.TrimSuffix(fmt.Sprintf("%s: %s, %s", s.Name, s.Traffic, s.Least), ", 0s"))
		for _, w := range s.Writes {
			verb := "writes"
			switch {
			case w.Before == nil:
				verb = "creates"
			case w.After == nil:
				verb = "deletes"
			}
			lines = append(lines, fmt.Sprintf("  %s %s %s%s", verb, w.Kind, w.Name, weights(w.After)))
		}
	}
	return lines
}

// weights of a VirtualService's routes, as "[100/0 50/50]".
func weights(vs *unstructured.Unstructured) string {
	if vs == nil || vs.GetKind() != "VirtualService" {
		return ""
	}
	routes, _, _ := unstructured.NestedSlice(vs.Object, "spec", "http")
	var all []string
	for _, r := range routes {
		destinations, _ := r.(map[string]any)["route"].([]any)
		var shares []string
		for _, d := range destinations {
			if w, ok := d.(map[string]any)["weight"]; ok {
				shares = append(shares, fmt.Sprint(w))
			}
		}
		all = append(all, strings.Join(shares, "/"))
	}
	return fmt.Sprintf(" %v", all)
}

func TestExampleReviews(t *testing.T) {
	in := load(t, "../../examples/reviews")
	in.From, in.To = "v1", "v3"
	p := makePlan(t, in)
	want := []string{
		"1/4 shadow: weight 0, mirror 100, 16s",
		"  writes DestinationRule reviews",
		"  writes VirtualService reviews [100/0]",
		"2/4 ratings-slow: weight 0, fault, match, 10s",
		"  writes VirtualService reviews [ 100/0]",
		"  creates VirtualService reviews-fault-ratings [ ]",
		"3/4 half: weight 50, 16s",
		"  deletes VirtualService reviews-fault-ratings",
		"  writes VirtualService reviews [50/50]",
		"4/4 full: weight 100, 16s",
		"  writes VirtualService reviews [0/100]",
		"after: v3 serves alone",
		"  writes VirtualService reviews []",
	}
	if diff := cmp.Diff(want, outline(p)); diff != "" {
		t.Errorf("stages (-want +got):\n%s", diff)
	}
	if p.From != "v1" || p.To != "v3" || p.Problem != nil || p.Least() != 58*time.Second {
		t.Errorf("from %s to %s, problem %v, least %s", p.From, p.To, p.Problem, p.Least())
	}
	assumed := []string{
		"Service reviews exists", "Service ratings exists",
		"pods of v1 with labels version=v1 are ready", "pods of v3 with labels version=v3 are ready",
	}
	if diff := cmp.Diff(assumed, p.Assumed); diff != "" {
		t.Errorf("assumed (-want +got):\n%s", diff)
	}
}

const bare = `
apiVersion: sluice.dev/v1
kind: Rollout
metadata: {name: shop}
spec:
  host: shop
  version: v2
  soak: {hold: 1h}
  steps: [{name: half, weight: 50, hold: 10m}]
`

const deployments = `
---
apiVersion: v1
kind: Service
metadata: {name: shop}
spec: {selector: {app: shop}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: shop-v1}
spec: {template: {metadata: {labels: {app: shop, version: v1}}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: shop-v2}
spec: {template: {metadata: {labels: {app: shop, version: v2}}}}
`

// Where nothing routes to the host the run makes both objects; the default gate bounds the first step, its hold the soak.
func TestCreates(t *testing.T) {
	in := read(t, bare+deployments)
	in.From = "v1"
	p := makePlan(t, in)
	want := []string{
		"before: v1 serves alone",
		"  creates DestinationRule shop",
		"  creates VirtualService shop []",
		"1/2 half: weight 50, 10m0s",
		"  writes DestinationRule shop",
		"  writes VirtualService shop [50/50]",
		"2/2 soak: weight 100, 1h0m0s",
		"  writes VirtualService shop [0/100]",
		"after: v2 serves alone",
		"  writes VirtualService shop []",
	}
	if diff := cmp.Diff(want, outline(p)); diff != "" {
		t.Errorf("stages (-want +got):\n%s", diff)
	}
	// Both versions' pods are ready, so that the operator too would ask for initialVersion.
	if want := []string{"spec.initialVersion is v1, since nothing else tells which version serves"}; !slices.Equal(p.Assumed, want) || p.Problem != nil {
		t.Errorf("assumed %q, problem %v; want %q and none", p.Assumed, p.Problem, want)
	}
}

// A suspended Rollout is planned as if it were not, and the plan says so.
func TestSuspended(t *testing.T) {
	in := read(t, bare+deployments)
	in.From = "v1"
	in.Rollout.Object["spec"].(map[string]any)["suspend"] = true
	p := makePlan(t, in)
	if !slices.Contains(p.Assumed, "spec.suspend is cleared") || p.Problem != nil || len(p.Stages) != 4 {
		t.Errorf("assumed %q, problem %v, %d stages; want the suspension told, none, and all 4", p.Assumed, p.Problem, len(p.Stages))
	}
}

// What a real run would be stuck in is foretold in its words.
func TestProblem(t *testing.T) {
	p := makePlan(t, read(t, bare+deployments))
	if p.Problem == nil || p.Problem.Reason != "InitialVersionUnknown" {
		t.Errorf("problem %v, want InitialVersionUnknown", p.Problem)
	}
}

func TestUndecodable(t *testing.T) {
	in := read(t, strings.Replace(bare, "soak: {hold: 1h}", "soak: {hold: never}", 1))
	if _, err := plan.Make(context.Background(), in); err == nil || !strings.Contains(err.Error(), "Rollout shop") {
		t.Errorf("error %v, want one that names Rollout shop", err)
	}
}

// The same input gives the same plan, and is not changed.
func TestRepeats(t *testing.T) {
	in := load(t, "../../examples/reviews")
	in.From, in.To = "v1", "v3"
	given := in.Rollout.DeepCopy()
	first, again := makePlan(t, in), makePlan(t, in)
	if diff := cmp.Diff(outline(first), outline(again)); diff != "" {
		t.Errorf("a plan made twice differs (-first +second):\n%s", diff)
	}
	if diff := cmp.Diff(given.Object, in.Rollout.Object); diff != "" {
		t.Errorf("the given Rollout was changed (-before +after):\n%s", diff)
	}
}

// A probe makes at least three requests, however short the hold is: the step takes that long.
func TestProbeBoundsItsStep(t *testing.T) {
	for hold, want := range map[string]time.Duration{"0s": 22 * time.Second, "10s": 22 * time.Second, "1m": time.Minute} {
		const fault = "steps: [{name: slow, fault: {match: [{headers: {user: {exact: jason}}}], delay: {fixedDelay: 2s, percentage: {value: 100}}}, probe: {url: \"http://shop/\", interval: 10s}, hold: HOLD}, "
		in := read(t, strings.Replace(bare+deployments, "steps: [", strings.Replace(fault, "HOLD", hold, 1), 1))
		in.From = "v1"
		p := makePlan(t, in)
		if p.Problem != nil || len(p.Stages) < 2 || p.Stages[1].Name != "1/3 slow" || p.Stages[1].Least != want {
			t.Errorf("hold %s: problem %v, stages %v; want step 1 to take at least %s", hold, p.Problem, outline(p), want)
		}
	}
}

// Kinds of other groups with names like ours have no part, whatever they hold.
func TestNamesakes(t *testing.T) {
	const namesakes = `
---
apiVersion: serving.knative.dev/v1
kind: Service
metadata: {name: shop}
spec: {template: {spec: {containers: []}}}
---
apiVersion: argoproj.io/v1alpha1
kind: Rollout
metadata: {name: cart}
spec: {replicas: 5, steps: 1}
---
apiVersion: example.com/v1
kind: Deployment
metadata: {name: shop-v2}
spec: {template: none}
`
	in, with := read(t, bare+deployments), read(t, bare+deployments+namesakes)
	in.From, with.From = "v1", "v1"
	if diff := cmp.Diff(outline(makePlan(t, in)), outline(makePlan(t, with))); diff != "" {
		t.Errorf("namesakes change the plan (-without +with):\n%s", diff)
	}
}
