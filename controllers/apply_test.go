package controllers

import (
	"context"
	"errors"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	v1 "sluice.dev/sluice/api/v1"
)

// refusing makes the API server refuse all writes of one object, and meet those of another with a conflict at first.
func refusing(refused, contended string) interceptor.Funcs {
	conflicts := 0
	return interceptor.Funcs{Update: func(ctx context.Context, c client.WithWatch, obj client.Object, opts ...client.UpdateOption) error {
		resource := schema.GroupResource{Group: "networking.istio.io", Resource: "virtualservices"}
		switch {
		case obj.GetName() == refused:
			return apierrors.NewForbidden(resource, refused, errors.New(`admission webhook "policy" denied the request: no`))
		case obj.GetName() == contended && conflicts == 0:
			conflicts++
			return apierrors.NewConflict(resource, contended, errors.New("changed"))
		}
		return c.Update(ctx, obj, opts...)
	}}
}

// rolledBack is a Rollout all of whose traffic belongs to v1, on two VirtualServices.
func rolledBack() *v1.Rollout {
	r := atHalf("reviews")
	back := r.Status.Traffic.AllStable()
	r.Spec.Version = "v1"
	r.Status.Traffic, r.Status.Canary, r.Status.Run, r.Status.Step = &back, "", nil, nil
	for _, name := range []string{"edge", "third"} {
		r.Status.VirtualServices = append(r.Status.VirtualServices, v1.ManagedVirtualService{Name: name, Routes: r.Status.VirtualServices[0].Routes})
	}
	return r
}

func isSplit(routes string) bool { return strings.Contains(routes, "v3") }

// A rollback that is refused for one object goes on at once with the others, through a conflict.
func TestARefusalHoldsUpNoOtherWriteOfARollback(t *testing.T) {
	named := func(name string) client.Object {
		return parse(t, strings.Replace(halfRoutes, "name: reviews}", "name: "+name+"}", 1))
	}
	k := newCluster(t, refusing("edge", "reviews"), reviewsService(), named("reviews"), named("edge"), named("third"),
		parse(t, bothSubsets), rolledBack(), podOf("a", corev1.ConditionTrue, labelled("app", "reviews", "version", "v1")))
	result, err := k.Reconcile(t.Context(), reconcile.Request{NamespacedName: keyOf("bookinfo", "reviews")})
	if err != nil {
		t.Fatal(err)
	}
	for name, split := range map[string]bool{"reviews": false, "third": false, "edge": true} {
		if routes := k.routes(name); isSplit(routes) != split {
			t.Errorf("VirtualService %s is %s", name, routes)
		}
	}
	if result.RequeueAfter != refusedRetry {
		t.Errorf("the refused write is tried again in %s, want %s", result.RequeueAfter, refusedRetry)
	}
}

// On the way forward nothing comes out of its order.
func TestARefusalHoldsUpWhatFollowsIt(t *testing.T) {
	at := func(name string, carries bool) change {
		return change{kind: kindVirtualService, name: name, carries: carries}
	}
	changes := []change{at("a", true), at("b", false), at("c", true), at("d", true)}
	for name, tc := range map[string]struct {
		refused string
		urgent  bool
		want    string
	}{
		"nothing was refused":        {"", false, "a b c d"},
		"traffic was refused":        {"c", false, "a b"},
		"what no traffic depends on": {"b", false, "a c d"},
		"on the way back":            {"c", true, "a b d"},
	} {
		t.Run(name, func(t *testing.T) {
			c := &convergence{urgent: tc.urgent, refused: map[objectRef]bool{{kindVirtualService.Kind, tc.refused}: true}}
			var got []string
			for _, ch := range c.writable(changes) {
				got = append(got, ch.name)
			}
			if strings.Join(got, " ") != tc.want {
				t.Errorf("writes %v, want %s", got, tc.want)
			}
		})
	}
}
