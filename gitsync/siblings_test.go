package gitsync

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	clocktesting "k8s.io/utils/clock/testing"

	v1 "sluice.dev/sluice/api/v1"
)

// Which GitSyncs may have what has left another one's path.
func TestSiblings(t *testing.T) {
	of := func(namespace, url string, change func(*v1.GitSync)) v1.GitSync {
		sync := v1.GitSync{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "other"}, Spec: v1.GitSyncSpec{URL: url}}
		if change != nil {
			change(&sync)
		}
		return sync
	}
	const url = "https://git.example.com/team/app.git"
	sync := of("n", url, nil)
	for name, tc := range map[string]struct {
		other v1.GitSync
		want  bool
	}{
		"same":               {of("n", url, func(s *v1.GitSync) { s.Spec.Path = "other" }), true},
		"the ref spelt out":  {of("n", "https://git.example.com/team/app", func(s *v1.GitSync) { s.Spec.Ref = &v1.GitRef{Branch: "main"} }), true},
		"another ref":        {of("n", url, func(s *v1.GitSync) { s.Spec.Ref = &v1.GitRef{Branch: "next"} }), false},
		"another repository": {of("n", "https://git.example.com/team/other.git", nil), false},
		"another namespace":  {of("m", url, nil), false},
		"suspended":          {of("n", url, func(s *v1.GitSync) { s.Spec.Suspend = true }), false},
		"on its way out":     {of("n", url, func(s *v1.GitSync) { s.DeletionTimestamp = &metav1.Time{Time: noon.Time} }), false},
	} {
		if got := len(siblings(&sync, []v1.GitSync{tc.other})) == 1; got != tc.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

// What left the repository waits for one pass of each sibling that began since, each object by itself.
func TestAwaitSiblings(t *testing.T) {
	clock := clocktesting.NewFakePassiveClock(noon.Time)
	r := &Reconciler{Clock: clock}
	sync := &v1.GitSync{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "sync"}, Spec: v1.GitSyncSpec{URL: "https://git.example.com/app.git"}}
	other := clone(sync, "other")
	known := &remembered{}
	entry := func(name string) v1.InventoryEntry {
		return v1.InventoryEntry{Version: "v1", Kind: "ConfigMap", Namespace: "n", Name: name}
	}
	key := types.NamespacedName{Namespace: "n", Name: "other"}
	for i, step := range []struct {
		// passed is when the sibling's last pass began, in seconds from noon; 0: it had none.
		passed int
		stale  []string
		due    []string
	}{
		{0, []string{"a"}, nil},
		{-1, []string{"a"}, nil},
		{2, []string{"a", "b"}, []string{"a"}},
		{2, []string{"a", "b"}, []string{"a"}},
		{10, []string{"b"}, []string{"b"}},
		{10, []string{"a"}, nil}, // it was back in between
	} {
		clock.SetTime(noon.Add(time.Duration(i) * time.Second))
		if step.passed != 0 {
			r.recall.pass(key, noon.Add(time.Duration(step.passed)*time.Second))
		}
		if i == 5 {
			clock.SetTime(noon.Add(11 * time.Second))
		}
		var stale []v1.InventoryEntry
		for _, name := range step.stale {
			stale = append(stale, entry(name))
		}
		due, waiting := r.awaitSiblings(sync, known, []v1.GitSync{*other}, stale)
		var names []string
		for _, e := range due {
			names = append(names, e.Name)
		}
		if diff := cmp.Diff(step.due, names); diff != "" || len(waiting.Kept)+len(due) != len(stale) || len(waiting.Pending) != len(waiting.Kept) {
			t.Errorf("step %d: %s\nwaiting %+v", i, diff, waiting)
		}
	}
	r.recall.forget(key)
	if due, _ := r.awaitSiblings(sync, known, nil, []v1.InventoryEntry{entry("a")}); len(due) != 1 {
		t.Error("waits for nobody")
	}
}

func clone(sync *v1.GitSync, name string) *v1.GitSync {
	copied := sync.DeepCopy()
	copied.Name = name
	return copied
}
