package controllers

import (
	"sync"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "sluice.dev/sluice/api/v1"
)

// The kinds that are written, and those of Istio that are read.
var (
	kindRollout         = v1.GroupVersion.WithKind("Rollout")
	kindVirtualService  = schema.GroupVersionKind{Group: "networking.istio.io", Version: "v1", Kind: "VirtualService"}
	kindDestinationRule = schema.GroupVersionKind{Group: "networking.istio.io", Version: "v1", Kind: "DestinationRule"}
	kindServiceEntry    = schema.GroupVersionKind{Group: "networking.istio.io", Version: "v1", Kind: "ServiceEntry"}
	kindWorkloadEntry   = schema.GroupVersionKind{Group: "networking.istio.io", Version: "v1", Kind: "WorkloadEntry"}
)

type ledgerKey struct {
	kind string
	types.NamespacedName
}

// ledger keeps the resourceVersion of each object that this process wrote last or read live, so that nothing is decided on a
// cache that is older.
type ledger struct {
	mu       sync.Mutex
	versions map[ledgerKey]string
	// echoes holds the version of this process's last write.
	echoes map[ledgerKey]string
	// deleted holds the last version of what this process deleted.
	deleted map[ledgerKey]string
}

func newLedger() *ledger {
	return &ledger{versions: map[ledgerKey]string{}, echoes: map[ledgerKey]string{}, deleted: map[ledgerKey]string{}}
}

func (l *ledger) wrote(kind schema.GroupVersionKind, obj client.Object) {
	l.saw(kind, obj)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.echoes[ledgerKey{kind.Kind, client.ObjectKeyFromObject(obj)}] = obj.GetResourceVersion()
}

// saw notes what was read live.
func (l *ledger) saw(kind schema.GroupVersionKind, obj client.Object) {
	l.mu.Lock()
	defer l.mu.Unlock()
	key := ledgerKey{kind.Kind, client.ObjectKeyFromObject(obj)}
	l.versions[key] = obj.GetResourceVersion()
	delete(l.deleted, key)
}

// removed notes a deletion: a cache that still has that version is behind.
func (l *ledger) removed(kind schema.GroupVersionKind, obj client.Object) {
	l.mu.Lock()
	defer l.mu.Unlock()
	key := ledgerKey{kind.Kind, client.ObjectKeyFromObject(obj)}
	delete(l.versions, key)
	delete(l.echoes, key)
	l.deleted[key] = obj.GetResourceVersion()
}

// gone notes that a live read did not find what was written or read live before: a cache that still has that version, or an
// older one, is behind.
func (l *ledger) gone(kind schema.GroupVersionKind, of types.NamespacedName) {
	l.mu.Lock()
	defer l.mu.Unlock()
	key := ledgerKey{kind.Kind, of}
	if last, ok := l.versions[key]; ok {
		l.deleted[key] = last
	}
	delete(l.versions, key)
	delete(l.echoes, key)
}

func (l *ledger) forget(kind schema.GroupVersionKind, key types.NamespacedName) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.versions, ledgerKey{kind.Kind, key})
	delete(l.echoes, ledgerKey{kind.Kind, key})
	delete(l.deleted, ledgerKey{kind.Kind, key})
}

// stale tells whether the object is older than our last write or live read of it, or one that we deleted.
func (l *ledger) stale(kind schema.GroupVersionKind, obj client.Object) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	key := ledgerKey{kind.Kind, client.ObjectKeyFromObject(obj)}
	if last, ok := l.versions[key]; ok {
		order, err := resourceversion.CompareResourceVersion(obj.GetResourceVersion(), last)
		return err == nil && order < 0
	}
	if last, ok := l.deleted[key]; ok {
		order, err := resourceversion.CompareResourceVersion(obj.GetResourceVersion(), last)
		return err == nil && order <= 0
	}
	return false
}

// own tells whether the object is as this process wrote it last.
func (l *ledger) own(kind schema.GroupVersionKind, obj client.Object) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	last, ok := l.echoes[ledgerKey{kind.Kind, client.ObjectKeyFromObject(obj)}]
	return ok && last == obj.GetResourceVersion()
}

// known lists the names in a namespace of the objects of a kind that this process wrote or read live.
func (l *ledger) known(kind schema.GroupVersionKind, namespace string, names []string) []string {
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
