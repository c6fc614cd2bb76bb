package gitsync

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	v1 "sluice.dev/sluice/api/v1"
)

var noon = metav1.NewMicroTime(time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC))

// A GitSync's life: what each pass changes, and what is news.
func TestStatus(t *testing.T) {
	one, two := strings.Repeat("1", 40), strings.Repeat("2", 40)
	entry := func(name string) v1.InventoryEntry {
		return v1.InventoryEntry{Version: "v1", Kind: "ConfigMap", Namespace: "n", Name: name}
	}
	success := func(commit string, names ...string) attempt {
		a := attempt{reason: v1.ReasonApplied, message: "Applied", commit: commit}
		for _, name := range names {
			a.outcome.Applied = append(a.outcome.Applied, entry(name))
		}
		return a
	}
	sync := &v1.GitSync{ObjectMeta: metav1.ObjectMeta{Generation: 1}}
	for i, step := range []struct {
		attempt             attempt
		changed, news       bool
		conditions          string
		revision, attempted string
		inventory           string
		fetched             bool
		ready               string
	}{
		{attempt: attempt{reason: v1.ReasonFetching, message: "Fetching"}, changed: true, news: true, conditions: "Ready=False Reconciling=True", ready: "Fetching"},
		{attempt: success(one, "b", "a"), changed: true, news: true, conditions: "Ready=True", revision: one, attempted: one, inventory: "a b", fetched: true, ready: "Applied"},
		{attempt: success(one, "a", "b"), conditions: "Ready=True", revision: one, attempted: one, inventory: "a b", ready: "Applied"},
		{attempt: attempt{reason: v1.ReasonFetchFailed, message: "no route", retry: true}, changed: true, news: true, conditions: "Ready=False Reconciling=True", revision: one, attempted: one, inventory: "a b", fetched: true, ready: "no route; revision 1111111 stays applied"},
		{attempt: attempt{reason: v1.ReasonFetchFailed, message: "no route", retry: true}, conditions: "Ready=False Reconciling=True", revision: one, attempted: one, inventory: "a b", ready: "no route; revision 1111111 stays applied"},
		{attempt: attempt{reason: v1.ReasonInvalidContent, message: "bad", commit: two, stalled: true}, changed: true, news: true, conditions: "Ready=False Stalled=True", revision: one, attempted: two, inventory: "a b", fetched: true, ready: "bad; revision 1111111 stays applied"},
		{attempt: attempt{reason: v1.ReasonApplyFailed, message: "cut off", commit: two, retry: true, outcome: Outcome{Applied: []v1.InventoryEntry{entry("c")}}}, changed: true, news: true, conditions: "Ready=False Reconciling=True", revision: one, attempted: two, inventory: "a b c", fetched: true, ready: "cut off; revision 1111111 stays applied"},
		{attempt: success(two, "c"), changed: true, news: true, conditions: "Ready=True", revision: two, attempted: two, inventory: "c", ready: "Applied"},
		{attempt: attempt{reason: v1.ReasonSuspended, message: "Suspended"}, changed: true, news: true, conditions: "Ready=True", revision: two, attempted: two, inventory: "c", ready: "Suspended; revision 2222222 stays applied"},
	} {
		before := *sync.Status.DeepCopy()
		now := metav1.NewMicroTime(noon.Add(time.Duration(i) * time.Minute))
		next, changed := nextStatus(sync, step.attempt, now)
		if changed != step.changed || transition(before, step.attempt) != step.news {
			t.Errorf("step %d: changed %t, news %t", i, changed, transition(before, step.attempt))
		}
		var conditions, names []string
		for _, c := range next.Conditions {
			conditions = append(conditions, fmt.Sprintf("%s=%s", c.Type, c.Status))
		}
		for _, e := range next.Inventory {
			names = append(names, e.Name)
		}
		got := []string{strings.Join(conditions, " "), next.Revision, next.AttemptedRevision, strings.Join(names, " "), meta.FindStatusCondition(next.Conditions, v1.ConditionReady).Message}
		if diff := cmp.Diff([]string{step.conditions, step.revision, step.attempted, step.inventory, step.ready}, got); diff != "" {
			t.Errorf("step %d (-want +got):\n%s", i, diff)
		}
		if fetched := next.LastFetch != nil && next.LastFetch.Equal(&now); fetched != step.fetched {
			t.Errorf("step %d: lastFetch %v", i, next.LastFetch)
		}
		sync.Status = next
	}
}

// What a revision brings is in the inventory before it is applied, as pending until it is known to be.
func TestAnnounced(t *testing.T) {
	manifests := mustDecode(t, "{apiVersion: v1, kind: ConfigMap, metadata: {name: a, namespace: ns}}\n---\n{apiVersion: v1, kind: ConfigMap, metadata: {name: b, namespace: ns}}")
	a, b := entryFor(manifests[0].Object), entryFor(manifests[1].Object)
	before := []v1.InventoryEntry{a}
	next, changed := announced(before, manifests)
	pending := b
	pending.Pending = true
	if diff := cmp.Diff([]v1.InventoryEntry{a, pending}, next); diff != "" || !changed {
		t.Errorf("changed %t: %s", changed, diff)
	}
	if _, changed = announced(next, manifests); changed {
		t.Error("announced once more")
	}
	sync := &v1.GitSync{Status: v1.GitSyncStatus{Inventory: next}}
	cut, _ := nextStatus(sync, attempt{reason: v1.ReasonApplyFailed, outcome: Outcome{Applied: []v1.InventoryEntry{b}}}, noon)
	if diff := cmp.Diff([]v1.InventoryEntry{a, b}, cut.Inventory); diff != "" {
		t.Error(diff)
	}
}

func TestStatusEchoesTheCommandWhenItIsDone(t *testing.T) {
	sync := &v1.GitSync{ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{v1.CommandAnnotation: "sync 1"}}}
	if next, _ := nextStatus(sync, attempt{reason: v1.ReasonFetching}, noon); next.LastCommand != "" {
		t.Error("echoed before anything was fetched")
	}
	if next, _ := nextStatus(sync, attempt{reason: v1.ReasonFetchFailed}, noon); next.LastCommand != "sync 1" {
		t.Error("not echoed")
	}
	for command, ok := range map[string]bool{"sync 1": true, "sync": true, "approve v1 1": false, "synch 1": false} {
		if (commandProblem(command, false) == "") != ok {
			t.Errorf("%s: %q", command, commandProblem(command, false))
		}
	}
}

func TestMessagesAreBounded(t *testing.T) {
	a := attempt{reason: v1.ReasonInvalidContent, message: strings.Repeat("long\n", 10_000)}
	next, _ := nextStatus(&v1.GitSync{}, a, noon)
	if message := next.Conditions[0].Message; len(message) > maxMessage+10 || strings.Contains(message, "\n") {
		t.Errorf("a message of %d bytes", len(message))
	}
}

func TestBackoff(t *testing.T) {
	for failures, want := range map[int]time.Duration{1: time.Second, 2: 2 * time.Second, 4: 8 * time.Second, 7: time.Minute, 1000: time.Minute} {
		if got := backoff(failures, time.Minute); got != want {
			t.Errorf("after %d failures: %s, want %s", failures, got, want)
		}
	}
	if got := backoff(5, 2*time.Second); got != 2*time.Second {
		t.Errorf("beyond the interval: %s", got)
	}
	for range 1000 {
		if d := jittered(time.Minute); d < 57*time.Second || d > 63*time.Second {
			t.Fatalf("a minute with jitter is %s", d)
		}
	}
	if IntervalOf(&v1.GitSyncSpec{}) != time.Minute || IntervalOf(&v1.GitSyncSpec{Interval: &metav1.Duration{Duration: time.Millisecond}}) != time.Second {
		t.Error("intervals")
	}
}

func TestSlots(t *testing.T) {
	s := slots{limit: 2}
	got := []bool{s.take("a"), s.take("a"), s.take("a"), s.take("b")}
	if diff := cmp.Diff([]bool{true, true, false, true}, got); diff != "" {
		t.Errorf("a namespace gets its share and no more: %s", diff)
	}
	s.free("a")
	if !s.take("a") {
		t.Error("a slot that was freed is not there")
	}
}

func TestRecall(t *testing.T) {
	var r recall
	key := types.NamespacedName{Namespace: "n", Name: "a"}
	source := Source{URL: mustParse(t, "https://git.example.com/app"), Ref: v1.GitRef{Branch: "main"}, Path: "deploy"}
	r.of(key, "1").keep(source, "c0ffee", nil, nil)
	if got := r.of(key, "1").knownCommit(source); got != "c0ffee" {
		t.Errorf("known commit %q", got)
	}
	elsewhere := source
	elsewhere.Path = "other"
	if got := r.of(key, "1").knownCommit(elsewhere); got != "" {
		t.Errorf("of another path: %q", got)
	}
	if got := r.of(key, "2").knownCommit(source); got != "" {
		t.Errorf("of a GitSync made anew: %q", got)
	}
	r.forget(key)
	if len(r.entries) != 0 {
		t.Error("not forgotten")
	}
}
