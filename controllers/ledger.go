package controllers

import (
	"sync"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "sluice.dev/sluice/api/v1"
)

// The kinds that are written.
var (
	kindRollout         = v1.GroupVersion.WithKind("Rollout")
	kindVirtualService  = schema.GroupVersionKind{Group: "networking.istio.io", Version: "v1", Kind: "VirtualService"}
	kindDestinationRule = schema.GroupVersionKind{Group: "networking.istio.io", Version: "v1", Kind: "DestinationRule"}
	kindWorkloadEntry   = schema.GroupVersionKind{Group: "networking.istio.io", Version: "v1", Kind: "WorkloadEntry"}
)

type ledgerKey struct {
	kind string
	types.NamespacedName
}

// ledger keeps the resourceVersion of this process's last write of each object, so that nothing is decided on a cache that
// is older. Not knowing a write (its answer was lost) is harmless: the next one carries the old version and is refused.
type ledger struct {
	mu       sync.Mutex
	versions map[ledgerKey]string
}

func newLedger() *ledger {
	return &ledger{versions: map[ledgerKey]string{}}
}

func (l *ledger) wrote(kind schema.GroupVersionKind, obj client.Object) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.versions[ledgerKey{kind.Kind, client.ObjectKeyFromObject(obj)}] = obj.GetResourceVersion()
}

func (l *ledger) forget(kind schema.GroupVersionKind, key types.NamespacedName) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.versions, ledgerKey{kind.Kind, key})
}

// stale tells whether the object is older than our last write of it.
func (l *ledger) stale(kind schema.GroupVersionKind, obj client.Object) bool {
	last, ok := l.last(kind, client.ObjectKeyFromObject(obj))
	if !ok {
		return false
	}
	order, err := resourceversion.CompareResourceVersion(obj.GetResourceVersion(), last)
	return err == nil && order < 0
}

// own tells whether the object is as this process wrote it last.
func (l *ledger) own(kind schema.GroupVersionKind, obj client.Object) bool {
	last, ok := l.last(kind, client.ObjectKeyFromObject(obj))
	return ok && last == obj.GetResourceVersion()
}

func (l *ledger) last(kind schema.GroupVersionKind, key types.NamespacedName) (string, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	last, ok := l.versions[ledgerKey{kind.Kind, key}]
	return last, ok
}

// written lists the names in a namespace of the objects of a kind that this process wrote.
func (l *ledger) written(kind schema.GroupVersionKind, namespace string, names []string) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var known []string
	for _, name := range names {
		if _, ok := l.versions[ledgerKey{kind.Kind, types.NamespacedName{Namespace: namespace, Name: name}}]; ok {
			known = append(known, name)
		}
	}
	return known
}
