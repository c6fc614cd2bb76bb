package environment

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"sluice.dev/sluice/sandbox/bookinfo"
	"sluice.dev/sluice/sandbox/controlplane"
)

func (e *Environment) kick() {
	select {
	case e.kicks <- struct{}{}:
	default: // one is waiting already
	}
}

// run brings the namespace to what its Deployments say, whenever something
// changed and until the environment is closed.
func (e *Environment) run() {
	for {
		select {
		case <-e.ctx.Done():
			return
		case <-e.kicks:
		}
		if err := e.reconcile(e.ctx); err != nil && e.ctx.Err() == nil {
			e.options.Log.Warn("reconcile", "namespace", e.Namespace, "error", err)
			time.AfterFunc(200*time.Millisecond, e.kick)
		}
	}
}

func (e *Environment) reconcile(ctx context.Context) error {
	deployments, err := e.deployments.Deployments(e.Namespace).List(labels.Everything())
	if err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	var problems []error
	wanted := map[string]bool{}
	for _, d := range deployments {
		if d.DeletionTimestamp != nil {
			continue
		}
		wanted[d.Name] = true
		problems = append(problems, e.reconcileDeployment(ctx, d))
	}
	for name := range e.pods {
		if !wanted[name] {
			problems = append(problems, e.shrink(ctx, name, func(*pod) bool { return true }))
			delete(e.unready, name)
			delete(e.misbehave, name)
		}
	}
	return errors.Join(append(problems, e.publishTargets())...)
}

// reconcileDeployment starts what is missing, takes pods of an older template
// away once those of the new one are ready, and keeps the status.
func (e *Environment) reconcileDeployment(ctx context.Context, d *appsv1.Deployment) error {
	hash, replicas := templateHash(d), 1
	if d.Spec.Replicas != nil {
		replicas = int(*d.Spec.Replicas)
	}
	var problem error
	for n := e.count(d.Name, func(p *pod) bool { return p.hash == hash }); n < replicas; n++ {
		p, err := e.startPod(d)
		if err != nil {
			problem = err // the status tells that it is not there
			break
		}
		e.pods[d.Name] = append(e.pods[d.Name], p)
	}
	for _, p := range e.pods[d.Name] {
		if e.isReady(p) {
			problem = errors.Join(problem, e.register(ctx, p))
		} else {
			problem = errors.Join(problem, e.deregister(ctx, p))
		}
	}
	updated := e.count(d.Name, func(p *pod) bool { return p.hash == hash && p.registered })
	current := 0
	surplus := func(p *pod) bool {
		if p.hash != hash {
			return updated >= replicas
		}
		current++
		return current > replicas
	}
	problem = errors.Join(problem, e.shrink(ctx, d.Name, surplus))
	return errors.Join(problem, e.updateStatus(ctx, d, hash, replicas))
}

func (e *Environment) isReady(p *pod) bool {
	return p.configured.Load() && !p.refused && !e.unready[p.deployment]
}

func (e *Environment) count(deployment string, is func(*pod) bool) int {
	n := 0
	for _, p := range e.pods[deployment] {
		if is(p) {
			n++
		}
	}
	return n
}

// shrink takes pods away; one whose entry cannot be deleted stays for the next
// time.
func (e *Environment) shrink(ctx context.Context, deployment string, goes func(*pod) bool) error {
	var problem error
	e.pods[deployment] = slices.DeleteFunc(e.pods[deployment], func(p *pod) bool {
		if !goes(p) {
			return false
		}
		if err := e.deregister(ctx, p); err != nil {
			problem = errors.Join(problem, err)
			return false
		}
		e.retire(p)
		return true
	})
	if len(e.pods[deployment]) == 0 {
		delete(e.pods, deployment)
	}
	return problem
}

// updateStatus writes the status that a Deployment's controller would.
func (e *Environment) updateStatus(ctx context.Context, d *appsv1.Deployment, hash string, replicas int) error {
	ready := int32(e.count(d.Name, func(p *pod) bool { return p.registered }))
	status := appsv1.DeploymentStatus{
		ObservedGeneration: d.Generation,
		Replicas:           int32(len(e.pods[d.Name])),
		UpdatedReplicas:    int32(e.count(d.Name, func(p *pod) bool { return p.hash == hash })),
		ReadyReplicas:      ready,
		AvailableReplicas:  ready,
	}
	status.UnavailableReplicas = max(int32(replicas)-ready, 0)
	available := makeCondition(appsv1.DeploymentAvailable, ready >= int32(replicas), "MinimumReplicasAvailable", "MinimumReplicasUnavailable")
	progressing := makeCondition(appsv1.DeploymentProgressing, true, "ReplicaSetUpdated", "")
	if status.UpdatedReplicas == int32(replicas) && status.Replicas == status.UpdatedReplicas && ready == int32(replicas) {
		progressing.Reason = "NewReplicaSetAvailable"
	}
	status.Conditions = []appsv1.DeploymentCondition{keepTimes(d, available), keepTimes(d, progressing)}
	if reflect.DeepEqual(d.Status, status) {
		return nil
	}
	d = d.DeepCopy()
	d.Status = status
	_, err := e.kube.AppsV1().Deployments(d.Namespace).UpdateStatus(ctx, d, metav1.UpdateOptions{})
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		return nil // the cache is behind; its next event brings us back
	}
	return err
}

func makeCondition(kind appsv1.DeploymentConditionType, is bool, yes, no string) appsv1.DeploymentCondition {
	if is {
		return appsv1.DeploymentCondition{Type: kind, Status: corev1.ConditionTrue, Reason: yes}
	}
	return appsv1.DeploymentCondition{Type: kind, Status: corev1.ConditionFalse, Reason: no}
}

// keepTimes gives a condition the times of its like, or the present.
func keepTimes(d *appsv1.Deployment, c appsv1.DeploymentCondition) appsv1.DeploymentCondition {
	c.LastUpdateTime = metav1.NewTime(time.Now().Truncate(time.Second))
	c.LastTransitionTime = c.LastUpdateTime
	for _, old := range d.Status.Conditions {
		if old.Type != c.Type {
			continue
		}
		if old.Status == c.Status {
			c.LastTransitionTime = old.LastTransitionTime
			if old.Reason == c.Reason {
				c.LastUpdateTime = old.LastUpdateTime
			}
		}
	}
	return c
}

// available tells whether all Deployments are, at their generation.
func (e *Environment) available() bool {
	deployments, err := e.deployments.Deployments(e.Namespace).List(labels.Everything())
	if err != nil {
		return false
	}
	return !slices.ContainsFunc(deployments, func(d *appsv1.Deployment) bool {
		return d.Status.ObservedGeneration != d.Generation || d.Spec.Replicas != nil && d.Status.AvailableReplicas < *d.Spec.Replicas
	})
}

// publishTargets tells Prometheus which proxies there are.
func (e *Environment) publishTargets() error {
	target := func(namespace, pod, address string) controlplane.TargetGroup {
		return controlplane.TargetGroup{Targets: []string{address}, Labels: map[string]string{"namespace": namespace, "pod": pod}}
	}
	groups := []controlplane.TargetGroup{}
	for _, s := range []*standalone{e.client, e.gateway} {
		if s != nil {
			groups = append(groups, target(s.namespace, s.pod, s.proxy.Metrics()))
		}
	}
	for _, pods := range e.pods {
		for _, p := range pods {
			if p.proxy == nil {
				continue
			}
			groups = append(groups, target(e.Namespace, p.name, p.proxy.Metrics()))
		}
	}
	slices.SortFunc(groups, func(a, b controlplane.TargetGroup) int { return strings.Compare(a.Labels["pod"], b.Labels["pod"]) })
	if reflect.DeepEqual(groups, e.targets) {
		return nil
	}
	if err := e.cp.SetTargets(targetsName(e.Namespace), groups...); err != nil {
		return err
	}
	e.targets = groups
	return nil
}

// SetReady makes the pods of a Deployment ready or unready, those to come as
// well, and waits until its status says so. Pods that are not ready are no
// endpoints.
func (e *Environment) SetReady(ctx context.Context, deployment string, ready bool) error {
	e.mu.Lock()
	e.unready[deployment] = !ready
	e.mu.Unlock()
	e.kick()
	return e.await(ctx, fmt.Sprintf("Deployment %s to be ready=%t", deployment, ready), func() bool {
		d, err := e.deployments.Deployments(e.Namespace).Get(deployment)
		return err == nil && (d.Status.ReadyReplicas > 0) == ready
	})
}

// Misbehave makes all pods of a Deployment fail, those to come as well, until
// told otherwise. The Deployment need not exist yet.
func (e *Environment) Misbehave(deployment string, m bookinfo.Misbehaviour) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.misbehave[deployment] = m
	for _, p := range e.pods[deployment] {
		p.app.Misbehave(m)
	}
}
