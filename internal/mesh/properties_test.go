package mesh

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"pgregory.net/rapid"

	v1 "sluice.dev/sluice/api/v1"
)

// TestRunsLeaveOnlyTheSubset: whatever a run's steps do to the VirtualServices of a host, at its end everything is as it was,
// except that the driven routes name the final subset; and in between what is not driven is untouched.
func TestRunsLeaveOnlyTheSubset(t *testing.T) {
	steps, several := map[routeList]int{}, 0
	rapid.Check(t, func(t *rapid.T) {
		list := genList(t)
		found := genNamespace(t, list, "reviews")
		final := rapid.SampledFrom([]string{"v1", "v3"}).Draw(t, "ends on")
		var walks []*walk
		for i, managed := range manageAll(t, speaking(list, rolloutOf("reviews", nil)), found) {
			walks = append(walks, newWalk(t, speaking(list, rolloutOf("reviews", nil)), managed, found[i]))
		}
		for range rapid.IntRange(1, 4).Draw(t, "steps") {
			traffic := genTrafficOf(t, list)
			for _, w := range walks {
				w.save(traffic)
				if rapid.IntRange(0, 4).Draw(t, "crash before the write") > 0 && w.step("a step", traffic) {
					steps[list]++
				}
			}
		}
		for _, w := range walks {
			w.end(final)
		}
		if len(walks) > 1 {
			several++
		}
	})
	if len(steps) < len(routeLists) || several == 0 {
		t.Errorf("%v steps were written, %d times several VirtualServices", steps, several)
	}
}

func manage(t failer, r *v1.Rollout, found *unstructured.Unstructured) v1.ManagedVirtualService {
	return manageAll(t, r, []*unstructured.Unstructured{found})[0]
}

// manageAll fixes the driven routes as a run does: those that send to stable or name no subset. It keeps the order of what was
// found.
func manageAll(t failer, r *v1.Rollout, found []*unstructured.Unstructured) []v1.ManagedVirtualService {
	surveyed := Survey(r, found, nil)
	if surveyed.Problem != nil || len(surveyed.VirtualServices) != len(found) {
		t.Fatalf("%+v of %v", surveyed, found)
	}
	var all []v1.ManagedVirtualService
	for _, vs := range found {
		for _, candidate := range surveyed.VirtualServices {
			if candidate.Name == vs.GetName() {
				all = append(all, sendingTo("v1", candidate))
			}
		}
	}
	return all
}

// sendingTo leaves the routes that send to a subset or name none.
func sendingTo(subset string, vs v1.ManagedVirtualService) v1.ManagedVirtualService {
	managed := v1.ManagedVirtualService{Name: vs.Name}
	for _, route := range vs.Routes {
		if route.Subset == "" || route.Subset == subset {
			managed.Routes = append(managed.Routes, route)
		}
	}
	return managed
}

// TestTwoRolloutsSettle: a fault of reviews on ratings' VirtualService, which the Rollout of ratings drives meanwhile, comes to
// one form that neither changes any more, whoever writes first.
func TestTwoRolloutsSettle(t *testing.T) {
	settled := 0
	rapid.Check(t, func(t *rapid.T) {
		found := genVirtualService(t, "ratings")
		managed := manage(t, rolloutOf("ratings", nil), found)
		driver := rolloutOf("ratings", genTraffic(t, true))
		managed = SaveMirrors(managed, found)
		fault := rolloutOf("reviews", &v1.Traffic{
			Stable: v1.Target{Subset: "v1"}, Canary: &v1.Target{Subset: "v3", Labels: map[string]string{"version": "v3"}},
			Fault: genFault(t),
		})
		fault.Status.Traffic.Fault.Host = "ratings"
		carrier := &v1.ManagedVirtualService{Name: "ratings"}
		drive := func(vs *unstructured.Unstructured) (*unstructured.Unstructured, *Problem) {
			return VirtualService(driver, managed, vs)
		}
		insert := func(vs *unstructured.Unstructured) (*unstructured.Unstructured, *Problem) {
			return FaultVirtualService(fault, carrier, vs)
		}
		first, problem := settle(found, drive, insert)
		if problem != nil {
			return
		}
		second, problem := settle(found, insert, drive)
		if problem != nil {
			return
		}
		settled++
		if diff := cmp.Diff(first.Object, second.Object); diff != "" {
			t.Fatalf("who writes first decides (-drives first +faults first):\n%s", diff)
		}
		for name, render := range map[string]renderer{"driver": drive, "fault": insert} {
			if again, problem := render(first); problem != nil || !cmp.Equal(first, again) {
				t.Fatalf("%s does not settle: %+v\n%s", name, problem, cmp.Diff(first, again))
			}
		}
	})
	if settled == 0 {
		t.Error("no two Rollouts ever met")
	}
}

type renderer = func(*unstructured.Unstructured) (*unstructured.Unstructured, *Problem)

// settle renders in turn, twice each.
func settle(vs *unstructured.Unstructured, renderers ...renderer) (*unstructured.Unstructured, *Problem) {
	for range 2 {
		for _, render := range renderers {
			next, problem := render(vs)
			if problem != nil {
				return nil, problem
			}
			vs = next
		}
	}
	return vs, nil
}
