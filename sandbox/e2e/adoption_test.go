package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	networking "istio.io/client-go/pkg/apis/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	v1 "sluice.dev/sluice/api/v1"
	"sluice.dev/sluice/sandbox/load"
	"sluice.dev/sluice/sandbox/scenario"
)

// TestAdoption: reviews behind a VirtualService for the mesh and one for the ingress gateway. Users of either move together, what is
// not managed stays, and at the end both differ from what they were in the subset alone.
func TestAdoption(t *testing.T) {
	t.Parallel()
	s := newGatewayStage(t, "adoption")
	applyAdoption(t, s, "mesh.yaml")
	before := adoptedRoutes(t, s)
	applyAdoption(t, s, "rollout.yaml")
	r := wait(t, s, v1.PhaseHealthy, v1.ReasonServing)
	if want := []string{"reviews/beta.users: spec.virtualServices does not name it"}; !slices.Equal(r.Status.SkippedRoutes, want) {
		t.Errorf("skipped %q, want %q", r.Status.SkippedRoutes, want)
	}
	if diff := cmp.Diff(before, adoptedRoutes(t, s)); diff != "" {
		t.Errorf("adopting changed something (-before +after):\n%s", diff)
	}

	stayAt(t, s, "half")
	mesh := visit(t, s, 200, load.Options{})
	atGateway := map[string]int{}
	for range 200 {
		atGateway[storefront(t, s)]++
	}
	for from, counts := range map[string]map[string]int{"the mesh": mesh.ByVersion, "the gateway": atGateway} {
		stable, canary := counts[scenario.Stable], counts[scenario.Canary]
		if all := stable + canary; len(counts) != 2 || all < 100 || canary*10 < all*3 || canary*10 > all*7 {
			t.Errorf("from %s users were on %v, want half on each of v1 and v3", from, counts)
		}
	}
	if beta := visit(t, s, 20, load.Options{User: "beta", UserShare: 1}); beta.Total == 0 || beta.ByVersion["v2"] != beta.Total {
		t.Errorf("beta users are pinned to v2 and saw %v", beta.ByVersion)
	}

	editAdoption(t, s, func(spec *v1.RolloutSpec) { spec.Steps[0].Hold = nil })
	onBoth(t, s, scenario.Canary)
	if diff := cmp.Diff(before, withSubset(adoptedRoutes(t, s), scenario.Canary, scenario.Stable)); diff != "" {
		t.Errorf("the run left more than another subset (-before +after):\n%s", diff)
	}

	editAdoption(t, s, func(spec *v1.RolloutSpec) { spec.Version = scenario.Stable })
	onBoth(t, s, scenario.Stable)
	if diff := cmp.Diff(before, adoptedRoutes(t, s)); diff != "" {
		t.Errorf("the return left something (-before +after):\n%s", diff)
	}
}

func applyAdoption(t *testing.T, s *stage, name string) {
	t.Helper()
	manifest, err := os.ReadFile(filepath.Join(s.cluster.Root, "examples", "adopt", name))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.cluster.KubectlStdin(t.Context(), string(manifest), "apply", "-n", s.Namespace, "-f", "-"); err != nil {
		t.Fatal(err)
	}
}

// editAdoption changes the Rollout as a person with an editor does.
func editAdoption(t *testing.T, s *stage, change func(*v1.RolloutSpec)) {
	t.Helper()
	eventually(t, "the Rollout is edited", func() bool {
		r, err := s.Rollout(t.Context())
		if err != nil {
			return false
		}
		change(&r.Spec)
		return s.cluster.Client.Update(t.Context(), r) == nil
	})
}

// stayAt asks for v3 by one step of the example, which lasts until it is edited, and waits until its traffic is applied.
func stayAt(t *testing.T, s *stage, step string) {
	t.Helper()
	editAdoption(t, s, func(spec *v1.RolloutSpec) {
		at := slices.IndexFunc(spec.Steps, func(one v1.Step) bool { return one.Name == step })
		spec.Version, spec.Gates, spec.Steps = scenario.Canary, []v1.Gate{}, spec.Steps[at:at+1]
		spec.Steps[0].Hold = &metav1.Duration{Duration: time.Hour}
	})
	_, err := s.WaitRollout(t.Context(), step, func(r *v1.Rollout) bool {
		return r.Status.Step != nil && r.Status.Step.Name == step && r.Status.Step.Applied != nil
	})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "both ways in lead to v3 as well", func() bool {
		return storefront(t, s) == scenario.Canary && visit(t, s, 4, load.Options{}).ByVersion[scenario.Canary] > 0
	})
}

// storefront asks through the gateway which version answers.
func storefront(t *testing.T, s *stage) string {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.IngressURL()+"/reviews/0", nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Host = "reviews.example.com"
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	var answer struct{ Version string }
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		answer.Version = fmt.Sprintf("status %d", response.StatusCode)
	}
	if err := response.Body.Close(); err != nil {
		t.Error(err)
	}
	return answer.Version
}

// onBoth waits until the Rollout is Healthy on a version and both ways in lead there, and then asks each often.
func onBoth(t *testing.T, s *stage, version string) {
	t.Helper()
	_, err := s.WaitRollout(t.Context(), "Healthy on "+version, func(r *v1.Rollout) bool {
		return r.Status.Phase == v1.PhaseHealthy && r.Status.Stable == version && r.Status.ObservedGeneration == r.Generation
	})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "both ways in lead to "+version, func() bool {
		mesh := visit(t, s, 4, load.Options{})
		return storefront(t, s) == version && mesh.Total > 0 && mesh.ByVersion[version] == mesh.Total
	})
	for range 20 {
		if got := storefront(t, s); got != version {
			t.Fatalf("a user of the gateway was on %s, want %s", got, version)
		}
	}
	if seen := visit(t, s, 20, load.Options{}); seen.Total == 0 || seen.ByVersion[version] != seen.Total {
		t.Errorf("users of the mesh saw %v, want %s", seen.ByVersion, version)
	}
}

// adoptedRoutes are the specs of both VirtualServices as the API server has them, as JSON.
func adoptedRoutes(t *testing.T, s *stage) map[string]string {
	t.Helper()
	specs := map[string]string{}
	for _, name := range []string{"reviews", "storefront.reviews"} {
		vs := &unstructured.Unstructured{}
		vs.SetGroupVersionKind(networking.SchemeGroupVersion.WithKind("VirtualService"))
		if err := s.cluster.Client.Get(t.Context(), types.NamespacedName{Namespace: s.Namespace, Name: name}, vs); err != nil {
			t.Fatal(err)
		}
		text, err := json.MarshalIndent(vs.Object["spec"], "", " ")
		if err != nil {
			t.Fatal(err)
		}
		specs[name] = string(text)
	}
	return specs
}

// withSubset puts one subset in the place of another.
func withSubset(specs map[string]string, from, to string) map[string]string {
	other := map[string]string{}
	for name, text := range specs {
		other[name] = strings.ReplaceAll(text, `"subset": "`+from+`"`, `"subset": "`+to+`"`)
	}
	return other
}
