package controllertest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	networking "istio.io/client-go/pkg/apis/networking/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	v1 "sluice.dev/sluice/api/v1"
	"sluice.dev/sluice/internal/pipeline"
	"sluice.dev/sluice/sandbox/controlplane"
)

const patience = 30 * time.Second

var worlds atomic.Int32

// world is a namespace with a Service, its versions as Deployments, and a Rollout.
type world struct {
	t         *testing.T
	client    client.WithWatch
	operator  *operator
	namespace string
}

func newWorld(t *testing.T) *world { return newWorldOn(t, server, shared) }

func newWorldOn(t *testing.T, s *controlplane.ControlPlane, o *operator) *world {
	t.Helper()
	c, err := newClient(s)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, client: c, operator: o, namespace: fmt.Sprintf("world-%d", worlds.Add(1))}
	if err := s.CreateNamespace(t.Context(), w.namespace); err != nil {
		t.Fatal(err)
	}
	w.service("reviews")
	w.deploy("v1", 1)
	w.deploy("v3", 1)
	return w
}

func (w *world) key(name string) types.NamespacedName {
	return types.NamespacedName{Namespace: w.namespace, Name: name}
}

func (w *world) create(obj client.Object) {
	w.t.Helper()
	obj.SetNamespace(w.namespace)
	if err := w.client.Create(w.t.Context(), obj); err != nil {
		w.t.Fatalf("creating %T %s: %v", obj, obj.GetName(), err)
	}
}

func (w *world) service(name string) {
	w.t.Helper()
	w.create(&corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.ServiceSpec{
			Selector: map[string]string{"app": name},
			Ports:    []corev1.ServicePort{{Name: "http", Port: 9080, TargetPort: intstr.FromString("http")}},
		},
	})
}

// deploy makes a Deployment of reviews with as many ready replicas.
func (w *world) deploy(version string, ready int32) {
	w.t.Helper()
	set := map[string]string{"app": "reviews", "version": version}
	w.create(&appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: "reviews-" + version},
		Spec: appsv1.DeploymentSpec{
			Selector: &metav1.LabelSelector{MatchLabels: set},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: set},
				Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "reviews", Image: "reviews:" + version}}},
			},
		},
	})
	w.create(&corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "reviews-" + version, Labels: set},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "reviews", Image: "reviews:" + version}}},
	})
	w.ready(version, ready)
}

// ready writes the statuses that a Deployment's controller and a kubelet would, and waits until the operator has seen them.
func (w *world) ready(version string, replicas int32) {
	w.t.Helper()
	condition := corev1.ConditionFalse
	if replicas > 0 {
		condition = corev1.ConditionTrue
	}
	key, d, pod := w.key("reviews-"+version), &appsv1.Deployment{}, &corev1.Pod{}
	w.eventually("the status of Deployment reviews-"+version+" is written", func() error {
		if err := w.client.Get(w.t.Context(), key, d); err != nil {
			return err
		}
		d.Status = appsv1.DeploymentStatus{
			ObservedGeneration: d.Generation, Replicas: 1, UpdatedReplicas: 1, ReadyReplicas: replicas, AvailableReplicas: replicas,
		}
		return w.client.Status().Update(w.t.Context(), d)
	})
	w.eventually("the status of Pod reviews-"+version+" is written", func() error {
		if err := w.client.Get(w.t.Context(), key, pod); err != nil {
			return err
		}
		pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: condition}}
		return w.client.Status().Update(w.t.Context(), pod)
	})
	w.eventually("the operator's cache has both statuses", func() error {
		return errors.Join(w.operator.knows(w.t.Context(), d), w.operator.knows(w.t.Context(), pod))
	})
}

// rollout creates the Rollout reviews from the YAML of its spec.
func (w *world) rollout(spec string) {
	w.t.Helper()
	r := &v1.Rollout{ObjectMeta: metav1.ObjectMeta{Name: "reviews"}}
	if err := yaml.UnmarshalStrict([]byte(spec), &r.Spec); err != nil {
		w.t.Fatalf("spec: %v", err)
	}
	if r.Spec.InitialVersion == "" {
		r.Spec.InitialVersion = "v1" // the endpoints do not tell: v3 is ready as well
	}
	w.create(r)
}

func (w *world) get() *v1.Rollout {
	w.t.Helper()
	r := &v1.Rollout{}
	if err := w.client.Get(w.t.Context(), w.key("reviews"), r); err != nil {
		w.t.Fatalf("reading the Rollout: %v", err)
	}
	return r
}

// edit changes the Rollout, again when somebody wrote in between.
func (w *world) edit(change func(*v1.Rollout)) {
	w.t.Helper()
	w.eventually("the Rollout is edited", func() error {
		r := &v1.Rollout{}
		if err := w.client.Get(w.t.Context(), w.key("reviews"), r); err != nil {
			return err
		}
		change(r)
		return w.client.Update(w.t.Context(), r)
	})
}

func (w *world) push(version string) {
	w.t.Helper()
	w.edit(func(r *v1.Rollout) { r.Spec.Version = version })
}

func (w *world) evidence(verdict pipeline.Verdict) {
	w.operator.evidence.set(w.key("reviews"), verdict)
}

// await waits until the Rollout satisfies the condition.
func (w *world) await(what string, condition func(*v1.Rollout) bool) *v1.Rollout {
	w.t.Helper()
	var last *v1.Rollout
	w.eventually(what, func() error {
		last = &v1.Rollout{}
		if err := w.client.Get(w.t.Context(), w.key("reviews"), last); err != nil {
			return err
		}
		if !condition(last) {
			return fmt.Errorf("phase %s, reason %s: %s; events: %s", last.Status.Phase, last.Status.Reason, last.Status.Message, strings.Join(w.events(), ", "))
		}
		return nil
	})
	return last
}

func (w *world) awaitPhase(phase v1.Phase, reason string) *v1.Rollout {
	w.t.Helper()
	return w.await(fmt.Sprintf("phase %s, reason %s", phase, reason), func(r *v1.Rollout) bool {
		return r.Status.Phase == phase && r.Status.Reason == reason && r.Status.ObservedGeneration == r.Generation
	})
}

func (w *world) awaitStep(name string) *v1.Rollout {
	w.t.Helper()
	return w.await("step "+name, func(r *v1.Rollout) bool {
		return r.Status.Step != nil && r.Status.Step.Name == name
	})
}

// awaitRoutes waits until the VirtualService's routes are as described, see describe.
func (w *world) awaitRoutes(name, want string) *networking.VirtualService {
	w.t.Helper()
	vs := &networking.VirtualService{}
	w.eventually("VirtualService "+name+" is "+want, func() error {
		vs = &networking.VirtualService{}
		if err := w.client.Get(w.t.Context(), w.key(name), vs); err != nil {
			return err
		}
		if got := describe(vs); got != want {
			return fmt.Errorf("it is %s", got)
		}
		return nil
	})
	return vs
}

// describe says where the routes lead: "v1 50, v3 50 mirror v3; …".
func describe(vs *networking.VirtualService) string {
	var routes []string
	for _, route := range vs.Spec.Http {
		var parts []string
		for _, d := range route.Route {
			text := d.Destination.Subset
			if len(route.Route) > 1 {
				text += fmt.Sprintf(" %d", d.Weight)
			}
			parts = append(parts, text)
		}
		text := strings.Join(parts, ", ")
		for _, m := range route.Mirrors {
			text += " mirror " + m.Destination.Subset
		}
		if route.Fault != nil {
			text += " fault"
		}
		routes = append(routes, text)
	}
	return strings.Join(routes, "; ")
}

func (w *world) subsets() []string {
	w.t.Helper()
	rule := &networking.DestinationRule{}
	if err := w.client.Get(w.t.Context(), w.key("reviews"), rule); err != nil {
		w.t.Fatal(err)
	}
	var names []string
	for _, s := range rule.Spec.Subsets {
		names = append(names, s.Name)
	}
	return names
}

// events lists the reasons of the Rollout's events.
func (w *world) events() []string {
	list := &eventsv1.EventList{}
	if err := w.client.List(context.Background(), list, client.InNamespace(w.namespace)); err != nil {
		return []string{err.Error()}
	}
	var reasons []string
	for _, e := range list.Items {
		reasons = append(reasons, e.Reason)
	}
	return reasons
}

// versions are the resourceVersions of everything that the operator writes.
func (w *world) versions() map[string]string {
	w.t.Helper()
	all := map[string]string{}
	for _, list := range []client.ObjectList{&v1.RolloutList{}, &networking.VirtualServiceList{}, &networking.DestinationRuleList{}} {
		if err := w.client.List(w.t.Context(), list, client.InNamespace(w.namespace)); err != nil {
			w.t.Fatal(err)
		}
		raw, err := json.Marshal(list)
		if err != nil {
			w.t.Fatal(err)
		}
		var parsed metav1.PartialObjectMetadataList
		if err := json.Unmarshal(raw, &parsed); err != nil {
			w.t.Fatal(err)
		}
		for _, item := range parsed.Items {
			all[fmt.Sprintf("%T/%s", list, item.Name)] = item.ResourceVersion
		}
	}
	return all
}

func (w *world) gone(obj client.Object, name string) {
	w.t.Helper()
	w.eventually(fmt.Sprintf("%T %s is gone", obj, name), func() error {
		switch err := w.client.Get(w.t.Context(), w.key(name), obj); {
		case apierrors.IsNotFound(err):
			return nil
		case err != nil:
			return err
		}
		return errStillThere
	})
}

// eventually waits for a condition, and fails with the last reason why it did not hold.
func (w *world) eventually(what string, check func() error) {
	w.t.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("waited %s until %s: %v", patience, what, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
