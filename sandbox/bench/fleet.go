package bench

import (
	"context"
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "sluice.dev/sluice/api/v1"
)

// fleet is a number of Rollouts in one namespace, each with a Service, and with a Deployment and a pod of each version.
type fleet struct {
	*scene
	namespace string
	keys      []types.NamespacedName
}

func (s *scene) newFleet(ctx context.Context, namespace string, n int) (*fleet, error) {
	f, err := s.newServices(ctx, namespace, n)
	if err != nil {
		return nil, err
	}
	err = each(ctx, n, func(ctx context.Context, i int) error {
		return f.create(ctx, i, &v1.Rollout{Spec: rolloutSpec(f.keys[i].Name, "v1")}, f.keys[i].Name)
	})
	if err != nil {
		return nil, err
	}
	_, err = s.watcher.done(ctx, "v1 serves", s.watcher.reach(f.keys, healthy("v1")))
	return f, err
}

// newServices makes the fleet but for its Rollouts.
func (s *scene) newServices(ctx context.Context, namespace string, n int) (*fleet, error) {
	f := &fleet{scene: s, namespace: namespace}
	for i := range n {
		f.keys = append(f.keys, types.NamespacedName{Namespace: namespace, Name: fmt.Sprintf("service-%04d", i)})
	}
	if err := s.CreateNamespace(ctx, namespace); err != nil {
		return nil, err
	}
	err := each(ctx, n, func(ctx context.Context, i int) error {
		if err := f.create(ctx, i, &corev1.Service{Spec: corev1.ServiceSpec{
			ClusterIP: corev1.ClusterIPNone, // the sandbox has 254 addresses
			Selector:  map[string]string{"app": f.keys[i].Name},
			Ports:     []corev1.ServicePort{{Name: "http", Port: 9080, TargetPort: intstr.FromString("http")}},
		}}, f.keys[i].Name); err != nil {
			return err
		}
		return f.deployOne(ctx, i, "v1")
	})
	return f, err
}

func healthy(version string) func(*state) bool {
	return func(s *state) bool {
		return s.phase == string(v1.PhaseHealthy) && s.stable == version && s.serves(version)
	}
}

func rolloutSpec(host, version string) v1.RolloutSpec {
	return v1.RolloutSpec{
		Host: host, Version: version,
		Steps:        []v1.Step{step("half", 50), step("full", 100)},
		GateDefaults: &v1.GateDefaults{Samples: new(int32(1)), Failures: new(int32(1)), Interval: &metav1.Duration{Duration: gateInterval}},
		Gates:        []v1.Gate{{Name: "failures", Query: gateQuery, Max: "0.5"}},
	}
}

func step(name string, weight int32) v1.Step { return v1.Step{Name: name, Weight: &weight} }

// deploy makes a version of every service, ready at once.
func (f *fleet) deploy(ctx context.Context, version string) error {
	return each(ctx, len(f.keys), func(ctx context.Context, i int) error { return f.deployOne(ctx, i, version) })
}

func (f *fleet) deployOne(ctx context.Context, i int, version string) error {
	name := f.keys[i].Name + "-" + version
	labels := map[string]string{"app": f.keys[i].Name, "version": version}
	pod := corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: "registry.example/app:" + version}}}
	d := &appsv1.Deployment{Spec: appsv1.DeploymentSpec{
		Selector: &metav1.LabelSelector{MatchLabels: labels},
		Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: pod},
	}}
	if err := f.create(ctx, i, d, name); err != nil {
		return err
	}
	d.Status = appsv1.DeploymentStatus{ObservedGeneration: d.Generation, Replicas: 1, UpdatedReplicas: 1, ReadyReplicas: 1, AvailableReplicas: 1}
	if err := f.Client.Status().Update(ctx, d); err != nil {
		return err
	}
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: pod}
	if err := f.create(ctx, i, p, name); err != nil {
		return err
	}
	p.Status.Phase = corev1.PodRunning
	p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
	return f.Client.Status().Update(ctx, p)
}

func (f *fleet) create(ctx context.Context, i int, obj client.Object, name string) error {
	obj.SetNamespace(f.keys[i].Namespace)
	obj.SetName(name)
	if err := f.Client.Create(ctx, obj); err != nil {
		return fmt.Errorf("creating %T %s: %w", obj, name, err)
	}
	return nil
}

// patch merges a change into every Rollout's spec, all at once.
func (f *fleet) patch(ctx context.Context, spec string) error {
	return each(ctx, len(f.keys), func(ctx context.Context, i int) error {
		r := &v1.Rollout{}
		r.Namespace, r.Name = f.keys[i].Namespace, f.keys[i].Name
		return f.Client.Patch(ctx, r, client.RawPatch(types.MergePatchType, []byte(`{"spec":`+spec+`}`)))
	})
}
