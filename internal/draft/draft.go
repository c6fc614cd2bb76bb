package draft

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	v1 "sluice.dev/sluice/api/v1"
	"sluice.dev/sluice/internal/mesh"
	"sluice.dev/sluice/internal/plan"
)

// Input is what is there.
type Input struct {
	// Service by its name, and its namespace.
	Service, Namespace string
	// Objects of the namespace.
	Objects []*unstructured.Unstructured
	Now     time.Time
}

// found is what the Rollout is made of.
type found struct {
	Input
	service  *corev1.Service
	versions []version
	subsets  []v1.Subset
	protocol v1.Protocol
	// port that has to be named; 0: there is one only.
	port int32
	// stable version; guessed: nothing tells that it is.
	stable  string
	guessed bool
	managed []v1.ManagedVirtualService
	skipped []string
	// doubts of a run, as its status would tell them.
	doubts string
}

// Rollout returns the manifest, in YAML with comments. An error tells what is missing.
func Rollout(ctx context.Context, in Input) (string, error) {
	f := &found{Input: in}
	if err := f.findService(); err != nil {
		return "", err
	}
	if other := f.rollout(); other != "" {
		return "", fmt.Errorf("Rollout %s has host %s already: a host has one Rollout", other, in.Service)
	}
	f.findPort()
	f.subsets = mesh.Survey(f.trial(""), f.ofKind("VirtualService"), f.ofKind("DestinationRule")).Subsets
	if err := f.findVersions(); err != nil {
		return "", err
	}
	if err := f.findStable(ctx); err != nil {
		return "", err
	}
	return f.yaml(), nil
}

func (f *found) ofKind(kind string) []*unstructured.Unstructured {
	var objects []*unstructured.Unstructured
	for _, o := range f.Objects {
		if o.GetKind() == kind && o.GetNamespace() == f.Namespace && !plan.Namesake(o) {
			objects = append(objects, o)
		}
	}
	return objects
}

func (f *found) findService() error {
	var names []string
	for _, o := range f.ofKind("Service") {
		if o.GetName() == f.Service {
			f.service = &corev1.Service{}
			return runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, f.service)
		}
		names = append(names, o.GetName())
	}
	if len(names) == 0 {
		return fmt.Errorf("there is no Service %s in namespace %s, nor any other", f.Service, f.Namespace)
	}
	return fmt.Errorf("there is no Service %s in namespace %s: it has %s", f.Service, f.Namespace, strings.Join(names, ", "))
}

// rollout names the one that has the host already; empty: none.
func (f *found) rollout() string {
	for _, o := range f.ofKind("Rollout") {
		host, _, err := unstructured.NestedString(o.Object, "spec", "host")
		if err == nil && mesh.HostKey(host, f.Namespace) == mesh.HostKey(f.Service, f.Namespace) {
			return o.GetName()
		}
	}
	return ""
}

// findPort decides on the protocol as Istio does: by appProtocol, else by the port's name up to its first dash. Of several ports the
// first that speaks HTTP is taken.
func (f *found) findPort() {
	ports := f.service.Spec.Ports
	f.protocol = v1.ProtocolTCP
	chosen := 0
	for i := range ports {
		if protocolOf(&ports[i]) == v1.ProtocolHTTP {
			f.protocol, chosen = v1.ProtocolHTTP, i
			break
		}
	}
	if len(ports) == 0 {
		f.protocol = v1.ProtocolHTTP
	}
	if len(ports) > 1 {
		f.port = ports[chosen].Port
	}
}

func protocolOf(p *corev1.ServicePort) v1.Protocol {
	name, _, _ := strings.Cut(p.Name, "-")
	if p.AppProtocol != nil {
		name = strings.TrimPrefix(*p.AppProtocol, "kubernetes.io/")
	}
	switch strings.ToLower(name) {
	case "tcp", "mongo", "redis", "mysql", "tls", "https", "udp":
		return v1.ProtocolTCP
	}
	return v1.ProtocolHTTP // what names no protocol Istio detects; HTTP is by far the most
}

// trial is a Rollout to a version, with which the mesh is looked at.
func (f *found) trial(to string) *v1.Rollout {
	r := &v1.Rollout{}
	r.SetGroupVersionKind(v1.GroupVersion.WithKind("Rollout"))
	r.Name, r.Namespace = f.Service, f.Namespace
	r.Spec = v1.RolloutSpec{Host: f.Service, Version: to}
	if f.protocol != v1.ProtocolHTTP {
		r.Spec.Protocol = f.protocol
	}
	for _, v := range f.versions {
		if v.labels != nil {
			r.Spec.Versions = append(r.Spec.Versions, v1.Version{Name: v.name, Labels: v.labels})
		}
	}
	return r
}

// findStable plays a run to a version that nothing is known of: the version that it starts from serves, and what it would write
// is managed.
func (f *found) findStable(ctx context.Context) error {
	const nobody = "another-version"
	p, err := f.play(ctx, "", nobody)
	if err != nil {
		return err
	}
	if p.Problem != nil && p.Problem.Reason == v1.ReasonInitialVersionUnknown {
		f.guessed = len(f.versions) > 1
		if p, err = f.likeliest(ctx, nobody); err != nil {
			return err
		}
	}
	f.stable = p.From
	if p.From == "" || p.From == nobody {
		f.stable = f.versions[0].name
	}
	if p.Problem != nil {
		f.doubts = p.Problem.Reason + ": " + p.Problem.Message
	}
	f.managed, f.skipped = p.Managed, p.Skipped
	return nil
}

// likeliest is the plan of a run from the version to which most routes send; from the first one, if none does.
func (f *found) likeliest(ctx context.Context, to string) (*plan.Plan, error) {
	var best *plan.Plan
	most := -1
	for _, v := range f.versions {
		p, err := f.play(ctx, v.name, to)
		if err != nil {
			return nil, err
		}
		routes := 0
		for _, vs := range p.Managed {
			if !vs.Created {
				routes += len(vs.Routes)
			}
		}
		if routes > most {
			best, most = p, routes
		}
	}
	return best, nil
}

func (f *found) play(ctx context.Context, from, to string) (*plan.Plan, error) {
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(f.trial(to))
	if err != nil {
		return nil, err
	}
	in := plan.Input{Rollout: &unstructured.Unstructured{Object: content}, Objects: f.Objects, From: from, Now: f.Now}
	return plan.Make(ctx, in)
}

// routesOf says which routes of a VirtualService would be managed.
func routesOf(vs v1.ManagedVirtualService) string {
	if len(vs.Routes) == 0 {
		return "VirtualService " + vs.Name
	}
	var names []string
	for _, r := range vs.Routes {
		name := r.Key
		if strings.HasPrefix(name, "#") {
			name = "one without a name"
		}
		names = append(names, name)
	}
	slices.Sort(names)
	return fmt.Sprintf("VirtualService %s, routes: %s", vs.Name, strings.Join(slices.Compact(names), ", "))
}
