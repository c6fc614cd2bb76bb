package cli

import (
	"context"
	"fmt"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"

	"sluice.dev/sluice/internal/manifest"
	"sluice.dev/sluice/internal/plan"
)

// pageSize of lists.
const pageSize = 500

// cluster reads a cluster through the user's own rights.
type cluster struct {
	client    dynamic.Interface
	mapper    meta.RESTMapper
	namespace string
}

func (t *tool) cluster() (*cluster, error) {
	config, err := t.config.ToRESTConfig()
	if err != nil {
		return nil, err
	}
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	mapper, err := t.config.ToRESTMapper()
	if err != nil {
		return nil, err
	}
	namespace, err := t.namespace()
	return &cluster{client, mapper, namespace}, err
}

// mapping of a kind; nil when the cluster does not know it.
func (c *cluster) mapping(kind schema.GroupKind, versions ...string) (*meta.RESTMapping, error) {
	mapping, err := c.mapper.RESTMapping(kind, versions...)
	switch {
	case meta.IsNoMatchError(err):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("looking for kind %s: %w", kind, err)
	}
	return mapping, nil
}

// resource is where objects of a kind are; nil when the cluster does not know the kind.
func (c *cluster) resource(kind schema.GroupKind, namespace string, versions ...string) (dynamic.ResourceInterface, error) {
	mapping, err := c.mapping(kind, versions...)
	if err != nil || mapping == nil {
		return nil, err
	}
	resource := c.client.Resource(mapping.Resource)
	if mapping.Scope.Name() != meta.RESTScopeNameNamespace {
		return resource, nil
	}
	return resource.Namespace(namespace), nil
}

// list reads all of a namespace that a plan may depend on. A kind that the cluster does not know has no objects; one that the user may
// not list is an error, since without it a plan would tell of another run.
func (c *cluster) list(ctx context.Context, namespace string) ([]manifest.Object, error) {
	var objects []manifest.Object
	for _, kind := range plan.Kinds() {
		found, err := c.listKind(ctx, kind, namespace)
		if err != nil {
			return nil, err
		}
		for _, o := range found {
			objects = append(objects, fromCluster(o))
		}
	}
	return objects, nil
}

func (c *cluster) listKind(ctx context.Context, kind schema.GroupKind, namespace string) ([]*unstructured.Unstructured, error) {
	resource, err := c.resource(kind, namespace)
	if err != nil || resource == nil {
		return nil, err
	}
	var objects []*unstructured.Unstructured
	options := metav1.ListOptions{Limit: pageSize}
	for {
		list, err := resource.List(ctx, options)
		if err != nil {
			return nil, fmt.Errorf("reading %ss of namespace %s: %w", kind.Kind, namespace, err)
		}
		for i := range list.Items {
			objects = append(objects, &list.Items[i])
		}
		if options.Continue = list.GetContinue(); options.Continue == "" {
			return objects, nil
		}
	}
}

// get reads one object like another one, nil when there is none.
func (c *cluster) get(ctx context.Context, like *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	gvk := like.GroupVersionKind()
	resource, err := c.resource(gvk.GroupKind(), like.GetNamespace(), gvk.Version)
	if err != nil || resource == nil {
		return nil, err
	}
	found, err := resource.Get(ctx, like.GetName(), metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading %s %s: %w", gvk.Kind, like.GetName(), err)
	}
	return found, nil
}

func fromCluster(object *unstructured.Unstructured) manifest.Object {
	object.SetManagedFields(nil)
	return manifest.Object{Unstructured: object}
}

// withLive adds what the cluster has and the files do not name. What the files name becomes what a push of it would come to.
func (t *tool) withLive(ctx context.Context, given, rollouts []manifest.Object) ([]manifest.Object, error) {
	c, err := t.cluster()
	if err != nil {
		return nil, err
	}
	return c.around(ctx, given, rollouts, func(found []manifest.Object) (overlay, error) { return t.push(found) })
}

// overlay tells of a given object how it is live, and which of the other live objects stay.
type overlay struct {
	each  func(own, live manifest.Object)
	stays func(live manifest.Object) bool
}

// around adds to the given objects what else the namespaces of Rollouts have. over is asked once for each of them.
func (c *cluster) around(ctx context.Context, given, rollouts []manifest.Object, over func(live []manifest.Object) (overlay, error)) ([]manifest.Object, error) {
	objects, named := slices.Clone(given), map[string]manifest.Object{}
	for _, o := range given {
		named[identity(o)] = o
	}
	read := map[string]bool{}
	for _, r := range rollouts {
		if read[r.GetNamespace()] {
			continue
		}
		read[r.GetNamespace()] = true
		live, err := c.list(ctx, r.GetNamespace())
		if err != nil {
			return nil, err
		}
		overlay, err := over(live)
		if err != nil {
			return nil, err
		}
		var others []manifest.Object
		for _, found := range live {
			if own, ok := named[identity(found)]; ok {
				overlay.each(own, found)
			} else {
				others = append(others, found)
			}
		}
		for _, o := range others {
			if overlay.stays(o) {
				objects = append(objects, o)
			}
		}
	}
	return objects, nil
}

func identity(o manifest.Object) string {
	return o.GroupVersionKind().Group + "/" + o.GetKind() + "/" + o.GetNamespace() + "/" + o.GetName()
}

// liveRollout reads a Rollout with its namespace.
func (t *tool) liveRollout(ctx context.Context, name string) (objects, rollouts []manifest.Object, err error) {
	c, err := t.cluster()
	if err != nil {
		return nil, nil, err
	}
	if objects, err = c.list(ctx, c.namespace); err != nil {
		return nil, nil, err
	}
	if rollouts, err = rolloutsOf(objects, name); err != nil {
		return nil, nil, fmt.Errorf("namespace %s: %w", c.namespace, err)
	}
	return objects, rollouts, nil
}
